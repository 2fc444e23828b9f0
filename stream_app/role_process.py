"""One worker as a child process: started, watched, stopped, and what it said last."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from stream_app.roles import SERVE
from stream_app.settings import ENV_PREFIX, KafkaSettings, Settings

MAX_LOG_BYTES: Final = 10 * 1024 * 1024
"""A log longer than this is put aside when its worker starts; one older log is kept."""

TAIL_BYTES: Final = 64 * 1024
"""How much of a log's end is searched for the last error: far more than one traceback."""

MAX_REASON_CHARS: Final = 600
FINAL_MARKS: Final = ("Error: ", "sliceflow: ")
"""Starts of the line that a worker ends with when it gives up."""

LOGGED_MARKS: Final = (" CRITICAL ", " ERROR ")


@dataclass(frozen=True)
class Worker:
    """One worker: its role, and its number among those of the role."""

    role: str
    instance: int = 0

    @property
    def label(self) -> str:
        """Its name for people and files: ``trend``, ``trend-1``."""
        return f"{self.role}-{self.instance}" if self.instance else self.role


def worker_command(worker: Worker) -> list[str]:
    """The command line that runs `worker` until its standard input ends."""
    if worker.role == SERVE:
        # Several demos may run beside each other, and whoever starts all at once is told the address anyway.
        arguments = [SERVE, "--any-port", "--end-with-stdin"]
    else:
        arguments = ["worker", worker.role, "--instance", str(worker.instance), "--end-with-stdin"]
    return [sys.executable, "-m", "stream_app.cli", *arguments]


def settings_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with every setting in it, so that a child reads just these, wherever they came from."""
    made = {name: value for name, value in environ.items() if name != ENV_PREFIX + "CONFIG"}
    for name in Settings.__struct_fields__:
        if name != "kafka":
            made[ENV_PREFIX + name.upper()] = _text(getattr(settings, name))
    for name in KafkaSettings.__struct_fields__:
        made[f"{ENV_PREFIX}KAFKA_{name.upper()}"] = _text(getattr(settings.kafka, name))
    # The state folder may itself come from the environment, and be relative; the child's is the very same.
    made[ENV_PREFIX + "STATE_DIR"] = str(settings.state_path.resolve())
    made["KAFKA_BOOTSTRAP_SERVERS"] = settings.kafka.bootstrap_servers
    return made


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode("utf-8")


class RoleProcess:
    """A running worker; `start` makes one.

    It leads a session of its own, so that a Ctrl-C in the terminal reaches only the supervisor, which stops
    the workers in order; and it ends when the pipe to its standard input does (see `lifeline`).
    """

    def __init__(self, process: asyncio.subprocess.Process, log_file: Path, log_start: int) -> None:
        self._process = process
        self._log_file = log_file
        self._log_start = log_start

    @classmethod
    async def start(cls, command: Sequence[str], *, environ: Mapping[str, str], log_file: Path) -> Self:
        """Start `command`, its standard error appended to `log_file`."""
        log_start = rotate(log_file, MAX_LOG_BYTES)
        with log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=dict(environ),
                start_new_session=True,
            )
        return cls(process, log_file, log_start)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its end was not seen yet."""
        return self._process.returncode is None

    async def wait_ready(self) -> bool:
        """Wait until it says that it is ready; False if it ends before."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if is_ready_line(line):
                return True
        return False

    async def wait(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        assert self._process.stdout is not None
        while await self._process.stdout.read(TAIL_BYTES):
            pass  # what it prints is nobody's, but a full pipe would stop it
        return await self._process.wait()

    async def stop(self, bound_s: float) -> bool:
        """Ask it to stop, and kill it if it has not after `bound_s`; whether it stopped by itself."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), bound_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            return False
        return True

    def reason(self, exit_code: int) -> str:
        """Why it ended: its exit code or signal, and the last error in its log."""
        if exit_code < 0:
            return f"signal {_signal_name(-exit_code)}"  # whatever its log says last is not why
        said = last_error(self._log_file, self._log_start)
        return f"exit code {exit_code}: {said}" if said else f"exit code {exit_code}"


def is_ready_line(line: bytes) -> bool:
    """Whether a line on standard output is a worker's word that it is ready."""
    try:
        said = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return isinstance(said, dict) and "ready" in said


def rotate(log_file: Path, max_bytes: int) -> int:
    """Put a log aside that has grown over `max_bytes` (as ``NAME.1``); the length of the one in use."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    try:
        size = log_file.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= max_bytes:
        return size
    os.replace(log_file, log_file.with_name(log_file.name + ".1"))
    return 0


def last_error(log_file: Path, start: int) -> str:
    """The last error after byte `start` of a log; without one, its last line; empty for an empty log."""
    try:
        with log_file.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(start, end - TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    final = [line for line in lines if line.startswith(FINAL_MARKS)]
    logged = [line for line in lines if any(mark in line for mark in LOGGED_MARKS)]
    for line in (final or logged or lines)[-1:]:
        return line.removeprefix("Error: ").removeprefix("sliceflow: ")[:MAX_REASON_CHARS]
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
