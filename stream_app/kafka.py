"""The connection to Kafka: what the clients are given, whether the broker answers, where a key belongs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.errors import KafkaUnreachableError, SettingsError
from stream_app.kafka_client import mend_clients
from stream_app.settings import KafkaSettings, Settings

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
DEFAULT_PORT: Final = 9092

REQUEST_TIMEOUT_MS: Final = 15_000
"""How long one administrative request may take. Creating topics on a busy cluster takes seconds; longer is an
error that a person should see."""

_MEND_ADDRESS: Final = (
    "start a broker with `sliceflow up`, or set KAFKA_BOOTSTRAP_SERVERS to the address of a running one"
)


def connection(settings: Settings) -> dict[str, Any]:
    """The keyword arguments every aiokafka client is made with; aiokafka is mended by then.

    Raises:
        SettingsError: The settings contradict each other, or a file they name cannot be read.
    """
    mend_clients()
    kafka = settings.kafka
    _check_protocol(kafka)
    made: dict[str, Any] = {
        "bootstrap_servers": [f"{host}:{port}" for host, port in addresses(kafka)],
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.endswith("SSL"):
        made["ssl_context"] = _ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        made["sasl_mechanism"] = kafka.sasl_mechanism
        made["sasl_plain_username"] = kafka.sasl_username
        made["sasl_plain_password"] = _password(kafka)
    return made


def partition_of(key: bytes, num_partitions: int) -> int:
    """The partition of `key` by Kafka's default partitioner (murmur2 of the key, sign bit dropped)."""
    return int(murmur2(key) & 0x7FFFFFFF) % num_partitions


def addresses(kafka: KafkaSettings) -> list[tuple[str, int]]:
    """Host and port of each bootstrap server.

    Raises:
        SettingsError: There is none, or one is no ``host:port``.
    """
    found = [_address(text.strip()) for text in kafka.bootstrap_servers.split(",") if text.strip()]
    if not found:
        raise SettingsError("No Kafka broker is named.", mend=_MEND_ADDRESS)
    return found


def check_reachable(settings: Settings, timeout_s: float) -> None:
    """Return when a broker answers, and can be reached under the address that it advertises.

    Not for use inside a running event loop.

    Args:
        settings: The settings.
        timeout_s: The bound for each address tried.

    Raises:
        SettingsError: As `connection`.
        KafkaUnreachableError: No broker answered; names each address, what happened there, and what mends it.
    """
    made = connection(settings)
    servers = addresses(settings.kafka)
    with quiet_clients():
        asyncio.run(_reach_any(servers, made, timeout_s))


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[Any]:
    """A started aiokafka admin client, closed at the end of the block.

    Raises:
        SettingsError: As `connection`.
        KafkaUnreachableError: The broker does not answer, or a request to it failed inside the block.
    """
    client = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=REQUEST_TIMEOUT_MS)
    with as_unreachable(settings):
        try:
            await client.start()
            yield client
        finally:
            await client.close()


@contextmanager
def as_unreachable(settings: Settings) -> Iterator[None]:
    """Turn connection errors inside the block into a `KafkaUnreachableError` that names the address."""
    try:
        yield
    except (KafkaError, TimeoutError, OSError) as error:
        raise KafkaUnreachableError(
            f"Kafka at {settings.kafka.bootstrap_servers} failed: {type(error).__name__}: {error}.",
            mend=_MEND_ADDRESS,
        ) from error


async def start_reading(settings: Settings, consumer: Any) -> None:
    """Connect a consumer that belongs to no group; one that cannot connect leaves nothing open.

    Raises:
        KafkaUnreachableError: The broker does not answer.
    """
    with as_unreachable(settings):
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise


@contextmanager
def quiet_clients() -> Iterator[None]:
    """Keep aiokafka from logging while it runs: for probes whose failure is told by an error anyway."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


# ---------------------------------------------------------------- settings to arguments


def _check_protocol(kafka: KafkaSettings) -> None:
    if kafka.security_protocol not in PROTOCOLS:
        raise SettingsError(
            f"kafka.security_protocol is {kafka.security_protocol!r}.",
            mend=f"use one of {', '.join(PROTOCOLS)}",
        )
    if not kafka.security_protocol.startswith("SASL"):
        return
    if kafka.sasl_mechanism not in MECHANISMS:
        raise SettingsError(
            f"kafka.sasl_mechanism is {kafka.sasl_mechanism!r}.", mend=f"use one of {', '.join(MECHANISMS)}"
        )
    if kafka.security_protocol == "SASL_PLAINTEXT" and not kafka.allow_plaintext_sasl:
        raise SettingsError(
            "kafka.security_protocol is SASL_PLAINTEXT: the password would cross the network unencrypted.",
            mend="use SASL_SSL, or accept it with kafka.allow_plaintext_sasl = true",
        )
    if not kafka.sasl_username:
        raise SettingsError("SASL needs a user, but kafka.sasl_username is empty.", mend="set kafka.sasl_username")


def _password(kafka: KafkaSettings) -> str:
    if kafka.sasl_password and kafka.sasl_password_file:
        raise SettingsError(
            "kafka.sasl_password and kafka.sasl_password_file are both set.", mend="keep one, best the file"
        )
    if kafka.sasl_password_file:
        # Editors end a file with a newline, which is no part of the password.
        return _read("kafka.sasl_password_file", kafka.sasl_password_file).rstrip("\r\n")
    if not kafka.sasl_password:
        raise SettingsError("SASL needs a password, and none is set.", mend="set kafka.sasl_password_file")
    return kafka.sasl_password


def _read(name: str, path: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name} names {path}, which cannot be read: {error}.", mend=f"correct {name}") from error


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    if bool(kafka.ssl_certfile) != bool(kafka.ssl_keyfile):
        raise SettingsError(
            "Of kafka.ssl_certfile and kafka.ssl_keyfile only one is set.", mend="set both, or none of them"
        )
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        if path := getattr(kafka, name):
            _read(f"kafka.{name}", path)
    try:
        context = ssl.create_default_context(cafile=_expanded(kafka.ssl_cafile))
        if kafka.ssl_certfile:
            context.load_cert_chain(str(_expanded(kafka.ssl_certfile)), _expanded(kafka.ssl_keyfile), password="")
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"The TLS files under kafka.ssl_* are no usable PEM files: {error}.",
            mend="check kafka.ssl_cafile, ssl_certfile and ssl_keyfile (an unencrypted key)",
        ) from error
    return context


def _expanded(path: str) -> str | None:
    return str(Path(path).expanduser()) if path else None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise SettingsError(f"The bootstrap server {text!r} is no address.", mend="write it as host:port")
    return host, int(port)


# ---------------------------------------------------------------- reaching the broker


async def _reach_any(servers: list[tuple[str, int]], made: dict[str, Any], timeout_s: float) -> None:
    failures = []
    for host, port in servers:
        try:
            advertised = await _brokers_at(host, port, made, timeout_s)
        except (OSError, KafkaError, TimeoutError) as error:
            failures.append(f"{host}:{port} ({_what_happened(error, timeout_s)})")
            continue
        await _check_advertised(f"{host}:{port}", advertised, made, timeout_s)
        return
    raise KafkaUnreachableError(f"Kafka does not answer at {', '.join(failures)}.", mend=_MEND_ADDRESS)


async def _check_advertised(
    asked: str, advertised: list[tuple[str, int]], made: dict[str, Any], timeout_s: float
) -> None:
    failures = []
    for host, port in advertised:
        try:
            await _brokers_at(host, port, made, timeout_s)
            return
        except (OSError, KafkaError, TimeoutError) as error:
            failures.append(f"{host}:{port} ({_what_happened(error, timeout_s)})")
    if failures:
        raise KafkaUnreachableError(
            f"Kafka answers at {asked}, but tells clients to use {', '.join(failures)}.",
            mend="set advertised.listeners of the broker to an address that can be reached from here",
        )


async def _brokers_at(host: str, port: int, made: dict[str, Any], timeout_s: float) -> list[tuple[str, int]]:
    """The advertised addresses of all brokers, as the broker at this address tells them."""
    arguments = {name: value for name, value in made.items() if name != "bootstrap_servers"}
    async with asyncio.timeout(timeout_s):
        conn = await create_conn(host, port, request_timeout_ms=int(timeout_s * 1000), **arguments)
        try:
            answer = await conn.send(MetadataRequest([]))
        finally:
            conn.close()
    return [(str(broker[1]), int(broker[2])) for broker in answer.brokers]


def _what_happened(error: BaseException, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}; does this port speak TLS?"
    if isinstance(error, ConnectionError) and error.errno is None:
        return "it closed the connection; check kafka.security_protocol"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"
