"""Runs: parallel sequences of records, cut within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stream_app.faustkit.run import run_of, split_records


@dataclass(frozen=True)
class Record:
    """As much of aiokafka's record as runs need."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 5
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


RECORDS = st.lists(st.tuples(st.none() | st.binary(max_size=4), st.none() | st.binary(max_size=12))).map(
    lambda pairs: [Record(2 * place, key, value) for place, (key, value) in enumerate(pairs)]
)


@given(RECORDS, st.integers(1, 5), st.integers(1, 20))
def test_pieces_keep_all_records_within_both_bounds(records: list[Record], max_records: int, max_bytes: int) -> None:
    pieces = [list(piece) for piece in split_records(records, max_records, max_bytes)]
    assert [record for piece in pieces for record in piece] == records
    for piece in pieces:
        assert 1 <= len(piece) <= max_records
        assert len(piece) == 1 or sum(record.num_bytes for record in piece) <= max_bytes
    for piece, following in pairwise(pieces):
        joined = [*piece, following[0]]
        assert len(joined) > max_records or sum(record.num_bytes for record in joined) > max_bytes


def test_a_run_is_aligned_and_goes_on_after_its_last_offset() -> None:
    run = run_of("t", 3, [Record(4, b"k", None, headers=(("h", b"x"),)), Record(9, None, b"v")])
    assert (run.topic, run.partition, len(run), run.next_offset) == ("t", 3, 2, 10)
    assert list(zip(run.offsets, run.keys, run.values, run.timestamps_ms, run.headers, strict=True)) == [
        (4, b"k", None, 5, (("h", b"x"),)),
        (9, None, b"v", 5, ()),
    ]
