"""`sliceflow up` on a terminal: a table of all workers and the page's address, until Ctrl-C stops all."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from stream_app.roles import ROLES
from tests.end_to_end.conftest import STOP_S, Commands
from tests.support import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

READY_WITHIN_S = 150.0


def test_the_table_shows_every_worker_and_the_page_and_ends_with_ctrl_c(commands: Commands) -> None:
    screen, terminal = pty.openpty()
    environ = {**commands.environ, "COLUMNS": "120", "LINES": "40", "TERM": "xterm", "SLICEFLOW_SERVE_PORT": "0"}
    up = subprocess.Popen(
        [sys.executable, "-m", "stream_app.cli", "up"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environ,
        start_new_session=True,
    )
    os.close(terminal)
    drawn = bytearray()
    reader = threading.Thread(target=read_all, args=(screen, drawn), daemon=True)
    reader.start()
    try:
        wait_until(lambda: b"page: http://127.0.0.1:" in drawn, READY_WITHIN_S, "the address of the page")
        wait_until(lambda: drawn.rpartition(b"worker")[2].count(b"ready") > len(ROLES), READY_WITHIN_S, "all workers")
        up.send_signal(signal.SIGINT)
        assert up.wait(STOP_S) == 0
    finally:
        up.kill()
        up.wait()
        reader.join(STOP_S)
        os.close(screen)
    last = drawn.rpartition(b"worker")[2]
    assert all(role.encode() in last for role in ROLES)
    assert last.count(b"stopped") > len(ROLES)
    assert b"Traceback" not in drawn


def read_all(screen: int, drawn: bytearray) -> None:
    """Take what is drawn until the program's side of the terminal is closed."""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # so Linux tells the end of a terminal
            return
        if not piece:
            return
        drawn += piece
