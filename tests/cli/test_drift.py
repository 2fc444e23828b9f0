"""`sliceflow drift` against a broker: the newest figures, and when they are not good enough."""

from __future__ import annotations

import json

import msgspec
import pytest

from stream_app.records import DriftRecord, encode
from stream_app.topics import DRIFT
from tests.cli.conftest import Cli
from tests.cli.test_with_kafka import produce

GOOD = DriftRecord(
    release="m1",
    instance="here-0",
    checks=100,
    users=12,
    users_left_out=3,
    slices=640,
    mean_cosine=0.999999,
    min_cosine=0.99999,
    mean_overlap_10=0.95,
)


@pytest.mark.kafka
def test_the_newest_figures_are_shown_and_judged(cli: Cli) -> None:
    missing = cli("drift")
    assert (missing.exit_code, "sliceflow topics --create" in missing.stderr) == (1, True)

    cli.ok("topics", "--create")
    empty = cli("drift")
    assert (empty.exit_code, "drift_users_share" in empty.stderr) == (1, True)

    poor = msgspec.structs.replace(GOOD, instance="here-1", mean_overlap_10=0.9499)
    produce(cli, DRIFT, [("m1 here-1", encode(poor)), ("m1 here-0", encode(GOOD)), ("m0 gone", None)])
    assert json.loads(cli.ok("drift", "--json")) == msgspec.to_builtins(GOOD)
    assert "top-10 overlap 0.9500, cosine 0.999999 (least 0.999990) over 100 checks of 12 users" in cli.ok("drift")

    produce(cli, DRIFT, [("m1 here-1", encode(poor))])
    judged = cli("drift", "--json")
    assert (judged.exit_code, json.loads(judged.stdout)["instance"]) == (1, "here-1")

    produce(cli, DRIFT, [("m1 here-1", b"0.97")])
    damaged = cli("drift")
    assert (damaged.exit_code, "holds no figures" in damaged.stderr) == (1, True)
