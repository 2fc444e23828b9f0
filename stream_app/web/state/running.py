"""What the running system tells of itself on `status`, `drift` and `scorer-weights`."""

from __future__ import annotations

import msgspec

from stream_app.faustkit import Run
from stream_app.records import MARK_KEY, DriftRecord, ScorerRecord, StatusRecord
from stream_app.stages.learning import Scorer
from stream_app.stages.listing import ScorerInForce
from stream_app.web.answers import DriftFacts, ScorerFacts

_STATUS = msgspec.json.Decoder(StatusRecord)
_DRIFT = msgspec.json.Decoder(DriftRecord)
_SCORER = msgspec.json.Decoder(ScorerRecord)
_WEIGHTS = msgspec.json.Decoder(Scorer)


class Running:
    """The newest records of each.

    Args:
        release: The release that is served; scorers and drift of others are left out.
    """

    def __init__(self, release: str) -> None:
        self._release = release
        self._totals: dict[int, StatusRecord] = {}
        self._drift: dict[str, DriftRecord] = {}
        self._scorer: ScorerRecord | None = None
        self._in_force: ScorerInForce | None = None

    def take_status(self, run: Run) -> None:
        """Take records of `status`."""
        for value in filter(None, run.values):
            record = _STATUS.decode(value)
            self._totals[record.partition] = record

    def take_drift(self, run: Run) -> None:
        """Take records of `drift`."""
        for value in filter(None, run.values):
            record = _DRIFT.decode(value)
            if record.release == self._release:
                self._drift[record.instance] = record

    def take_scorers(self, run: Run) -> None:
        """Take records of `scorer-weights`."""
        for key, value in zip(run.keys, run.values, strict=True):
            if value is not None and key != MARK_KEY:
                record = _SCORER.decode(value)
                if record.release == self._release:
                    self._scorer, self._in_force = record, None

    @property
    def num_users(self) -> int:
        """Users that have a history."""
        return sum(record.users for record in self._totals.values())

    @property
    def num_dead_letters(self) -> int:
        """Records that were refused."""
        return sum(record.dead_lettered for record in self._totals.values())

    def dropped(self) -> dict[str, int]:
        """Events that changed nothing, by reason."""
        found: dict[str, int] = {}
        for record in self._totals.values():
            for reason, count in record.dropped.items():
                found[reason] = found.get(reason, 0) + count
        return dict(sorted(found.items()))

    def drift(self) -> DriftFacts:
        """Drift over all workers, each weighing as much as it checked."""
        records = [record for record in self._drift.values() if record.checks]
        checks = sum(record.checks for record in records)
        if not checks:
            return DriftFacts(mean_cosine=None, min_cosine=None, mean_overlap_10=None, checks=0)
        return DriftFacts(
            mean_cosine=sum(record.mean_cosine * record.checks for record in records) / checks,
            min_cosine=min(record.min_cosine for record in records),
            mean_overlap_10=sum(record.mean_overlap_10 * record.checks for record in records) / checks,
            checks=checks,
        )

    def scorer(self) -> ScorerFacts:
        """The newest scorer."""
        if self._scorer is None:
            return ScorerFacts(epoch=-1, quality={})
        return ScorerFacts(epoch=self._scorer.epoch, quality=self._scorer.quality)

    def in_force(self, own: Scorer) -> ScorerInForce:
        """What ranks a list now: the newest scorer, or the model's own where none was learned yet."""
        if self._scorer is None:
            return ScorerInForce(own)
        if self._in_force is None:
            self._in_force = ScorerInForce(_WEIGHTS.decode(self._scorer.scorer), self._scorer.epoch)
        return self._in_force
