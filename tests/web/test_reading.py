"""A server that has not read the topics yet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from stream_app.web.security import Guard
from stream_app.web.server import build_application
from stream_app.web.service import Service
from tests.web.cases import web_settings


@pytest.mark.parametrize("path", ["/readyz", "/users/anybody/stream"])
def test_old_lists_are_not_told_as_they_are_read(tmp_path: Path, path: str) -> None:
    async def story() -> None:
        service = Service(web_settings("127.0.0.1:1", "reading-", tmp_path))
        async with TestClient(TestServer(build_application(service, Guard("127.0.0.1", "", 100.0)))) as client:
            answer = await client.get(path)
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "1"
            assert (await answer.json(content_type=None))["detail"] == "The topics are still being read."
            assert (await client.get("/healthz")).status == 200

    asyncio.run(story())
