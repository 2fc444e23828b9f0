"""A small log, a model trained on it once, and commands run as the processes that people start."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from encoders.training_config import TrainConfig
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, ITEMS_FILE, MODEL_FOLDER
from stream_app.event_log import read_events
from stream_app.settings import load_settings
from stream_app.training import train
from tests.support import wait_until

SAMPLE = Path(__file__).parents[2] / "examples" / "movietweetings"
NUM_EVENTS = 3000
STOP_S = 60.0


@pytest.fixture(scope="session")
def small_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the demo's: the first events of the sample, its catalogue, and a model of one epoch."""
    folder = tmp_path_factory.mktemp("example")
    with gzip.open(SAMPLE / EVENTS_FILE) as full, gzip.open(folder / EVENTS_FILE, "wb") as cut:
        cut.writelines(islice(full, NUM_EVENTS))
    for name in (ITEMS_FILE, CONFIG_FILE):
        shutil.copy(SAMPLE / name, folder / name)
    settings = load_settings(folder / CONFIG_FILE, environ={})
    events = read_events(folder / EVENTS_FILE, settings).events
    train(events, settings, folder / MODEL_FOLDER, config=TrainConfig(dim=16, num_layers=1, max_epochs=1))
    return folder


class Commands:
    """Starts `sliceflow` as processes of their own, which see nothing of this machine's settings.

    Args:
        home: Their state folder; its path in their environment is how they are found again.
        environ: Further variables.
    """

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self.home = home
        hidden = ("SLICEFLOW_", "KAFKA_", "DEMO_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self.environ = {**kept, "SLICEFLOW_HOME": str(home), **environ}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a command; its standard output is a pipe."""
        process = subprocess.Popen(
            [sys.executable, "-m", "stream_app.cli", *args],
            stdout=subprocess.PIPE,
            env=self.environ,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [sys.executable, "-m", "stream_app.cli", *args]
        return subprocess.run(command, capture_output=True, env=self.environ, text=True, timeout=600)

    def stop(self, process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        process.send_signal(number)
        return process.wait(STOP_S)

    def close(self) -> None:
        """End what still runs."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def processes(self) -> list[int]:
        """Every running process whose environment or command names the state folder (Linux only)."""
        mark = str(self.home).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if mark in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended, or is not ours
        return found

    def wait_all_gone(self) -> None:
        """Wait until no process of these commands runs."""
        if Path("/proc/self/environ").exists():
            wait_until(lambda: not self.processes(), what=f"the end of {self.processes()}")


@pytest.fixture
def commands(tmp_path: Path, small_example: Path) -> Iterator[Commands]:
    """The command line with the small model, on a state folder of this test."""
    made = Commands(
        tmp_path / "state",
        {
            "SLICEFLOW_MODEL": str(small_example / MODEL_FOLDER),
            "SLICEFLOW_CONFIG": str(small_example / CONFIG_FILE),
            "SLICEFLOW_PARTITIONS": "2",
        },
    )
    try:
        yield made
    finally:
        made.close()


def last_json(text: str) -> Any:
    """The last line of an output, which must be JSON."""
    return json.loads(text.rstrip("\n").rpartition("\n")[2])
