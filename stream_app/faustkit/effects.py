"""What the processing of a run causes: records to publish and values to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from stream_app.faustkit.run import Headers
from stream_app.faustkit.store import Stored


class OutRecord(msgspec.Struct, frozen=True, gc=False):
    """One record to publish to `topic`, `partition`."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass
class Effects:
    """The outputs of a run in the order they are to be published, and the changed values of its table.

    `changes` maps a key to its new value, with its source position: the offset of the newest input record that
    the value reflects.

    `removed` are keys whose values are to be there no more; none of them is among `changes`, behind all of which they
    go to the changelog. A processor must know by another value that an input was done whose value is gone.

    `num_taken` tells that the processor has taken so many records of the run only, which may be all or none: they are
    kept before anything else is done, and then the others come as a run of their own. None: it has taken all, and they
    may be kept with others.

    `facts` are records of which only the newest of each key matters (totals, progress); they are published
    together with the changes, so they never tell of anything that is not kept.

    `on_published` is called when the outputs are acknowledged; it must not wait, and nothing may hang on it.
    """

    outputs: list[OutRecord] = field(default_factory=list)
    changes: dict[bytes, Stored] = field(default_factory=dict)
    removed: list[bytes] = field(default_factory=list)
    num_taken: int | None = None
    facts: list[OutRecord] = field(default_factory=list)
    on_published: Callable[[], None] | None = None
