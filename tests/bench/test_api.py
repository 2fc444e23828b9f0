"""The measurement of the API: its figures, and a small run of the real thing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.demo import CONFIG_FILE, MODEL_FOLDER
from stream_app.preflight import ensure_topics
from stream_app.settings import Settings, load_settings
from tests.bench.api import Options, list_records, measure, result_of
from tests.bench.api_clients import (
    LIST_ITEMS,
    Answers,
    Connection,
    as_fast_as_it_goes,
    at_a_rate,
    is_right,
    said_by_wrk,
)
from tests.bench.common import EXAMPLE

OPTIONS = Options(num_users=20, num_connections=2, seconds=0.3, rate=50.0, lists_per_s=20)


def test_figures_of_what_was_seen() -> None:
    fast = Answers([0.001] * 3000, 0, 1.5)
    paced = Answers([0.002] * 99 + [0.5], 0, 1.0)
    figures = result_of(OPTIONS, fast, 0.6, paced, Answers([0.003], 1, 1.0), 100.0).figures
    assert figures["requests_per_s"].value == 2000.0 and figures["requests_per_s"].reached
    assert figures["server_cpu_us_per_request"].value == pytest.approx(200.0)
    assert figures["p99_ms_at_full_speed"].value == pytest.approx(1.0)
    assert figures["p50_ms_at_rate"].value == pytest.approx(2.0)
    assert figures["p99_ms_at_rate"].value < 10 and figures["p99_ms_at_rate_with_new_lists"].value == pytest.approx(3.0)
    assert figures["wrong_answers"].reached is False
    assert figures["server_peak_memory_mib"].value == 100.0


def test_an_answer_must_be_the_users_own_whole_list() -> None:
    whole = b'{"user_id":"u-1","items":[%s]}' % b",".join([b"{}"] * LIST_ITEMS)
    assert is_right(whole, "u-1")
    assert not is_right(whole, "u-2")
    assert not is_right(b'{"user_id":"u-1","items":[{}]}', "u-1")
    assert not is_right(b"", "u-1")


class Stub(Connection):
    """Answers at once, whatever is asked."""

    def __init__(self) -> None:
        super().__init__("", 0)
        self.paths: list[str] = []

    async def get(self, path: str) -> bytes:
        """A whole list of the user that is asked for."""
        self.paths.append(path)
        await asyncio.sleep(0)
        user_id = path.split("/")[2].partition("?")[0].encode()
        return b'{"user_id":"%s","items":[%s]}' % (user_id, b",".join([b"{}"] * LIST_ITEMS))


def test_at_a_rate_each_request_is_sent_once() -> None:
    stubs = [Stub(), Stub()]
    found = asyncio.run(at_a_rate(stubs, ["a", "b"], 0.2, 100.0))
    assert sum(len(stub.paths) for stub in stubs) == len(found.times_s) == 20
    assert found.num_wrong == 0 and min(found.times_s) >= 0


def test_as_fast_as_it_goes_every_connection_is_kept_busy() -> None:
    stubs = [Stub(), Stub()]
    found = asyncio.run(as_fast_as_it_goes(stubs, ["a"], 0.05))
    assert all(stub.paths for stub in stubs)
    assert sum(len(stub.paths) for stub in stubs) == len(found.times_s)


def test_an_answer_that_comes_in_parts_is_put_together() -> None:
    async def story() -> None:
        is_over = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for head in (b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found"):
                asked = await reader.readuntil(b"\r\n\r\n")
                assert asked.startswith(b"GET /some?path HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                for part in (head + b"\r\nContent-Le", b"ngth: 5\r\nX: y\r\n", b"\r\nab", b"cde"):
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
            await reader.read(1)
            writer.close()
            await writer.wait_closed()
            is_over.set()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            connection = Connection("127.0.0.1", server.sockets[0].getsockname()[1])
            await connection.open()
            assert await connection.get("/some?path") == b"abcde"
            assert await connection.get("/some?path") == b""
            connection.close()
            await is_over.wait()

    asyncio.run(story())


def test_what_wrk_says_is_read() -> None:
    told = """Running 1m test @ http://127.0.0.1:8360
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.05ms    1.10ms  30.32ms   99.00%
  Latency Distribution
     50%    1.93ms
     99%    4.21ms
  60031 requests in 1.10m, 212.92MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:   6000.05
"""
    found = said_by_wrk(told)
    assert (found.num_answers, found.num_wrong) == (60031, 10)
    assert found.p99_ms == pytest.approx(4.21)
    assert found.length_s == pytest.approx(66.0)
    good = said_by_wrk("  12 requests in 100.00ms, 1.00MB read\n")
    assert (good.num_answers, good.num_wrong) == (12, 0)
    assert good.length_s == pytest.approx(0.1)
    with pytest.raises(RuntimeError, match="expected how many"):
        said_by_wrk("unable to connect")


def test_lists_are_whole_and_go_where_the_roles_would_send_them() -> None:
    records = list_records(Settings(), ["a", "b"], [str(number) for number in range(50)], 0)
    assert [record[2] for record in records] == [b"a", b"b"]
    assert all(record[3].count(b'"item_id"') == LIST_ITEMS for record in records)
    assert records != list_records(Settings(), ["a", "b"], [str(number) for number in range(50)], 1)


@pytest.mark.kafka
@pytest.mark.slow
def test_a_small_measurement(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    overrides = {
        "kafka": {"bootstrap_servers": broker.bootstrap_servers},
        "prefix": topic_prefix,
        "model": str(EXAMPLE / MODEL_FOLDER),
        "state_dir": str(tmp_path),
        "serve_port": 0,
        "serve_requests_per_s": 1_000_000,
    }
    settings = load_settings(EXAMPLE / CONFIG_FILE, environ={}, overrides=overrides)
    ensure_topics(settings, create=True)
    result = asyncio.run(measure(settings, OPTIONS, tmp_path))
    assert result.is_sound
    assert result.figures["requests_per_s"].value > 0
