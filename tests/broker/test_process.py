"""The process and its watchdog, with a shell in Kafka's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream_app.broker.process import KafkaProcess
from tests.support import DEADLINE_S

OBEDIENT = ["sleep", "600"]
STUBBORN = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s, "the condition did not come to hold"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and waits for its parent does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "keep").open("w") as file:
        yield file.fileno()


def launch(command: list[str], folder: Path, keep: int) -> KafkaProcess:
    return KafkaProcess.launch(command, folder=folder, output=folder / "output", inherit=keep)


def test_an_obedient_process_stops_by_itself(tmp_path: Path, keep: int) -> None:
    process = launch(OBEDIENT, tmp_path, keep)
    assert process.poll() is None
    assert process.stop(DEADLINE_S) is True
    assert process.poll() == -signal.SIGTERM


def test_a_deaf_process_is_killed_after_the_bound(tmp_path: Path, keep: int) -> None:
    process = launch(STUBBORN, tmp_path, keep)
    wait_until(lambda: "deaf" in (tmp_path / "output").read_text())
    assert process.stop(0.05) is False
    assert process.poll() == -signal.SIGKILL


def test_killing_twice_is_fine(tmp_path: Path, keep: int) -> None:
    process = launch(OBEDIENT, tmp_path, keep)
    process.kill()
    process.kill()
    assert not is_alive(process.pid)


def test_the_end_of_the_process_is_seen(tmp_path: Path, keep: int) -> None:
    process = launch(["sh", "-c", "echo said; exit 3"], tmp_path, keep)
    assert process.wait(DEADLINE_S) == 3
    assert (tmp_path / "output").read_text() == "said\n"
    process.kill()


def test_a_command_that_does_not_exist_leaves_nothing(tmp_path: Path, keep: int) -> None:
    with pytest.raises(FileNotFoundError):
        launch([str(tmp_path / "missing")], tmp_path, keep)


def test_a_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path, keep: int) -> None:
    process = launch(OBEDIENT, tmp_path, keep)
    try:
        assert os.getpgid(process.pid) != os.getpgrp()
    finally:
        process.kill()


STARTER = """
import sys, time
from pathlib import Path
from stream_app.broker.process import KafkaProcess

folder = Path(sys.argv[1])
keep = (folder.parent / "keep").open("w")
remove = folder if sys.argv[2] == "remove" else None
process = KafkaProcess.launch(
    sys.argv[3:], folder=folder, output=folder.parent / "output", inherit=keep.fileno(), remove=remove
)
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize("command", [OBEDIENT, STUBBORN], ids=["obedient", "deaf"])
def test_killing_the_starter_leaves_no_orphan(tmp_path: Path, remove: bool, command: list[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    choice = "remove" if remove else "keep"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(folder), choice, *command], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    with starter.stdout:
        pid = int(starter.stdout.readline())
        assert is_alive(pid)
        starter.kill()
        starter.wait()
    wait_until(lambda: not is_alive(pid))
    if remove:
        wait_until(lambda: not folder.exists())
    else:
        assert folder.exists()
