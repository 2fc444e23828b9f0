"""The table that `sliceflow up` keeps on a terminal: each worker's state, rate and lag, and where the page is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream_app.cli._context import printable
from stream_app.errors import SliceflowError
from stream_app.role_rates import RoleRate, RoleRates

if TYPE_CHECKING:
    from stream_app.role_process import Worker
    from stream_app.settings import Settings
    from stream_app.supervisor import RoleEvent

LOOK_S: Final = 2.0
"""Between two looks at Kafka: eight small requests each."""

KEPT_LINES: Final = 5
"""Lines below the table: the newest deaths and restarts."""

STYLES: Final = {"ready": "green", "died": "red", "restarting": "yellow"}


@dataclass
class WorkerRow:
    """What is known of one worker."""

    state: str = "starting"
    pid: int | None = None
    num_restarts: int = 0


class LiveTable:
    """Takes what the supervisor tells, and redraws itself; a context manager, for a terminal only.

    Args:
        workers: What runs.
        address_of: Gives the address of the page, empty while it is not served.
        console: Where to draw; None: standard output.
    """

    def __init__(
        self, workers: Sequence[Worker], *, address_of: Callable[[], str], console: Console | None = None
    ) -> None:
        self._rows = {worker: WorkerRow() for worker in workers}
        self._rates: Mapping[str, RoleRate] = {}
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._address_of = address_of
        self._live = Live(console=console, get_renderable=self.renderable, refresh_per_second=2)

    def __enter__(self) -> LiveTable:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last table on the screen."""
        self._live.stop()

    def take(self, event: RoleEvent) -> None:
        """Show what happened."""
        if event.worker is None:
            return
        row = self._rows[event.worker]
        if event.event == "started":
            row.num_restarts += row.pid is not None
            row.pid = event.pid
        row.state = "starting" if event.event == "started" else event.event
        if event.reason:
            self._lines.append(printable(f"{event.worker.label} {event.event}: {event.reason}"))

    async def follow(self, settings: Settings) -> None:
        """Look at rates and lags until cancelled; a broker that does not answer only leaves them as they were."""
        while True:
            with suppress(SliceflowError, KafkaError, OSError):
                async with AsyncExitStack() as stack:
                    rates = await stack.enter_async_context(RoleRates(settings))
                    while True:
                        self._rates = await rates.look()
                        await asyncio.sleep(LOOK_S)
            await asyncio.sleep(LOOK_S)

    def renderable(self) -> Group:
        """The table as it is now."""
        table = Table(box=None)
        for name in ("worker", "state", "process"):
            table.add_column(name)
        for name in ("restarts", "records/s", "behind"):
            table.add_column(name, justify="right")
        for worker, row in self._rows.items():
            state = Text(row.state, style=STYLES.get(row.state, ""))
            table.add_row(worker.label, state, str(row.pid or "-"), str(row.num_restarts), *self._rate_cells(worker))
        shown: list[Table | Text] = [table, *map(Text, self._lines)]
        if address := self._address_of():
            shown.append(Text(f"page: {address}"))
        shown.append(Text("Ctrl-C stops all.", style="dim"))
        return Group(*shown)

    def _rate_cells(self, worker: Worker) -> tuple[str, str]:
        """Rate and lag of the whole role, in the row of its first worker."""
        rate = self._rates.get(worker.role)
        if rate is None or worker.instance:
            return "", ""
        return f"{rate.records_per_s:,.0f}", f"{rate.lag:,}"
