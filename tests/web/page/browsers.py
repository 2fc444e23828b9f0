"""The browser that tests and pictures use."""

from __future__ import annotations

import shutil
from typing import Final

WAIT_MS: Final = 60_000
"""How long the browser waits for what a busy machine may be slow to show."""


def chromium() -> str | None:
    """The path of a Chromium on this machine."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
