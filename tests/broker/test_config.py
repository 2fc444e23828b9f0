"""Kafka's properties and the choice of ports."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker.config import (
    LOOPBACK,
    MANAGED,
    SERVER_PORTS,
    choose_ports,
    format_properties,
    is_port_free,
    logging_properties,
    server_properties,
)
from stream_app.broker.errors import BrokerConfigError, PortTakenError


def read_properties(text: str) -> dict[str, str]:
    """Read the part of Java's format that is written here, straight from its description."""
    named = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}

    def unescape(raw: str) -> str:
        plain = re.sub(
            r"\\(?:u([0-9a-f]{4})|(.))",
            lambda hit: chr(int(hit[1], 16)) if hit[1] else named[hit[2]],
            raw,
        )
        return plain.encode("utf-16", "surrogatepass").decode("utf-16")

    pairs = (line.split("=", 1) for line in text.split("\n") if line)
    return {unescape(key): unescape(value) for key, value in pairs}


KEYS = st.from_regex(r"[a-z][a-z.]{0,15}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: text == text.lstrip())


@given(st.dictionaries(KEYS, VALUES))
def test_what_is_written_reads_back(values: dict[str, str]) -> None:
    text = format_properties(values)
    assert text.isascii()
    assert read_properties(text) == values


def properties(**options: object) -> dict[str, str]:
    given_options = {"log_dir": Path("/data"), "client_port": 5, "controller_port": 6, "extra": {}, **options}
    return read_properties(server_properties(**given_options))  # type: ignore[arg-type]


def test_all_listeners_are_on_the_loopback_and_follow_the_ports() -> None:
    values = properties()
    assert values["listeners"] == f"CLIENT://{LOOPBACK}:5,CONTROLLER://{LOOPBACK}:6"
    assert values["advertised.listeners"] == f"CLIENT://{LOOPBACK}:5"
    assert values["controller.quorum.voters"] == f"1@{LOOPBACK}:6"
    assert set(values) >= MANAGED - {"log.dir", "metadata.log.dir"}


def test_old_and_future_event_times_are_kept() -> None:
    values = properties()
    assert values["log.retention.ms"] == "-1"
    assert values["log.message.timestamp.type"] == "CreateTime"
    for side in ("before", "after"):
        assert int(values[f"log.message.timestamp.{side}.max.ms"]) == 2**63 - 1


def test_further_properties_win() -> None:
    assert properties(extra={"num.partitions": "9", "new.one": "x"}).items() >= {
        ("num.partitions", "9"),
        ("new.one", "x"),
    }


@pytest.mark.parametrize("name", sorted(MANAGED))
def test_managed_properties_are_refused(name: str) -> None:
    with pytest.raises(BrokerConfigError, match=name):
        properties(extra={name: "x"})


def test_a_folder_with_a_comma_is_refused() -> None:
    with pytest.raises(BrokerConfigError, match="comma"):
        properties(log_dir=Path("/da,ta"))


def test_the_log_is_bounded() -> None:
    values = dict(line.split(" = ") for line in logging_properties().splitlines())
    assert values["appender.file.policies.size.size"] == "8MB"
    assert values["appender.file.strategy.max"] == "2"


def test_free_ports_differ_and_are_free() -> None:
    ports = choose_ports(fixed=None)
    assert ports[0] != ports[1]
    assert all(map(is_port_free, ports))


def test_no_client_of_a_lost_broker_can_be_given_its_port() -> None:
    for _ in range(20):
        assert all(port in SERVER_PORTS for port in choose_ports(fixed=None))


def test_the_ports_of_the_last_run_are_taken_again_if_they_are_free() -> None:
    first = choose_ports(fixed=None)
    assert choose_ports(fixed=None, preferred=first) == first
    with socket.create_server((LOOPBACK, first[0])):
        client, controller = choose_ports(fixed=None, preferred=first)
        assert client != first[0]
        assert controller == first[1]


def test_a_fixed_port_is_taken_even_if_the_controller_had_it() -> None:
    client, controller = choose_ports(fixed=None)
    fixed, other = choose_ports(fixed=controller, preferred=(client, controller))
    assert fixed == controller
    assert other != controller


def test_a_fixed_port_in_use_is_refused_by_number() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not is_port_free(port)
        with pytest.raises(PortTakenError, match=str(port)):
            choose_ports(fixed=port)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(BrokerConfigError, match="65535"):
        choose_ports(fixed=port)
