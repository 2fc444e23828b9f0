"""The encoder and the index in trouble: slower than the input, asked for unknown items, or of another model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
import pytest

from stream_app.models import served_model
from stream_app.records import (
    ItemVectorRecord,
    RankedItem,
    Recommendation,
    SliceEvent,
    SliceRecord,
    SliceVectorRecord,
    VectorsCompleteRecord,
    encode,
    pack_vector,
)
from stream_app.role_process import settings_environment
from stream_app.topics import ITEM_VECTORS, ITEMS, RECOMMENDATIONS, SLICE_VECTORS, SLICES
from tests.bench.stack import peak_memory_mib
from tests.faults.conftest import MakeRig, Scale
from tests.faults.feeds import ODD_TEXTS, START_MS, model_items
from tests.faults.launcher import Trouble
from tests.faults.rig import Rig, Sent
from tests.faults.verify import check_audit
from tests.support import DEADLINE_S, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NUM_SLICES: Final = 15_000
"""Of 4.5 KiB each: 65 MiB, far more than may wait in memory. Five times as many in the long form."""

NUM_USERS: Final = 500
"""Few, so that what the role keeps of them is little."""

HELD_MIB: Final = 120.0
"""What an encode worker may take for one partition that waits: two runs' worth of records in its lane, four runs of at
most 4 MiB on the way there, a fetch of 16 MiB, and what it takes to decode and encode the run in work."""

STEADY_MIB: Final = 10.0
"""By so much memory may still grow once the queues are full: much less than the 22 MiB worked off meanwhile."""

FOREIGN: Final = "somebody-elses-0123456789ab"


def _slice(user_id: str, items: Iterable[str], offset: int, seq: int = 0) -> Sent:
    """One slice of a user, still open."""
    events = [SliceEvent(item, "click", START_MS + 1000 * place, 1000) for place, item in enumerate(items)]
    record = SliceRecord(
        user_id=user_id, seq=seq, revision=1, closed=False, fresh=True, events=events, partition=0, offset=offset
    )
    return Sent(user_id.encode("utf-8"), encode(record))


def test_an_encoder_that_is_too_slow_holds_back_its_input_and_memory_stays_flat(
    make_rig: MakeRig, scale: Scale
) -> None:
    num_slices = NUM_SLICES * (5 if scale.is_long else 1)
    rig = make_rig(partitions=1, store_memory_mb=8)
    widest = ["i" * 250 + str(place) for place in range(16)]
    slices = [_slice(f"u{number % NUM_USERS}", widest, number, number // NUM_USERS) for number in range(num_slices)]
    rig.send(slices, SLICES)
    with rig.worker("encode", trouble=Trouble(encode_delay_s=0.3)) as worker:
        worker.wait_ready()
        at_start = peak_memory_mib(worker.pid)
        first = _wait_done(rig, num_slices // 10)
        early = peak_memory_mib(worker.pid)
        last = _wait_done(rig, first + num_slices // 3)
        late = peak_memory_mib(worker.pid)
        worker.stop()
    assert last < num_slices, "the encoder was quick after all"
    if at_start is None or early is None or late is None:
        pytest.skip("this system does not tell how much memory a process takes")
    assert early - at_start < HELD_MIB
    assert late - early < STEADY_MIB


def _wait_done(rig: Rig, num_slices: int) -> int:
    """Wait until so many slices are encoded and committed; how many are."""
    return wait_until(
        lambda: max((done for done in rig.committed("encode").values() if done >= num_slices), default=0),
        what=f"{num_slices} slices to be encoded",
    )


def _foreign_item(number: int, dim: int) -> Sent:
    """The vector of an item under another release, far from all others."""
    vector = np.full(dim, 1e6 + number, dtype=np.float32)
    record = ItemVectorRecord(item_id=f"foreign-{number}", release=FOREIGN, vector=pack_vector(vector))
    return Sent(record.item_id.encode(), encode(record))


def _foreign_vector(user_id: str, dim: int) -> Sent:
    """A slice vector of another release that asks for a list."""
    vector = pack_vector(np.ones(dim, dtype=np.float32))
    record = SliceVectorRecord(
        user_id=user_id,
        seq=0,
        revision=1,
        closed=False,
        fresh=True,
        items=["foreign-1"],
        last_ts=START_MS,
        partition=0,
        offset=0,
        release=FOREIGN,
        slice_vector=vector,
        user_vector=vector,
        num_slices_merged=1,
    )
    return Sent(user_id.encode(), encode(record))


def test_vectors_of_another_release_never_meet_ours_and_unknown_items_get_lists(rig: Rig) -> None:
    model = served_model(rig.settings)
    marker = VectorsCompleteRecord(release=FOREIGN, num_items=9)
    complete = Sent(b"\xff" + FOREIGN.encode(), encode(marker))
    rig.send([*(_foreign_item(number, model.dim) for number in range(9)), complete], ITEM_VECTORS, partition=0)
    rig.send([complete], ITEM_VECTORS, partition=1)
    known, odd = model_items()[:5], list(ODD_TEXTS[:9])
    asked = {"u-known": known, "u-unknown": ["never-seen-1", "never-seen-2"], ODD_TEXTS[6]: odd}
    rig.send([_foreign_vector("u-foreign", model.dim)], SLICE_VECTORS)
    rig.send([_slice(user, items, number) for number, (user, items) in enumerate(asked.items())], SLICES)
    with rig.worker("recommend") as recommend, rig.worker("encode") as encoder:
        rig.wait_caught_up(encoder, recommend)
        encoder.stop()
        recommend.stop()
    lists = [msgspec.json.decode(record.value or b"", type=Recommendation) for record in rig.read(RECOMMENDATIONS)]
    assert {made.user_id for made in lists} == set(asked)
    for made in lists:
        assert made.release == model.release and made.has_vector and len(made.items) == rig.settings.list_items
        listed = {item.item_id for item in made.items}
        assert listed <= set(model_items()) and not listed & set(asked[made.user_id])
    check_audit(rig, ["encode", "recommend"])


@pytest.mark.parametrize("arguments", [("recommend", ODD_TEXTS[6]), ("tail", "--from-start", "--limit", "1")])
def test_odd_texts_do_not_steer_a_terminal(rig: Rig, arguments: tuple[str, ...]) -> None:
    made = Recommendation(
        recommendation_id="r",
        user_id=ODD_TEXTS[6],
        event_ts=START_MS,
        partition=0,
        offset=0,
        release="r\x1b[2J",
        index_version="i\x07",
        epoch=1,
        has_vector=True,
        items=[
            msgspec.convert({"item_id": text, "score": 1.0, "sources": ["index"]}, RankedItem) for text in ODD_TEXTS
        ],
    )
    rig.send([Sent(made.user_id.encode("utf-8"), encode(made))], RECOMMENDATIONS)
    titles = [Sent(text.encode(), msgspec.json.encode({"item_id": text, "title": text})) for text in ODD_TEXTS]
    rig.send(titles, ITEMS)
    ran = subprocess.run(
        [sys.executable, "-m", "stream_app.cli", *arguments],
        env=settings_environment(rig.settings, os.environ),
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE_S,
    )
    assert ran.returncode == 0, ran.stderr
    assert "用户七" in ran.stdout
    shown = set(ran.stdout) - {"\n"}
    assert not [char for char in shown if not char.isprintable()]
