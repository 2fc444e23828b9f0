"""The event logs that measurements run on. They lie beside the project, not in it; where they do not, nothing runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from stream_app.settings import Settings, parse_settings
from tests.bench.common import ROOT

DATA: Final = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Dataset:
    """A log: its folder, its event types with their weights, and after how many events it is cut (None: not)."""

    folder: str
    event_types: Mapping[str, float]
    limit: int | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return DATA / self.folder / "events.parquet"

    def settings(self, state_folder: Path) -> Settings:
        """The default settings with the log's event types; nothing of this machine's own."""
        values: dict[str, Any] = {
            "event_types": dict(self.event_types),
            "state_dir": str(state_folder),
            "model": str(state_folder / "model"),
        }
        return parse_settings(values)


DATASETS: Final[Mapping[str, Dataset]] = MappingProxyType(
    {
        "deskdrop": Dataset(
            "deskdrop", {"VIEW": 1.0, "LIKE": 2.0, "BOOKMARK": 2.0, "COMMENT CREATED": 3.0, "FOLLOW": 2.0}
        ),
        "globo": Dataset("globo_news", {"click": 1.0}, limit=300_000),
        "movietweetings": Dataset("movietweetings", {"rating": 1.0}),
        "yoochoose": Dataset("yoochoose_100k", {"click": 1.0}),
    }
)


class DataMissing(Exception):
    """The log of a measurement is not on this machine."""


@contextmanager
def skipped_without_data(bench: str) -> Iterator[None]:
    """Within the block, a log that is not there ends the block with a line that says so."""
    try:
        yield
    except DataMissing as missing:
        print(f"{bench}: skipped, {missing}", flush=True)


def require(dataset: Dataset) -> Path:
    """The path of the log. Raises DataMissing where it is not there."""
    if not dataset.path.is_file():
        raise DataMissing(f"there is no {dataset.path.relative_to(ROOT.parent)} beside this project's folder")
    return dataset.path
