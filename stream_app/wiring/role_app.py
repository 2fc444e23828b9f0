"""What every role's wiring gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stream_app.faustkit import BatchApp

Report = Callable[[str], None]


@dataclass(frozen=True)
class RoleApp:
    """A role, ready to run: its app, and what to await before it starts."""

    app: BatchApp
    before: Callable[[], Awaitable[None]] | None = None
