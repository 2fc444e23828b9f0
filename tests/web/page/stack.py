"""Everything behind the page, running: roles with the example's model, events, and a server that can be restarted."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from stream_app.demo import CONFIG_FILE, EVENTS_FILE, ITEMS_FILE, MODEL_FOLDER, example_places
from tests.end_to_end.conftest import Commands
from tests.support import wait_until

EXAMPLE: Final = next(folder for folder in example_places() if folder.is_dir())

HOSTILE_USER: Final = "<img src=x onerror=window.taken=1></img>"
HOSTILE_ITEM: Final = "hostile"
HOSTILE_TITLE: Final = '<img src=x onerror="window.taken=1"><script>window.taken=1</script>'

REPLAY_S: Final = 280.0
"""Longest time that the replay may take: a busy machine needs minutes."""


@dataclass
class Server:
    """A `sliceflow serve` that can be stopped and started again at the same address."""

    commands: Commands
    address: str = ""
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it has read all there is."""
        self._process = self.commands.start("serve")
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        assert told, "the server ended before it was ready"
        self.address = json.loads(told)["address"].rstrip("/")
        wait_until(self.is_ready, what="the server to have read the topics")

    def stop(self) -> None:
        """Stop it."""
        assert self._process is not None
        assert self.commands.stop(self._process) == 0

    def is_ready(self) -> bool:
        """Whether it has read all there was at its start."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=30):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            assert error.code == 503
            return False

    def get(self, path: str) -> Any:
        """What it answers."""
        with urllib.request.urlopen(f"{self.address}{path}", timeout=30) as answer:
            return json.load(answer)

    def send(self, events: list[dict[str, Any]]) -> None:
        """Send events over HTTP."""
        request = urllib.request.Request(
            f"{self.address}/events", json.dumps(events).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 202


@dataclass(frozen=True)
class Stack:
    """What tests of the page need: the server, and the user who was active last."""

    server: Server
    user: str

    def another_server(self, home: Path, environ: Mapping[str, str]) -> Commands:
        """Commands for a further server of the same topics."""
        return Commands(home, {**self.server.commands.environ, "SLICEFLOW_SERVE_PORT": "0", **environ})


@contextmanager
def running_stack(folder: Path, bootstrap_servers: str, num_events: int, prefix: str = "page-") -> Iterator[Stack]:
    """Roles and a server over the first `num_events` events of the example, for the block."""
    environ = stack_environment(bootstrap_servers, prefix)
    roles = Commands(folder / "roles", environ)
    server = Server(Commands(folder / "server", {**environ, "SLICEFLOW_SERVE_PORT": str(_free_port())}))
    try:
        _start_roles(roles)
        _replay(roles, folder, num_events)
        server.start()
        newest = server.get("/users?count=1")["users"][0]
        yield Stack(server, newest["user_id"])
    finally:
        server.commands.close()
        roles.close()


def stack_environment(bootstrap_servers: str, prefix: str) -> dict[str, str]:
    """Variables of all commands of a stack: the example's model and settings, on a namespace of its own."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "SLICEFLOW_PREFIX": prefix,
        "SLICEFLOW_MODEL": str(EXAMPLE / MODEL_FOLDER),
        "SLICEFLOW_CONFIG": str(EXAMPLE / CONFIG_FILE),
        "SLICEFLOW_PARTITIONS": "2",
        "SLICEFLOW_SCORE_USERS_SHARE": "0.1",
        "SLICEFLOW_SERVE_PORT": "0",
    }


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
    return port


def _start_roles(roles: Commands) -> None:
    up = roles.start("up", "--json")
    assert up.stdout is not None
    assert any(json.loads(line)["event"] == "all-ready" for line in up.stdout), "`up` ended before all roles were ready"


def _replay(roles: Commands, folder: Path, num_events: int) -> None:
    events, items = folder / "events.ndjson", folder / "items.ndjson"
    with gzip.open(EXAMPLE / EVENTS_FILE, "rt") as log:
        events.write_text("".join(islice(log, num_events)))
    hostile = json.dumps({"item_id": HOSTILE_ITEM, "title": HOSTILE_TITLE, "category": "<b>bold</b>"})
    with gzip.open(EXAMPLE / ITEMS_FILE, "rt") as catalogue:
        items.write_text(f"{catalogue.read()}{hostile}\n")
    replay = roles.start("replay", str(events), "--items", str(items))
    output, _ = replay.communicate(timeout=REPLAY_S)
    assert replay.returncode == 0, output


def send_hostile(server: Server) -> None:
    """Let the hostile user touch some items, the hostile one last, and wait for the list."""
    newest = server.get("/users?count=1")["users"][0]
    taken = [item["item_id"] for item in server.get("/items?order=popular&count=3")["items"]]
    server.send(
        [
            {"user_id": HOSTILE_USER, "item_id": item, "type": "click", "ts": newest["last_seen_ts"] + place}
            for place, item in enumerate([*taken, HOSTILE_ITEM])
        ]
    )
    path = f"/recommendations/{urllib.parse.quote(HOSTILE_USER, safe='')}"
    wait_until(lambda: "fallback" not in server.get(path), what="the list of the hostile user")
