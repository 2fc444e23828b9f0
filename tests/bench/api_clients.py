"""Who asks the API in its measurement: kept connections of this process, and wrk where it is installed.

What asks runs beside what answers, so it has to be cheap: wrk takes some microseconds a request. It cannot tell a right
answer from a wrong one of the same status, nor ask at a set rate; so the connections of this process do that.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import time
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import msgspec
import numpy as np

LIST_ITEMS: Final = 20

UNITS_S: Final = {"us": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0}
"""As wrk writes times."""

SCRIPT: Final = """
math.randomseed(1)
request = function()
  return wrk.format("GET", string.format("/recommendations/user-%d?count={count}", math.random(0, {last_user})))
end
"""
"""What wrk asks for: users drawn at random."""


@dataclass
class Answers:
    """What one phase saw: seconds of each good answer, how many were wrong, and its length.

    wrk keeps the times of its `num_untimed` answers to itself, and tells the 99th percentile alone.
    """

    times_s: list[float] = field(default_factory=list)
    num_wrong: int = 0
    length_s: float = 0.0
    num_untimed: int = 0
    untimed_p99_ms: float = float("nan")

    @property
    def num_answers(self) -> int:
        """All of them."""
        return len(self.times_s) + self.num_untimed

    def percentile_ms(self, percent: float) -> float:
        """Of the times, in milliseconds."""
        return float(np.percentile(self.times_s, percent)) * 1000 if self.times_s else float("nan")

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the times, in milliseconds, whoever took them."""
        return self.untimed_p99_ms if self.num_untimed else self.percentile_ms(99)


class Connection(asyncio.Protocol):
    """One kept connection to the server, for one request at a time.

    Args:
        host: Of the server.
        port: Of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._tail = f" HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._came = b""
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[bytes]

    async def open(self) -> None:
        """Connect."""
        await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)

    async def get(self, path: str) -> bytes:
        """The body of a good answer; empty for any other.

        Raises:
            ConnectionError: The server has gone.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(b"GET " + path.encode() + self._tail)
        return await self._answer

    def close(self) -> None:
        """Disconnect."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Give the answer once all of it is there."""
        self._came += data
        head, _, body = self._came.partition(b"\r\n\r\n")
        _, _, rest = head.lower().partition(b"content-length: ")
        if rest and len(body) == int(rest.partition(b"\r\n")[0]):
            self._came = b""
            self._answer.set_result(body if head.startswith(b"HTTP/1.1 200 ") else b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits, waits in vain."""
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("The server closed the connection."))


class _Items(msgspec.Struct):
    items: list[msgspec.Raw]


_ITEMS = msgspec.json.Decoder(_Items)


def is_right(body: bytes, user_id: str) -> bool:
    """Whether an answer is a whole list of the user."""
    if not body.startswith(b'{"user_id":"%s",' % user_id.encode()):
        return False
    return len(_ITEMS.decode(body).items) == LIST_ITEMS


async def as_fast_as_it_goes(connections: Sequence[Connection], users: Sequence[str], length_s: float) -> Answers:
    """Each connection asks again as soon as it has its answer."""
    found, begun_s = Answers(), time.perf_counter()

    async def ask(connection: Connection, draw: random.Random) -> None:
        while (sent_s := time.perf_counter()) < begun_s + length_s:
            user_id = draw.choice(users)
            body = await connection.get(path_of(user_id))
            found.times_s.append(time.perf_counter() - sent_s)
            found.num_wrong += not is_right(body, user_id)

    await asyncio.gather(*(ask(one, random.Random(number)) for number, one in enumerate(connections)))
    found.length_s = time.perf_counter() - begun_s
    return found


async def at_a_rate(connections: Sequence[Connection], users: Sequence[str], length_s: float, rate: float) -> Answers:
    """Requests are due evenly; each is taken by the next free connection, and timed from when it was due."""
    found, free = Answers(), asyncio.Queue[Connection]()
    for connection in connections:
        free.put_nowait(connection)
    draw, begun_s = random.Random(0), time.perf_counter()

    async def ask(connection: Connection, user_id: str, due_s: float) -> None:
        body = await connection.get(path_of(user_id))
        found.times_s.append(time.perf_counter() - due_s)
        found.num_wrong += not is_right(body, user_id)
        free.put_nowait(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(round(length_s * rate)):
            due_s = begun_s + number / rate
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            group.create_task(ask(await free.get(), draw.choice(users), due_s))
    found.length_s = time.perf_counter() - begun_s
    return found


async def by_wrk(address: str, num_users: int, num_connections: int, length_s: float, folder: Path) -> Answers | None:
    """As fast as it goes, asked by wrk for `user-0`, `user-1`, …; None where there is no wrk.

    Raises:
        RuntimeError: It failed, or says something unknown.
    """
    if shutil.which("wrk") is None:
        return None
    script = folder / "users.lua"
    script.write_text(SCRIPT.format(count=LIST_ITEMS, last_user=num_users - 1))
    options = [
        "--latency",
        "-t",
        "1",
        "-c",
        str(num_connections),
        "-d",
        f"{max(1, round(length_s))}s",
        "-s",
        str(script),
    ]
    process = await create_subprocess_exec("wrk", *options, address, stdout=PIPE)
    told, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"wrk ended with exit code {process.returncode}.")
    return said_by_wrk(told.decode())


def said_by_wrk(text: str) -> Answers:
    """The figures in what wrk prints.

    Raises:
        RuntimeError: There are none in it.
    """
    done = re.search(r"(\d+) requests in ([\d.]+)(m?s|m),", text)
    if done is None:
        raise RuntimeError(f"wrk said {text!r}; expected how many requests it made.")
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", text)
    wrong = sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    wrong += sum(int(count) for count in broken.groups()) if broken else 0
    return Answers(
        num_wrong=wrong,
        length_s=float(done[2]) * UNITS_S[done[3]],
        num_untimed=int(done[1]),
        untimed_p99_ms=float(p99[1]) * UNITS_S[p99[2]] * 1000 if p99 else float("nan"),
    )


def path_of(user_id: str) -> str:
    """What is asked for."""
    return f"/recommendations/{user_id}?count={LIST_ITEMS}"
