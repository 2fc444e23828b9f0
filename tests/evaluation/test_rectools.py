"""The same figures as RecTools on the same lists; it wants another numpy, so it runs in an environment of its own."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from stream_app.evaluation.baselines import Baseline, Panel, Popularity, SmoothedStatistic
from stream_app.evaluation.families import histories_of
from stream_app.evaluation.judging import temporal
from stream_app.evaluation.results import report_of
from stream_app.evaluation.statistics import DecayedPopularity, Transitions
from tests.evaluation.cases import walked_log

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "rectools" / "bin" / "python"
SCRIPT = Path(__file__).parent / "rectools" / "measure.py"


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.is_file(), reason="RecTools is not installed: run `make rectools`")
@pytest.mark.parametrize("method", ["popularity", "transitions"])
def test_measures_agree_with_rectools(method: str) -> None:
    counts = DecayedPopularity(1e12)
    baselines: list[Baseline] = [
        Popularity("popularity", counts),
        SmoothedStatistic("transitions", Transitions(None), counts, 1e-6),
    ]
    log = walked_log(900, num_items=60, num_users=25, seed=3)
    from_ms = log[500].ts
    panel = Panel(baselines)
    tops: dict[str, list[list[object]]] = {one.name: [] for one in baselines}
    found = temporal(log, from_ms, panel, None, lambda line: None)
    # The panel stands at the split now: the same questions again give the lists themselves.
    past = [one for one in log if one.ts < from_ms]
    histories = histories_of(past)
    for user in found.users:
        question = histories.question(user, from_ms)
        for one in baselines:
            rows = one.ranking(question).top(20).tolist()
            tops[one.name] += [[user, histories.item_ids[row], place] for place, row in enumerate(rows, start=1)]
            ranking = one.ranking(question)
            assert rows == sorted(rows, key=lambda row: ranking.rank_of(row))
    ours = {one.name: one for one in report_of(found, {}, {}, num_resamples=10).methods}[method]
    pairs = {(one.user_id, one.item_id) for one in past}
    asked = {
        "lists": tops[method],
        "taken": [[target.user_id, target.item_id] for target in found.targets],
        "before": sorted(pairs),
        "ks": [10, 20],
    }
    answer = subprocess.run(
        [PYTHON, SCRIPT], input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=200
    )
    theirs = json.loads(answer.stdout)
    mine = {name: ours.measures[name].mean for name in theirs if "@" in name}
    mine |= {"novelty_bits": ours.novelty_bits or math.nan, "mean_users": ours.mean_users or math.nan}
    assert mine == pytest.approx(theirs, rel=1e-9)
    assert np.all([0 < mine[f"NDCG@{depth}"] < 1 for depth in (10, 20)])
