"""What RecTools says of lists; runs in an environment of its own, where RecTools is.

Takes one JSON object on stdin: `lists` as rows [user, item, rank], `taken` as rows [user, item], `before` as rows
[user, item], and depths `ks`. Prints one JSON object: each measure by name.
"""

from __future__ import annotations

import json
import sys

import pandas as pd
from rectools import Columns
from rectools.metrics import (
    MAP,
    MRR,
    NDCG,
    AvgRecPopularity,
    F1Beta,
    HitRate,
    MeanInvUserFreq,
    Precision,
    Recall,
    calc_metrics,
)

asked = json.load(sys.stdin)
lists = pd.DataFrame(asked["lists"], columns=[Columns.User, Columns.Item, Columns.Rank])
taken = pd.DataFrame(asked["taken"], columns=[Columns.User, Columns.Item])
before = pd.DataFrame(asked["before"], columns=[Columns.User, Columns.Item])
metrics: dict[str, object] = {
    "novelty_bits": MeanInvUserFreq(k=10),
    "mean_users": AvgRecPopularity(k=10),
}
for k in asked["ks"]:
    metrics |= {
        f"HR@{k}": HitRate(k=k),
        f"Recall@{k}": Recall(k=k),
        f"Precision@{k}": Precision(k=k),
        f"F1@{k}": F1Beta(k=k, beta=1.0),
        f"NDCG@{k}": NDCG(k=k, divide_by_achievable=True),
        f"MRR@{k}": MRR(k=k),
        f"MAP@{k}": MAP(k=k),
    }
for frame in (lists, taken, before):
    frame[Columns.Weight] = 1.0
    frame[Columns.Datetime] = "2020-01-01"
values = calc_metrics(metrics, reco=lists, interactions=taken, prev_interactions=before)
json.dump({name: float(value) for name, value in values.items()}, sys.stdout)
