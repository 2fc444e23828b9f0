"""Rules and dashboard name only metrics that are exported, and each alert says what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_app.monitoring.endpoint import metrics_port
from stream_app.roles import ROLES

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "sliceflow.json"
SUFFIXES = ("_total", "_bucket", "_sum", "_count")
NAME = re.compile(r"\b(?:sliceflow|process)_[a-z0-9_]+\b")
DECLARED = re.compile(
    r'(?:tally|watch|setter|work_meter|_histogram|_gauge|_counter)\(\s*"([a-z0-9_]+)"(?:, "([a-z]+)")?'
)
FAMILIES = re.compile(r'GaugeMetricFamily\(\s*"(sliceflow_[a-z0-9_]+)"')
OF_THE_SERVER = re.compile(r'"(sliceflow_[a-z0-9_]+)"')
OF_THE_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds", "process_start_time_seconds"}
"""What the client's `ProcessCollector` exports, as far as we look at it."""


def alerts() -> list[dict[str, Any]]:
    """All rules."""
    return [
        rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression, with the name of its alert or panel."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def exported() -> set[str]:
    """The metrics of roles and server, as the code declares them (a running chain is asked in `tests/monitoring`)."""
    found = OF_THE_PROCESS | set(OF_THE_SERVER.findall((ROOT / "stream_app" / "web" / "metrics.py").read_text()))
    sources = [*(ROOT / "stream_app" / "monitoring").glob("*.py"), *(ROOT / "stream_app" / "wiring").glob("*.py")]
    for path in sources:
        text = path.read_text()
        found |= set(FAMILIES.findall(text))
        for name, unit in DECLARED.findall(text):
            found |= {f"sliceflow_{name}_{unit}", f"sliceflow_{name}_seconds"} if unit else {f"sliceflow_{name}"}
    return found


def plain(name: str) -> str:
    """A metric's name without what its kind appends."""
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def test_every_metric_that_is_looked_at_is_exported() -> None:
    looked_at = {(where, plain(name)) for where, text in expressions() for name in NAME.findall(text)}
    assert len(looked_at) > 30
    known = exported()
    assert {where: name for where, name in looked_at if name not in known} == {}


def test_every_metric_that_is_exported_is_looked_at() -> None:
    looked_at = {plain(name) for _, text in expressions() for name in NAME.findall(text)}
    assert exported() - looked_at == set()


def test_every_alert_has_its_paragraph_and_names_it() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text()
    headings = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_prometheus_asks_every_role_at_its_port() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    asked = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in config["scrape_configs"]}
    assert asked == {f"sliceflow-{role}": metrics_port(9400, role, 0) for role in ROLES} | {"sliceflow-serve": 8360}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not installed")
def test_promtool_accepts_the_rules_and_their_cases() -> None:
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    config = ["promtool", "check", "config", "--syntax-only", "prometheus.yml"]
    assert subprocess.run(config, cwd=PROMETHEUS, capture_output=True).returncode == 0
