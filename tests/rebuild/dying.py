"""The command line, dying at a point of a rebuild as if it were killed: ``dying.py POINT rebuild ROLE``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from stream_app import rebuilding, swapping
from stream_app.cli import main
from stream_app.faustkit.outbox import Outbox

EXIT_CODE: Final = 37
"""By which the test knows that it died here."""

RECORDS_AT_ONCE: Final = 3
"""So few that a small state takes many requests."""


def die_after(owner: Any, name: str, num_calls: int) -> Callable[[], None]:
    """Let the process end as soon as the `num_calls`-th call of a coroutine function has returned."""

    def patch() -> None:
        original = getattr(owner, name)
        left = [num_calls]

        async def dying(*args: Any, **options: Any) -> Any:
            result = await original(*args, **options)
            left[0] -= 1
            if not left[0]:
                os._exit(EXIT_CODE)
            return result

        setattr(owner, name, dying)

    return patch


POINTS: Final = {
    "built": die_after(rebuilding, "fold_changelog", 1),
    "marked": die_after(swapping, "commit", 1),
    "writing": die_after(Outbox, "publish", 3),
    "verified": die_after(swapping, "_verify", 1),
    "done": die_after(swapping, "commit", 2),
}
"""In the order in which they come."""


if __name__ == "__main__":
    swapping.RECORDS_AT_ONCE = RECORDS_AT_ONCE  # type: ignore[misc]
    POINTS[sys.argv[1]]()
    main(sys.argv[2:])
