"""Runs Kafka's process, and makes sure that it never outlives the process that started it.

Beside Kafka runs a watchdog: a shell of a few lines whose standard input is a pipe from this process. Nobody
else holds the writing end, so when this process ends, in whatever way (a SIGKILL too), the shell reads the
end of the pipe and stops Kafka: SIGTERM, then SIGKILL after `ORPHAN_BOUND_S`. That needs nothing but POSIX,
so it holds on Linux and on macOS alike, and from whichever thread the broker was started (Linux's own
parent-death signal is tied to the thread). It doesn't hold if the watchdog is killed too, and a child forked
without exec keeps the pipe open for as long as it lives.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

ORPHAN_BOUND_S: Final = 5
"""Time that a broker without its starter gets for a clean stop; it takes 0.2 s."""

_WATCHDOG: Final = f"""
read -r kafka || exit 0
read -r folder || exit 0
read -r _ && exit 0
kill -TERM "$kafka" 2>/dev/null
tenths=0
while kill -0 "$kafka" 2>/dev/null && [ "$tenths" -lt {ORPHAN_BOUND_S * 10} ]; do
    sleep 0.1
    tenths=$((tenths + 1))
done
kill -KILL "$kafka" 2>/dev/null
if [ -n "$folder" ]; then rm -rf -- "$folder"; fi
"""
"""Reads two lines (Kafka's pid; the folder to remove, or nothing), then waits for a third line or the end."""


class KafkaProcess:
    """A running Kafka and its watchdog; `launch` starts both."""

    def __init__(self, kafka: subprocess.Popen[bytes], watchdog: subprocess.Popen[bytes]) -> None:
        self._kafka = kafka
        self._watchdog = watchdog

    @classmethod
    def launch(
        cls, command: Sequence[str], *, folder: Path, output: Path, inherit: int, remove: Path | None = None
    ) -> Self:
        """Start the command in a session of its own, so that a Ctrl-C in the terminal doesn't reach it.

        Args:
            command: What to run.
            folder: Its working folder.
            output: File for its standard output and error; what it had is overwritten.
            inherit: An open file that the process keeps open as long as it lives.
            remove: A folder that goes when this process dies without stopping Kafka.
        """
        watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            with output.open("wb") as out:
                kafka = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    pass_fds=[inherit],
                    start_new_session=True,
                )
        except OSError:
            _dismiss(watchdog)
            raise
        _tell(watchdog, f"{kafka.pid}\n{remove or ''}\n")
        return cls(kafka, watchdog)

    @property
    def pid(self) -> int:
        """Kafka's process id."""
        return self._kafka.pid

    def poll(self) -> int | None:
        """Return the exit status (negative: the signal that ended it), or None while it runs."""
        return self._kafka.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end of Kafka; return its exit status, or None if it still runs after `timeout_s`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._kafka.wait(timeout_s)
        return None

    def stop(self, bound_s: float) -> bool:
        """Ask Kafka to end; kill it if it hasn't after `bound_s`. Return whether it ended by itself."""
        self._kafka.terminate()
        ended = self.wait(bound_s) is not None
        self.kill()
        return ended

    def kill(self) -> None:
        """End Kafka at once, without a chance to tidy up, and wait until it is gone."""
        self._kafka.kill()
        self._kafka.wait()
        _dismiss(self._watchdog)


def _tell(watchdog: subprocess.Popen[bytes], text: str) -> None:
    assert watchdog.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        watchdog.stdin.write(text.encode())
        watchdog.stdin.flush()


def _dismiss(watchdog: subprocess.Popen[bytes]) -> None:
    """End the watchdog without it doing anything."""
    if watchdog.poll() is None:
        watchdog.kill()
    watchdog.wait()
    if watchdog.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            watchdog.stdin.close()
