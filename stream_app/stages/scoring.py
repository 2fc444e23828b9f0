"""The scorer: one weight for each feature of a candidate."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt


def half_life_name(half_life_s: float) -> str:
    """A half-life as people say it: 15m, 1h, 7d."""
    for seconds, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "m")):
        if half_life_s >= seconds and half_life_s % seconds == 0:
            return f"{half_life_s / seconds:g}{unit}"
    return f"{half_life_s:g}s"


def feature_names(half_lives_s: Sequence[float]) -> list[str]:
    """The features of a candidate, in the order of the columns of `ranking.features`."""
    return [
        *(f"popularity_{half_life_name(half_life)}" for half_life in half_lives_s),
        "transition_short",
        "transition_long",
        "transition_last",
        "vector",
        "no_vector",
        "log_age",
        "never_touched",
    ]


class ScorerWeights(msgspec.Struct, frozen=True, kw_only=True):
    """The weights by feature name, as they stand in `scorer.json` of a model folder."""

    weights: dict[str, float]

    def vector(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """The weights in the order of `names`, shape (F,).

        Raises:
            KeyError: A feature has no weight: the scorer was fitted with other half-lives.
        """
        return np.array([self.weights[name] for name in names])


def default_weights(half_lives_s: Sequence[float]) -> ScorerWeights:
    """Weights for the time before anything was fitted: popularity, transitions and vectors count alike."""
    names = feature_names(half_lives_s)
    weights = dict.fromkeys(names, 0.0)
    weights.update({name: 0.5 / len(half_lives_s) for name in names if name.startswith("popularity_")})
    weights.update(
        {
            "transition_short": 0.2,
            "transition_long": 0.2,
            "transition_last": 0.2,
            "vector": 0.5,
            "no_vector": -2.0,
        }
    )
    return ScorerWeights(weights=weights)
