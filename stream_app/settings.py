"""Settings: one frozen object, read once, from a TOML file, the environment, and flags.

Order, later wins: defaults, the file (``--config``, else ``SLICEFLOW_CONFIG``, else ``./sliceflow.toml`` if it
is there), the environment (``SLICEFLOW_<FIELD>``, and ``KAFKA_BOOTSTRAP_SERVERS``), flags of the command line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from stream_app.errors import SettingsError

ENV_PREFIX = "SLICEFLOW_"
DEFAULT_FILE = "sliceflow.toml"

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


SECRET_FIELDS = frozenset({"sasl_password", "serve_token"})
"""The settings whose value is never shown."""


def masked(field: str, value: Any) -> Any:
    """The value of a field as it may be shown."""
    return "***" if field in SECRET_FIELDS and value else value


def _shown(struct: msgspec.Struct) -> str:
    fields = ", ".join(f"{name}={masked(name, getattr(struct, name))!r}" for name in struct.__struct_fields__)
    return f"{type(struct).__name__}({fields})"


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Kafka. Secrets come from files or the environment and are masked in every print."""

    bootstrap_servers: Annotated[str, Meta(description="host:port, comma separated; empty: the embedded broker")] = ""
    security_protocol: Annotated[str, Meta(description="PLAINTEXT, SSL, SASL_SSL or SASL_PLAINTEXT")] = "PLAINTEXT"
    allow_plaintext_sasl: Annotated[bool, Meta(description="accept SASL without TLS")] = False
    sasl_mechanism: Annotated[str, Meta(description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")] = "PLAIN"
    sasl_username: Annotated[str, Meta(description="SASL user")] = ""
    sasl_password: Annotated[str, Meta(description="SASL password; better: sasl_password_file")] = ""
    sasl_password_file: Annotated[str, Meta(description="file that holds the SASL password")] = ""
    ssl_cafile: Annotated[str, Meta(description="PEM file of the authority that signed the brokers")] = ""
    ssl_certfile: Annotated[str, Meta(description="PEM file of the client certificate")] = ""
    ssl_keyfile: Annotated[str, Meta(description="PEM file of the client key")] = ""

    def __repr__(self) -> str:
        return _shown(self)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; every field can be set in the file or as ``SLICEFLOW_<FIELD>`` (JSON for lists and maps)."""

    kafka: KafkaSettings = KafkaSettings()
    prefix: Annotated[str, Meta(description="put before every topic and group name", pattern=r"^[A-Za-z0-9._-]*$")] = ""
    partitions: Annotated[Count, Meta(description="partitions of each co-partitioned topic")] = 4
    replication: Annotated[Count, Meta(description="replication factor of topics we create")] = 1
    state_dir: Annotated[str, Meta(description="where stores, broker data and logs live")] = ""
    model: Annotated[str, Meta(description="folder of the trained model")] = ""
    event_types: Annotated[
        dict[str, Annotated[float, Meta(gt=0, le=1000)]], Meta(description="accepted types, weights")
    ] = msgspec.field(default_factory=lambda: {"click": 1.0, "browse": 0.5, "purchase": 3.0})
    fields: Annotated[dict[str, str], Meta(description="our field name = the producers' field name")] = msgspec.field(
        default_factory=dict
    )
    slice_events: Annotated[Count, Meta(description="a slice closes at this many events")] = 16
    slice_gap_s: Annotated[Seconds, Meta(description="a slice closes at this long a gap in event time")] = 1800.0
    slice_span_s: Annotated[Seconds, Meta(description="a slice closes when it spans this much event time")] = 86400.0
    history_events: Annotated[Count, Meta(description="events kept of each user (whole slices)")] = 128
    allowed_lateness_s: Annotated[
        float, Meta(ge=0, description="how far the watermark stays behind the newest event")
    ] = 60.0
    max_future_s: Annotated[Seconds, Meta(description="an event may be this far ahead of its record's own time")] = (
        600.0
    )
    epoch_s: Annotated[Seconds, Meta(description="length of an epoch of trends, event time")] = 10.0
    half_lives_s: Annotated[list[Seconds], Meta(description="half-lives of the decayed popularity", min_length=1)] = (
        msgspec.field(default_factory=lambda: [900.0, 3600.0, 21600.0, 86400.0, 604800.0, 2592000.0])
    )
    scorer_epoch_s: Annotated[
        Seconds, Meta(description="the scorer changes this often, event time; rounded up to whole epochs")
    ] = 900.0
    score_users_share: Annotated[
        float, Meta(gt=0, le=1, description="share of the users whose choices the scorer learns from")
    ] = 1.0
    score_choices_per_epoch: Annotated[
        Count, Meta(description="choices learned from in each scorer-epoch, at most", le=100_000)
    ] = 2000
    drift_users_share: Annotated[
        float, Meta(ge=0, le=1, description="share of the users whose vectors are checked against a full re-encoding")
    ] = 0.01
    index_kind: Annotated[
        Literal["faiss", "live"],
        Meta(description="faiss: exact; live: exact up to 50,000 items, beyond faster, and started from a snapshot"),
    ] = "faiss"
    list_items: Annotated[Count, Meta(description="length of a published list")] = 20
    candidates: Annotated[Count, Meta(description="candidates taken from each source", le=1000)] = 50
    store_memory_mb: Annotated[Count, Meta(description="memory of all RocksDB stores of one process")] = 128
    session_timeout_s: Annotated[Seconds, Meta(description="how long Kafka waits for a silent worker")] = 10.0
    num_standbys: Annotated[
        int, Meta(ge=0, le=8, description="other workers of a role that keep a copy of each partition's state")
    ] = 0
    metrics_host: Annotated[str, Meta(description="address that the workers' metrics are served at")] = "127.0.0.1"
    metrics_port: Annotated[
        int,
        Meta(ge=0, le=64000, description="first port of the metrics; each role adds its hundred, a worker its number"),
    ] = 0
    log_json: Annotated[bool, Meta(description="log records as JSON, one line each")] = False
    trace_exporter: Annotated[
        Literal["none", "otlp", "console"],
        Meta(description="where traces go; none: nothing is traced; console: stderr. Needs the extra `tracing`"),
    ] = "none"
    trace_share: Annotated[
        float, Meta(ge=0, le=1, description="share of the traces that begin at our API which are recorded")
    ] = 1.0
    serve_host: Annotated[str, Meta(description="address that the page and the HTTP API are served at")] = "127.0.0.1"
    serve_port: Annotated[int, Meta(ge=0, le=65535, description="port of the page and the API; 0: any free one")] = 8360
    serve_token: Annotated[str, Meta(description="token that requests must bring; better: serve_token_file")] = ""
    serve_token_file: Annotated[str, Meta(description="file that holds the token")] = ""
    serve_users: Annotated[Count, Meta(description="users whose lists and slices the server keeps in memory")] = 20_000
    serve_requests_per_s: Annotated[
        Count, Meta(description="requests of one address answered in a second; dear ones count for several")
    ] = 5000

    def __repr__(self) -> str:
        return _shown(self)

    @property
    def epoch_ms(self) -> int:
        """Length of an epoch, whole milliseconds."""
        return int(self.epoch_s * 1000)

    @property
    def scorer_epoch_ms(self) -> int:
        """Length of a scorer-epoch, whole milliseconds, a multiple of `epoch_ms`."""
        return -(-int(self.scorer_epoch_s * 1000) // self.epoch_ms) * self.epoch_ms

    @property
    def state_path(self) -> Path:
        """The state folder; `SLICEFLOW_HOME`, else the user's state folder, where none is set."""
        return Path(self.state_dir).expanduser() if self.state_dir else default_state_dir(os.environ)


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """The user's state folder for Sliceflow."""
    if home := environ.get("SLICEFLOW_HOME"):
        return Path(home).expanduser()
    base = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "sliceflow"


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings from file, environment and `overrides` (None values are left out).

    Raises:
        SettingsError: A file or value is wrong; names the field, what was seen and what mends it.
    """
    environ = os.environ if environ is None else environ
    merged = _read_file(_find_file(config, environ))
    _merge(merged, _from_environment(environ))
    _merge(merged, {name: value for name, value in (overrides or {}).items() if value is not None})
    return parse_settings(merged)


def settings_sources(config: Path | None = None, *, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting came from that is not left at its default: the path of the file, or the variable.

    Nested names have a dot: ``kafka.sasl_username``.

    Raises:
        SettingsError: As `load_settings`, where file or environment cannot be read.
    """
    environ = os.environ if environ is None else environ
    path = _find_file(config, environ)
    found = {name: str(path) for name in _flat_names(_read_file(path))}
    for name in _flat_names(_from_environment(environ)):
        variable = ENV_PREFIX + name.replace(".", "_").upper()
        found[name] = variable if variable in environ else "KAFKA_BOOTSTRAP_SERVERS"
    return found


def _flat_names(values: Mapping[str, Any]) -> list[str]:
    plain = [name for name in values if name != "kafka"]
    return plain + [f"kafka.{name}" for name in values.get("kafka", ())]


def parse_settings(values: Mapping[str, Any]) -> Settings:
    """Check plain values and make settings of them.

    Raises:
        SettingsError: A name is unknown or a value is out of its range.
    """
    try:
        settings = msgspec.convert(dict(values), Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"The settings are wrong: {error}.", mend="see `sliceflow config` for all fields"
        ) from error
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    if settings.history_events < 2 * settings.slice_events:
        raise SettingsError(
            f"history_events is {settings.history_events}, slice_events {settings.slice_events}; "
            "a history must hold two slices.",
            mend=f"set history_events to at least {2 * settings.slice_events}",
        )
    known = {"user_id", "item_id", "type", "ts", "event_id", "session_id", "query"}
    known |= {"price", "quantity", "recommendation_id", "context"}
    if unknown := sorted(set(settings.fields) - known):
        raise SettingsError(
            f"The field map names {', '.join(unknown)}, which no event has; known are {', '.join(sorted(known))}.",
            mend='write it as [fields] with lines like  user_id = "visitor"',
        )
    if len(set(settings.fields.values())) != len(settings.fields):
        raise SettingsError("The field map gives one producer field to two of ours.", mend="name each field once")
    if not settings.event_types:
        raise SettingsError("event_types is empty: no event could be accepted.", mend="name at least one type")


def _find_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = config or (Path(environ[ENV_PREFIX + "CONFIG"]) if environ.get(ENV_PREFIX + "CONFIG") else None)
    if named is not None:
        if not named.is_file():
            raise SettingsError(
                f"There is no configuration file at {named}.", mend="name an existing file with --config"
            )
        return named
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}.", mend="correct the line it names") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        if name != "kafka" and (text := environ.get(ENV_PREFIX + name.upper())) is not None:
            values[name] = _value_of(name, text)
    kafka = {
        name: text
        for name in KafkaSettings.__struct_fields__
        if (text := environ.get(f"{ENV_PREFIX}KAFKA_{name.upper()}")) is not None
    }
    if servers := environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        kafka.setdefault("bootstrap_servers", servers)
    if kafka:
        values["kafka"] = kafka
    return values


def _value_of(name: str, text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise SettingsError(
            f"{ENV_PREFIX}{name.upper()} is no JSON: {error}.", mend="write lists and maps as JSON"
        ) from error


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name == "kafka" and isinstance(into.get(name), dict):
            into[name] = {**into[name], **value}
        else:
            into[name] = value
