"""Nothing at or after the split reaches training, whatever it is; judging chooses an epoch, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from encoders.histories import initial_half_lives_ms, next_targets
from encoders.sampling import SliceReader
from encoders.train import train_model
from encoders.trained import TrainedModel, TrainProgress
from encoders.training_config import Optimisation, TrainConfig
from encoders.training_state import TENSORS_FILE, under
from encoders.vocabulary import default_gap_edges_ms
from stream_app.offline import history_slices
from stream_app.records import Event
from stream_app.settings import parse_settings
from stream_app.training import train_encoder, training_histories, vocabulary_before
from tests.examples import examples

SETTINGS = parse_settings({"slice_events": 6, "event_types": {"click": 1.0, "purchase": 3.0}})
START_MS = 1_700_000_000_000
CONFIG = TrainConfig(
    dim=8,
    num_layers=1,
    slice_events=6,
    max_epochs=1,
    patience_epochs=0,
    batch_events=256,
    random_phase=True,
    optimisation=Optimisation(average_share=0.1),
)


def made_log(num_events: int, num_users: int = 12, num_items: int = 40) -> list[Event]:
    """Users who walk round the items with jumps; most pauses are of minutes, some of hours."""
    generator = np.random.default_rng(4)
    places = generator.integers(0, num_items, num_users)
    events, ts = [], START_MS
    for _ in range(num_events):
        user = int(generator.integers(num_users))
        places[user] = (places[user] + generator.integers(1, 3)) % num_items
        ts += int(10 ** generator.uniform(3, 5.5)) + 7_200_000 * int(generator.random() < 0.02)
        kind = "purchase" if generator.random() < 0.1 else "click"
        events.append(Event(user_id=f"u{user}", item_id=f"i{places[user]}", type=kind, ts=ts))
    return events


LOG = made_log(700)
PAST, FUTURE = LOG[:600], LOG[600:]
SPLIT_MS = FUTURE[0].ts

later_events = st.lists(
    st.tuples(
        st.integers(0, 20).map(lambda number: f"u{number}"),
        st.integers(0, 60).map(lambda number: f"i{number}"),
        st.sampled_from(["click", "purchase"]),
        st.integers(0, 90_000_000),
    ),
    max_size=60,
)


def future_of(drawn: Sequence[tuple[str, str, str, int]]) -> list[Event]:
    """Events from the split on, in order of time; users and items may be new, and times equal."""
    events = [Event(user_id=user, item_id=item, type=kind, ts=SPLIT_MS + after) for user, item, kind, after in drawn]
    return sorted(events, key=lambda event: event.ts)


def train(events: Sequence[Event], config: TrainConfig = CONFIG) -> TrainedModel:
    return train_encoder(events, SETTINGS, config=config, split_ms=SPLIT_MS, report=lambda _: None)


def bytes_of(weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in weights.items()}


def weights_of(trained: TrainedModel) -> dict[str, bytes]:
    return bytes_of(trained.model.state_dict())


def learned_from(events: Sequence[Event]) -> tuple[object, ...]:
    """All that training takes from a log: items, histories, gap buckets, first half-lives, target counts."""
    vocabulary = vocabulary_before(events, SETTINGS, SPLIT_MS)
    past = training_histories(history_slices(events, SETTINGS), vocabulary, SETTINGS).before(SPLIT_MS)
    gap_rows_E = SliceReader(past, default_gap_edges_ms(), SETTINGS.slice_events).gap_rows_E
    targets_E = next_targets(past, skip_repeats=True)
    return (
        vocabulary,
        past.digest(),
        gap_rows_E.tolist(),
        initial_half_lives_ms(past, 4),
        np.bincount(targets_E).tolist(),
    )


@pytest.fixture(scope="module")
def expected() -> tuple[object, ...]:
    """What training takes from the log that ends before the split."""
    return learned_from(PAST)


@examples(40)
@given(later_events)
def test_nothing_later_is_learned_from(
    expected: tuple[object, ...], drawn: Sequence[tuple[str, str, str, int]]
) -> None:
    assert learned_from([*PAST, *future_of(drawn)]) == expected


@pytest.mark.slow
@examples(8)
@given(later_events)
def test_the_weights_are_the_same_whatever_comes_later(drawn: Sequence[tuple[str, str, str, int]]) -> None:
    assert weights_of(train([*PAST, *future_of(drawn)])) == weights_of(train(PAST))


def test_what_came_just_before_does_reach_the_weights() -> None:
    last = PAST[-1]
    item_id = next(event.item_id for event in reversed(PAST) if event.item_id != last.item_id)
    changed = [*PAST[:-1], Event(user_id=last.user_id, item_id=item_id, type=last.type, ts=last.ts)]
    assert learned_from(changed) != learned_from(PAST)
    assert weights_of(train(changed)) != weights_of(train(PAST))


def test_items_first_seen_after_the_split_are_unknown() -> None:
    fresh = Event(user_id="u0", item_id="fresh", type="click", ts=SPLIT_MS)
    trained = train([*PAST, fresh])
    assert set(trained.vocabulary.item_ids) == {event.item_id for event in PAST}
    assert trained.vocabulary.rows_of(["fresh"]).tolist() == [1]


@pytest.mark.slow
def test_judging_chooses_an_epoch_and_no_more(tmp_path: Path) -> None:
    """Another future may stop the training earlier or later, but on the very same way."""
    config = replace(
        CONFIG, max_epochs=6, patience_epochs=2, optimisation=Optimisation(learning_rate=0.02, average_share=0)
    )
    way: list[tuple[float, dict[str, bytes]]] = []

    def note(progress: TrainProgress) -> None:
        tensors = load_file(tmp_path / f"epoch-{progress.epoch:06d}" / TENSORS_FILE)
        way.append((progress.prediction_loss, bytes_of(under("model", tensors))))

    vocabulary = vocabulary_before(PAST, SETTINGS, SPLIT_MS)
    histories = training_histories(history_slices(PAST, SETTINGS), vocabulary, SETTINGS)
    train_model(histories, vocabulary, config, SPLIT_MS, note, checkpoint_folder=tmp_path)
    ever_same = [Event(user_id=event.user_id, item_id="i3", type="click", ts=event.ts) for event in FUTURE]
    for future in (FUTURE, ever_same):
        judged = train([*PAST, *future], config)
        assert judged.num_validation_targets > 0
        assert [point.prediction_loss for point in judged.curve] == [loss for loss, _ in way[: len(judged.curve)]]
        assert weights_of(judged) == way[judged.best_epoch - 1][1]
