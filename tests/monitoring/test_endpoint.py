"""The address of a worker: metrics, whether it lives, whether it is ready."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from stream_app.errors import UsageError
from stream_app.monitoring.endpoint import metrics_port, serving
from stream_app.monitoring.role_metrics import RoleMetrics
from stream_app.roles import ROLES
from tests.monitoring.cases import value_of
from tests.support import DEADLINE_S


def fetched(address: tuple[str, int], path: str) -> tuple[int, str]:
    """Status and body of an answer."""
    try:
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_answers_metrics_life_and_readiness() -> None:
    metrics = RoleMetrics("trend")
    metrics.note_run(4, 0.1)
    ready = False
    with serving(metrics.registry, "127.0.0.1", 0, is_ready=lambda: ready) as address:
        status, text = fetched(address, "/metrics")
        assert (status, value_of(text, "sliceflow_run_records_sum", role="trend")) == (200, 4)
        assert fetched(address, "/healthz")[0] == 200
        assert fetched(address, "/readyz")[0] == 503
        ready = True
        assert fetched(address, "/readyz") == (200, "ready\n")
        assert fetched(address, "/etc/passwd")[0] == 404


def test_a_taken_port_is_told_with_what_mends_it() -> None:
    registry = RoleMetrics("trend").registry
    with (
        serving(registry, "127.0.0.1", 0, is_ready=lambda: True) as (_, port),
        pytest.raises(UsageError, match=f"127.0.0.1:{port}.*metrics_port"),
        serving(registry, "127.0.0.1", port, is_ready=lambda: True),
    ):
        pass


def test_no_two_workers_of_a_machine_share_a_port() -> None:
    ports = [metrics_port(9400, role, number) for role in ROLES for number in range(100)]
    assert len(set(ports)) == len(ports)
    assert ports[0] == 9400
