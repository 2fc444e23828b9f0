"""The doctor's checks: each looks at one thing a set-up needs, and says what mends it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from aiokafka.conn import create_conn
from aiokafka.protocol.admin import ApiVersionRequest

from stream_app.errors import KafkaUnreachableError, SliceflowError
from stream_app.kafka import addresses, as_unreachable, check_reachable, connection, quiet_clients
from stream_app.lag import group_name, lag_of
from stream_app.preflight import inspect_topics
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.topics import prefixed

ANSWER_WITHIN_S: Final = 5.0
"""How long the broker may take for its first answer."""

GIB: Final = 1024**3
FAIL_FREE_GIB: Final = 1.0
"""Less free disk than this fails: one compaction of a store, or one segment of the broker, may need it."""

WARN_FREE_GIB: Final = 5.0
"""Less free disk than this is worth a warning: a day of a busy topic."""

WARN_LAG: Final = 10_000
"""A lag above this many records is worth a warning: a role alone on one core works it off in about a second,
so it should not stand."""

PACKAGES: Final = ("aiokafka", "faust-streaming", "rocksdict", "msgspec", "orjson", "numpy", "torch")
"""The packages whose versions decide behaviour; FAISS has two names and is looked for by itself."""

_APIS: Final[Mapping[int, str]] = {
    0: "Produce",
    1: "Fetch",
    3: "Metadata",
    18: "ApiVersions",
    68: "new groups",
}
_PRODUCE_API: Final = 0
_NEEDED_PRODUCE: Final = 3

Status = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it stands, what was seen, and what mends it (empty when OK)."""

    name: str
    status: Status
    detail: str
    mend: str = ""


def local_checks(settings: Settings) -> Iterator[Check]:
    """What can be told without Kafka: packages, state folder, disk, model. Changes nothing on disk."""
    yield check_packages()
    yield check_state_folder(settings.state_path)
    yield check_disk(settings.state_path)
    yield check_model(settings.model)


def kafka_checks(settings: Settings) -> Iterator[Check]:
    """What only Kafka can tell: the connection, its versions, the topics, the lag of each role.

    Not for use inside a running loop. Stops after the first check where there is no connection.
    """
    try:
        check_reachable(settings, ANSWER_WITHIN_S)
    except SliceflowError as error:
        yield failed("connection", error)
        return
    where = f"{settings.kafka.bootstrap_servers}, {settings.kafka.security_protocol}"
    yield Check("connection", "OK", where)
    with quiet_clients():
        yield from _guarded("broker", lambda: [check_versions(settings)])
        yield from _guarded("topics", lambda: check_topics(settings))
        yield from _guarded("lag", lambda: check_lags(settings))


def failed(name: str, error: SliceflowError) -> Check:
    """The finding that an error of ours makes."""
    return Check(name, "FAIL", error.message, error.mend)


def _guarded(name: str, look: Any) -> Iterator[Check]:
    try:
        yield from look()
    except SliceflowError as error:
        yield failed(name, error)


# ---------------------------------------------------------------- this machine


def check_packages() -> Check:
    """The versions of Python and of the packages that matter."""
    versions = {name: _version(name) for name in PACKAGES}
    versions["faiss"] = _version("faiss-gpu") or _version("faiss-cpu")
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check("packages", "FAIL", f"not installed: {', '.join(missing)}", "install the project anew")
    python = ".".join(str(part) for part in sys.version_info[:3])
    return Check("packages", "OK", f"python {python}, " + ", ".join(f"{k} {v}" for k, v in versions.items()))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_state_folder(folder: Path) -> Check:
    """Whether the state folder can be written, or made."""
    mend = "give the user rights to it, or set SLICEFLOW_STATE_DIR to another folder"
    standing = _standing(folder)
    if not standing.is_dir():
        return Check("state folder", "FAIL", f"{standing} is no folder", mend)
    if standing != folder:
        if os.access(standing, os.W_OK | os.X_OK):
            return Check("state folder", "OK", f"{folder} (will be made)")
        return Check("state folder", "FAIL", f"{folder} cannot be made: {standing} is not writable", mend)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check("state folder", "OK", str(folder))
    except OSError as error:
        return Check("state folder", "FAIL", f"{folder} cannot be written: {error.strerror}", mend)


def check_disk(folder: Path, free_bytes: int | None = None) -> Check:
    """The free disk space where the state lives (`free_bytes`, where the caller knows it)."""
    free = shutil.disk_usage(_standing(folder)).free if free_bytes is None else free_bytes
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    mend = "free some space, or set SLICEFLOW_STATE_DIR to a larger disk"
    if free < FAIL_FREE_GIB * GIB:
        return Check("disk", "FAIL", f"{detail}; at least {FAIL_FREE_GIB:g} GiB are needed", mend)
    if free < WARN_FREE_GIB * GIB:
        return Check("disk", "WARN", f"{detail}; {WARN_FREE_GIB:g} GiB are comfortable", mend)
    return Check("disk", "OK", detail)


def check_model(model: str) -> Check:
    """Whether the model's folder is there, with weights in it."""
    if not model:
        return Check(
            "model",
            "WARN",
            "none is set: lists come without user vectors",
            "train one with `sliceflow train`",
        )
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return Check(
            "model",
            "FAIL",
            f"{folder} is no folder",
            "set SLICEFLOW_MODEL to a folder `sliceflow train` made",
        )
    if not any(folder.glob("*.safetensors")):
        return Check("model", "FAIL", f"{folder} holds no weights (*.safetensors)", "train it with `sliceflow train`")
    return Check("model", "OK", str(folder))


def _standing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


# ---------------------------------------------------------------- Kafka


def check_versions(settings: Settings) -> Check:
    """The newest versions of a few requests that the broker speaks; headers need Produce 3 (Kafka 0.11)."""
    versions = asyncio.run(_api_versions(settings))
    known = ", ".join(f"{name} {versions[key]}" for key, name in _APIS.items() if key in versions)
    if versions.get(_PRODUCE_API, 0) < _NEEDED_PRODUCE:
        return Check("broker", "FAIL", f"it speaks {known}", "use Kafka 0.11 or newer; 2.8 and newer are tested")
    return Check("broker", "OK", f"request versions: {known}")


async def _api_versions(settings: Settings) -> dict[int, int]:
    arguments = connection(settings)
    del arguments["bootstrap_servers"]
    for host, port in addresses(settings.kafka):
        with as_unreachable(settings):
            conn = await create_conn(host, port, request_timeout_ms=int(ANSWER_WITHIN_S * 1000), **arguments)
            try:
                answer = await conn.send(ApiVersionRequest())
            finally:
                conn.close()
            return {key: newest for key, _oldest, newest in answer.api_versions}
    raise KafkaUnreachableError("No broker is named.")


def check_topics(settings: Settings) -> Iterator[Check]:
    """One finding for each topic that needs a look, or one that all are well."""
    states = inspect_topics(settings)
    missing = [state.name for state in states if state.is_missing]
    problems = [problem for state in states for problem in state.problems]
    notes = [note for state in states for note in state.notes]
    if missing:
        yield Check("topics", "WARN", f"missing: {', '.join(missing)}", "run `sliceflow topics --create`")
    for problem in problems:
        yield Check("topics", "FAIL", problem, "do what is said, or use another `prefix`")
    for note in notes:
        yield Check("topics", "WARN", note, "alter its cleanup.policy")
    if not (missing or problems or notes):
        yield Check("topics", "OK", f"all {len(states)} are there, in the right shape")


def check_lags(settings: Settings) -> Iterator[Check]:
    """How far each role is behind its input; topics that are missing are left to `check_topics`."""
    present = {state.name for state in inspect_topics(settings) if not state.is_missing}
    for role, name in ROLE_INPUTS.items():
        topic = prefixed(settings.prefix, name)
        if topic in present:
            yield _lag_check(settings, role, topic)


def _lag_check(settings: Settings, role: str, topic: str) -> Check:
    lags = lag_of(settings, group_name(settings, role), [topic])
    lag = sum(one.lag for one in lags)
    detail = f"{role} is {lag} records behind the end of {topic}"
    if lag and all(one.committed is None for one in lags):
        return Check(
            "lag",
            "WARN",
            f"{role} has read nothing yet of {lag} records in {topic}",
            "start it: `sliceflow up`",
        )
    if lag > WARN_LAG:
        return Check("lag", "WARN", detail, f"see that {role} runs; add workers, up to one per partition")
    return Check("lag", "OK", detail)
