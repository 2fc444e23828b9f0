"""The online scorer: candidates are ranked by a function of their features that is learned from what users take.

The function is a weighted sum of the features plus a small network with two hidden layers, so that a feature can count
differently for a new user and a known one, or for a new item and an old one. A choice is one positive among the
candidates of its list; the loss is the cross-entropy of a softmax over them (Cao et al., "Learning to Rank: From
Pairwise Approach to Listwise Approach", ICML 2007), where those drawn count for those left out (Bengio and Senécal,
"Adaptive Importance Sampling", 2008). It is minimised by Adam (Kingma and Ba, ICLR 2015) on the newest choices
together with some of the kept ones: choices alone are too few to learn a network from, each seen once.

Nothing here is fitted to a log: features are brought to a common scale by their own running mean and spread.

Shapes: C candidates (N of several lists), F features, K hidden units, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app.stages.scoring_network import NUM_HIDDEN, Network, forward, gradient, start_parameters
from stream_app.stages.scoring_network import outputs as network_outputs

Floats = npt.NDArray[np.float64]

LEARNING_RATE = 0.005
"""Adam's, for standardised features."""

BETAS = (0.9, 0.99)
"""How much of the mean gradient and of the mean squared gradient a step keeps."""

WEIGHT_DECAY = 1e-2
"""Added to the gradient for each parameter, in its own units. Without it four steps a batch learn chance by heart."""

EPSILON = 1e-8

BATCH_CHOICES = 64
"""New choices of one step; with fewer than this a step says more about chance than about users."""

STEPS = 4
"""Steps for each batch, each with other kept choices: with one the scorer takes hours to follow a turn of taste."""

REPLAYED_CHOICES = 192
"""Kept choices that each step learns from beside the new ones."""

KEPT_CHOICES = 1024
"""Newest choices kept to be learned from again: some 2 MB."""

MAX_ROWS_SEEN = 100_000
"""The running mean and spread of the features forget older rows than about so many."""

START_ROWS_SEEN = 20_000
"""How much the mean and the spread that a model brings count beside what comes."""

FOREMOST_RANKS = 4
"""Of each feature, looked at first for the rows that some feature puts foremost: 20 features name 26 to 50 rows there.
"""

MIN_SCALE = 1e-3
"""A feature that varies less is not blown up."""


@dataclass(frozen=True)
class Example:
    """One choice.

    Args:
        features_CF: The candidates' features as the list would have seen them.
        chosen: The row that was taken.
        num_spread: So many last rows stand for others that are left out.
        weight: For how many candidates each of these rows counts.
    """

    features_CF: Floats
    chosen: int
    num_spread: int = 0
    weight: float = 1.0


class Hidden(msgspec.Struct, frozen=True, kw_only=True):
    """The network's part of a scorer: what brings features to scale, and its parameters.

    `shifts` and `scales` (F,) and `parameters` (P,) are little-endian float32; see `scoring_network` for the order.
    """

    num_units: int
    shifts: bytes
    scales: bytes
    parameters: bytes


class Scorer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lists are ranked with: a weight for each feature in its own units, and the network where there is one."""

    feature_names: list[str]
    weights: list[float]
    hidden: Hidden | None = None


class KeptChoice(msgspec.Struct, array_like=True, frozen=True):
    """An `Example` that is learned from again; `features` are little-endian float16, (C, F)."""

    num_candidates: int
    chosen: int
    features: bytes
    num_spread: int = 0
    weight: float = 1.0


class ScorerState(msgspec.Struct, frozen=True, kw_only=True):
    """What the learner keeps. Arrays are little-endian float64 bytes.

    `shifts` and `scales` (F,) describe the features seen so far, `rows_seen` (F,) in how many rows each was seen to
    vary. `parameters` (F + P,) hold a weight for each standardised feature and the network's; `means` and `squares` are
    Adam's of the gradient.
    """

    feature_names: list[str]
    rows_seen: bytes
    shifts: bytes
    scales: bytes
    parameters: bytes
    means: bytes
    squares: bytes
    num_steps: int = 0
    kept: list[KeptChoice] = []


def initial_state(scorer: Scorer) -> ScorerState:
    """The state that starts from a scorer, without any choice seen."""
    num_features = len(scorer.feature_names)
    shifts_F, scales_F, network_P = np.zeros(num_features), np.ones(num_features), start_parameters(num_features)
    rows_seen_F = np.zeros(num_features)
    if scorer.hidden is not None:
        shifts_F, scales_F = _float32s(scorer.hidden.shifts), _float32s(scorer.hidden.scales)
        network_P, rows_seen_F = _float32s(scorer.hidden.parameters), np.full(num_features, float(START_ROWS_SEEN))
    parameters = np.concatenate([np.array(scorer.weights) * scales_F, network_P])
    blank = np.zeros_like(parameters)
    return ScorerState(
        feature_names=scorer.feature_names,
        rows_seen=_bytes(rows_seen_F),
        shifts=_bytes(shifts_F),
        scales=_bytes(scales_F),
        parameters=_bytes(parameters),
        means=_bytes(blank),
        squares=_bytes(blank),
    )


def scorer_of(state: ScorerState) -> Scorer:
    """What to rank lists with, as of this state."""
    num_features = len(state.feature_names)
    parameters, scales_F = _floats(state.parameters), _floats(state.scales)
    return Scorer(
        feature_names=state.feature_names,
        weights=(parameters[:num_features] / scales_F).tolist(),
        hidden=Hidden(
            num_units=NUM_HIDDEN,
            shifts=_bytes32(_floats(state.shifts)),
            scales=_bytes32(scales_F),
            parameters=_bytes32(parameters[num_features:]),
        ),
    )


def scores(scorer: Scorer, features_CF: Floats) -> Floats:
    """The score of each candidate, shape (C,); a row's does not depend on the others."""
    return weighted_sums(scorer, features_CF) + network_parts(scorer, features_CF)


def weighted_sums(scorer: Scorer, features_CF: Floats) -> Floats:
    """The part of the scores (C,) that is a sum of weighted features."""
    # Sums in a fixed order, not matrix products: the result must not depend on how many candidates there are.
    products_FC = features_CF.T * np.array(scorer.weights)[:, None]
    scores_C = np.zeros(len(features_CF))
    for products_C in products_FC:
        scores_C += products_C
    return scores_C


def network_parts(scorer: Scorer, features_CF: Floats) -> Floats:
    """The part of the scores (C,) that the network adds, 0 without one."""
    if scorer.hidden is None:
        return np.zeros(len(features_CF))
    shifts_F, scales_F, network = _unpacked(scorer.hidden)
    made = forward(network, (features_CF - shifts_F) / scales_F)
    return network_outputs(network, made).astype(np.float64, copy=False)


@lru_cache(maxsize=8)
def _unpacked(hidden: Hidden) -> tuple[Floats, Floats, Network]:
    """Shifts (F,), scales (F,) and network in float64: what ranks thousands of lists is unpacked once."""
    shifts_F = _float32s(hidden.shifts)
    return shifts_F, _float32s(hidden.scales), Network.of(_float32s(hidden.parameters), len(shifts_F), hidden.num_units)


def sample(features_CF: Floats, chosen: int, max_negatives: int) -> Example:
    """The example with the chosen row first and at most `max_negatives` others.

    Half of them are those that some feature puts foremost, the features in turn: what a list would show. The others are
    spread evenly over the rest and count for all of it: without their weight the softmax is over another set than the
    list's, and half a hundredth of NDCG@10 was lost.
    """
    others = np.concatenate([np.arange(chosen), np.arange(chosen + 1, len(features_CF))])
    if len(others) <= max_negatives:
        return Example(features_CF.take(np.concatenate([[chosen], others]), axis=0), 0)
    foremost = np.sort(_foremost(features_CF.take(others, axis=0), max_negatives // 2))
    is_left = np.ones(len(others), dtype=np.bool_)
    is_left[foremost] = False
    rest = np.flatnonzero(is_left)
    spread = rest[np.linspace(0, len(rest) - 1, max_negatives - len(foremost)).astype(np.int64)]
    rows = np.concatenate([[chosen], others.take(foremost), others.take(spread)])
    return Example(features_CF.take(rows, axis=0), 0, len(spread), len(rest) / max(1, len(spread)))


def learn(state: ScorerState, examples: Sequence[Example]) -> ScorerState:
    """The state after these choices, in their order; the same input gives the same bytes.

    O(choices · C · K · (F + K)); about 150 ms for each `BATCH_CHOICES`.
    """
    if not examples:
        return state
    choices = [_kept(example) for example in examples]
    state = _rescaled(state, choices)
    num_batches = -(-len(choices) // BATCH_CHOICES)
    for number in range(num_batches):
        batch = choices[number * len(choices) // num_batches : (number + 1) * len(choices) // num_batches]
        for _ in range(STEPS):
            state = _step(state, batch)
        state = msgspec.structs.replace(state, kept=[*state.kept, *batch][-KEPT_CHOICES:])
    return state


def _step(state: ScorerState, batch: list[KeptChoice]) -> ScorerState:
    """One step of Adam on new choices and some kept ones."""
    generator = np.random.Generator(np.random.PCG64(state.num_steps))
    num_replayed = min(REPLAYED_CHOICES, len(state.kept))
    places = np.sort(generator.permutation(len(state.kept))[:num_replayed]).tolist()
    parameters = _floats(state.parameters)
    gradient_P = _gradient(state, parameters, [*batch, *(state.kept[place] for place in places)])
    gradient_P += WEIGHT_DECAY * parameters
    step = state.num_steps + 1
    means = BETAS[0] * _floats(state.means) + (1 - BETAS[0]) * gradient_P
    squares = BETAS[1] * _floats(state.squares) + (1 - BETAS[1]) * gradient_P**2
    spread = np.sqrt(squares / (1 - BETAS[1] ** step)) + EPSILON
    return msgspec.structs.replace(
        state,
        parameters=_bytes(parameters - LEARNING_RATE * means / (1 - BETAS[0] ** step) / spread),
        means=_bytes(means),
        squares=_bytes(squares),
        num_steps=step,
    )


def _gradient(state: ScorerState, parameters: Floats, choices: Sequence[KeptChoice]) -> Floats:
    """Of the mean cross-entropy of the chosen among its candidates, by the parameters (F + P,).

    In float32: twice as fast, and what is rounded off is far below what one step's choices say by chance.
    """
    num_features = len(state.feature_names)
    weights = parameters.astype(np.float32)
    rows_NF = _rows(choices)
    rows_NF -= _floats(state.shifts)
    rows_NF /= _floats(state.scales)
    standard_NF = rows_NF.astype(np.float32)
    starts = np.cumsum([0, *(choice.num_candidates for choice in choices)])[:-1]
    network = Network.of(weights[num_features:], num_features, NUM_HIDDEN)
    made = forward(network, standard_NF)
    scores_N = np.einsum("nf,f->n", standard_NF, weights[:num_features]) + network_outputs(network, made)
    scores_N = scores_N + _log_weights(choices)
    lengths = [choice.num_candidates for choice in choices]
    exps_N = np.exp(scores_N - np.repeat(np.maximum.reduceat(scores_N, starts), lengths))
    errors_N = exps_N / np.repeat(np.add.reduceat(exps_N, starts), lengths)
    errors_N[starts + [choice.chosen for choice in choices]] -= 1.0
    errors_N /= len(choices)
    linear_F = np.einsum("n,nf->f", errors_N, standard_NF)
    return np.concatenate([linear_F, gradient(network, made, errors_N)]).astype(np.float64)


def _log_weights(choices: Sequence[KeptChoice]) -> npt.NDArray[np.float32]:
    """(N,) logarithm of how many candidates each row counts for in the softmax."""
    log_weights_N = np.zeros(sum(choice.num_candidates for choice in choices), dtype=np.float32)
    end = 0
    for choice in choices:
        end += choice.num_candidates
        log_weights_N[end - choice.num_spread : end] = np.log(choice.weight)
    return log_weights_N


def _rescaled(state: ScorerState, choices: Sequence[KeptChoice]) -> ScorerState:
    """The state with mean and spread of the features brought up to date, scoring exactly as before.

    A feature that does not vary yet is left alone: with no spread at all its first values would be thousands.
    """
    rows = _rows(choices)
    old_shifts_F, old_scales_F, old_rows_seen_F = map(_floats, (state.shifts, state.scales, state.rows_seen))
    varies_F = rows.std(axis=0) > MIN_SCALE
    share_F = varies_F * len(rows) / (old_rows_seen_F + len(rows))
    between_F = rows.mean(axis=0) - old_shifts_F
    shifts_F = old_shifts_F + share_F * between_F
    variances_F = (1 - share_F) * (old_scales_F**2 + share_F * between_F**2) + share_F * rows.var(axis=0)
    scales_F = np.maximum(np.sqrt(variances_F), MIN_SCALE)
    num_features = len(shifts_F)
    parameters = _floats(state.parameters).copy()
    network = Network.of(parameters[num_features:], num_features, NUM_HIDDEN)
    # In place: the network's arrays are views of the parameters.
    moved_K = np.einsum("f,fk->k", (shifts_F - old_shifts_F) / old_scales_F, network.first_FK)
    network.first_bias_K[:] += moved_K
    network.first_FK[:] *= (scales_F / old_scales_F)[:, None]
    parameters[:num_features] *= scales_F / old_scales_F
    return msgspec.structs.replace(
        state,
        rows_seen=_bytes(np.minimum(old_rows_seen_F + varies_F * len(rows), float(MAX_ROWS_SEEN))),
        shifts=_bytes(shifts_F),
        scales=_bytes(scales_F),
        parameters=_bytes(parameters),
    )


def _foremost(features_CF: Floats, num_rows: int) -> npt.NDArray[np.int64]:
    """Rows with the greatest values of the features, one of each feature in turn, without repeats."""
    order_CF = np.argsort(-features_CF, axis=0, kind="stable")
    found: list[int] = []
    num_ranks = FOREMOST_RANKS
    # Some features mostly name the same rows, so a few ranks of each are enough; if not, twice as many are looked at.
    while len(found) < min(num_rows, len(features_CF)):
        found = list(dict.fromkeys(order_CF[:num_ranks].ravel().tolist()))[:num_rows]
        num_ranks *= 2
    return np.array(found, dtype=np.int64)


def _kept(example: Example) -> KeptChoice:
    features = example.features_CF.astype("<f2").tobytes()
    return KeptChoice(len(example.features_CF), example.chosen, features, example.num_spread, example.weight)


def _rows(choices: Sequence[KeptChoice]) -> Floats:
    """The features (N, F) of all candidates, choice after choice."""
    num_rows = sum(choice.num_candidates for choice in choices)
    features = b"".join(choice.features for choice in choices)
    return np.frombuffer(features, dtype="<f2").reshape(num_rows, -1).astype(np.float64)


def _bytes(values: Floats) -> bytes:
    return values.astype("<f8").tobytes()


def _bytes32(values: Floats) -> bytes:
    return values.astype("<f4").tobytes()


def _floats(data: bytes) -> Floats:
    return np.frombuffer(data, dtype="<f8")


def _float32s(data: bytes) -> Floats:
    return np.frombuffer(data, dtype="<f4").astype(np.float64)
