"""The connection to Kafka: what is refused before a client is made, and how an unreachable broker looks."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stream_app.errors import KafkaUnreachableError, SettingsError
from stream_app.kafka import addresses, check_reachable, connection, partition_of
from stream_app.settings import KafkaSettings, Settings
from stream_app.wiring.credentials import faust_credentials

SASL: dict[str, Any] = {"security_protocol": "SASL_SSL", "sasl_username": "ann", "sasl_password": "secret"}


def kafka(**fields: Any) -> Settings:
    """Settings with these fields of the connection."""
    return Settings(kafka=KafkaSettings(**{"bootstrap_servers": "broker:9092", **fields}))


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_a_plain_connection() -> None:
    made = connection(kafka(bootstrap_servers="one:1, two ,[::1]:3"))
    assert made == {"bootstrap_servers": ["one:1", "two:9092", "::1:3"], "security_protocol": "PLAINTEXT"}
    assert faust_credentials(kafka()) is None


@pytest.mark.parametrize("text", ["", " , ", "host:", ":9092", "host:port", "host:0", "host:65536", "host:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        addresses(KafkaSettings(bootstrap_servers=text))


def test_tls_without_files_trusts_the_machines_authorities() -> None:
    context = connection(kafka(security_protocol="SSL"))["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert faust_credentials(kafka(security_protocol="SSL")).protocol.value == "SSL"  # type: ignore[union-attr]


def test_the_password_comes_from_a_file_without_its_newline(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret \n")
    fields = {**SASL, "sasl_password": "", "sasl_password_file": str(tmp_path / "password")}
    made = connection(kafka(**fields, sasl_mechanism="SCRAM-SHA-512"))
    assert made["sasl_plain_password"] == "s3cret "
    assert (made["sasl_mechanism"], made["sasl_plain_username"]) == ("SCRAM-SHA-512", "ann")
    assert isinstance(made["ssl_context"], ssl.SSLContext)


def test_faust_gets_the_same_credentials() -> None:
    credentials: Any = faust_credentials(kafka(**{**SASL, "sasl_mechanism": "SCRAM-SHA-256"}))
    assert credentials is not None
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-256")
    assert (credentials.username, credentials.password) == ("ann", "secret")
    plain: Any = faust_credentials(
        kafka(**{**SASL, "security_protocol": "SASL_PLAINTEXT", "allow_plaintext_sasl": True})
    )
    assert plain is not None
    assert (plain.protocol.value, plain.ssl_context) == ("SASL_PLAINTEXT", None)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"security_protocol": "TLS"}, "security_protocol"),
        ({**SASL, "security_protocol": "SASL_PLAINTEXT"}, "allow_plaintext_sasl"),
        ({**SASL, "sasl_mechanism": "GSSAPI"}, "SCRAM-SHA-256"),
        ({**SASL, "sasl_username": ""}, "sasl_username"),
        ({**SASL, "sasl_password": ""}, "sasl_password_file"),
        ({**SASL, "sasl_password_file": "some-file"}, "both set"),
        ({**SASL, "sasl_password": "", "sasl_password_file": "no-such-file"}, "no-such-file"),
        ({"security_protocol": "SSL", "ssl_cafile": "no-such-ca"}, "no-such-ca"),
        ({"security_protocol": "SSL", "ssl_certfile": "cert"}, "ssl_keyfile"),
        ({"security_protocol": "SSL", "ssl_certfile": __file__, "ssl_keyfile": __file__}, "PEM"),
        ({"security_protocol": "SSL", "ssl_cafile": __file__}, "PEM"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connection(kafka(**fields))
    assert named in str(caught.value)
    assert caught.value.mend
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        # Published with Kafka's own Java clients: murmur2 of these texts, as signed 32-bit integers.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_lie_where_other_kafka_clients_put_them(key: bytes, hashed: int) -> None:
    for num_partitions in (1, 4, 7):
        assert partition_of(key, num_partitions) == (hashed & 0x7FFFFFFF) % num_partitions


def test_a_closed_port_is_named_at_once_and_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    with silent_server() as port:
        pass
    with pytest.raises(KafkaUnreachableError, match=f"127.0.0.1:{port}") as caught:
        check_reachable(kafka(bootstrap_servers=f"127.0.0.1:{port}"), timeout_s=20)
    assert "KAFKA_BOOTSTRAP_SERVERS" in caught.value.mend
    assert capfd.readouterr() == ("", "")


def test_a_server_that_says_nothing_is_given_up() -> None:
    with silent_server() as port, pytest.raises(KafkaUnreachableError, match=r"no answer within 0\.2 s"):
        check_reachable(kafka(bootstrap_servers=f"127.0.0.1:{port}"), timeout_s=0.2)


def test_every_address_is_named() -> None:
    with pytest.raises(KafkaUnreachableError, match=r"host\.invalid:1 .*, other\.invalid:2 "):
        check_reachable(kafka(bootstrap_servers="host.invalid:1,other.invalid:2"), timeout_s=20)


@pytest.mark.kafka
def test_a_running_broker_is_reachable(broker: Any) -> None:
    check_reachable(kafka(bootstrap_servers=f"host.invalid:1,{broker.bootstrap_servers}"), timeout_s=10)


@pytest.mark.kafka
def test_tls_to_a_port_without_tls_points_at_the_protocol(broker: Any) -> None:
    settings = kafka(bootstrap_servers=broker.bootstrap_servers, security_protocol="SSL")
    with pytest.raises(KafkaUnreachableError, match=r"TLS failed|security_protocol"):
        check_reachable(settings, timeout_s=5)
