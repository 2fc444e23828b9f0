"""The features that candidates are scored by, and the scorer to begin with."""

from __future__ import annotations

from collections.abc import Sequence

from stream_app.stages.learning import Scorer

NEAR_SOURCES = ("transition", "reverse")
"""What users touched after the user's newest items, and what they touched before those: a pair is known in both
directions. Without the second two hundredths of NDCG@10 were lost on shop sessions."""

NEAR_ITEMS = ("last_short", "last_long", "recent_short", "recent_long")
"""Near the newest item and near all newest ones; of short and of long memory."""


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
        *(f"{source}_{items}" for source in NEAR_SOURCES for items in NEAR_ITEMS),
        "vector",
        "no_vector",
        "log_age",
        "never_touched",
        "user_seen",
        "user_silent",
    ]


def default_scorer(half_lives_s: Sequence[float]) -> Scorer:
    """The scorer for the time before anything was learned: popularity, transitions and vectors count alike."""
    names = feature_names(half_lives_s)
    weights = {
        "transition_recent_short": 0.3,
        "transition_recent_long": 0.3,
        "vector": 0.5,
        "no_vector": -2.0,
    }
    weights.update({name: 0.5 / len(half_lives_s) for name in names if name.startswith("popularity_")})
    return Scorer(feature_names=names, weights=[weights.get(name, 0.0) for name in names])
