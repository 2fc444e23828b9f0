"""The page's files, as they lie in the package."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from aiohttp import web

from stream_app.web.calls import Call
from stream_app.web.problems import Problem

FOLDER: Final = Path(__file__).parent / "page"
INDEX: Final = "index.html"

TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Of what the page is made; the machine's own table may say something else."""


async def index(call: Call) -> web.Response:
    """The page."""
    return _file(call, INDEX)


async def file(call: Call) -> web.Response:
    """One of its files."""
    return _file(call, call.request.match_info["file"])


def _file(call: Call, name: str) -> web.Response:
    path = FOLDER / name
    # A plain name: nothing leads out of the folder.
    if name != path.name or name.startswith(".") or path.suffix not in TYPES or not path.is_file():
        raise Problem(404, f"The page has no file {name!r}.")
    data = path.read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if call.request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, content_type=TYPES[path.suffix], charset="utf-8", headers=headers)
