"""What the settings say, in the words of the stages."""

from __future__ import annotations

from stream_app.errors import SettingsError
from stream_app.settings import Settings
from stream_app.stages.clean import CleanRules
from stream_app.stages.encoding import KEEP_REPAIRABLE
from stream_app.stages.popularity import TrendRule
from stream_app.stages.score_rule import ScoreRule
from stream_app.stages.sequence import SequenceStage
from stream_app.stages.slicing import SlicingRule


def clean_rules(settings: Settings) -> CleanRules:
    """The rules by which events are cleaned.

    Raises:
        SettingsError: The field map gives two of our fields the same producer field.
    """
    try:
        return CleanRules(
            event_types=settings.event_types,
            max_future_ms=int(settings.max_future_s * 1000),
            field_map=settings.fields,
        )
    except ValueError as error:
        raise SettingsError(
            f"The field map is wrong: {error}.",
            mend="give every field of ours its own producer field under [fields]; see `sliceflow config`",
        ) from error


def slicing_rule(settings: Settings) -> SlicingRule:
    """The rule by which histories are cut."""
    return SlicingRule(
        slice_events=settings.slice_events,
        gap_ms=int(settings.slice_gap_s * 1000),
        span_ms=int(settings.slice_span_s * 1000),
        history_events=settings.history_events,
        repair_slices=KEEP_REPAIRABLE,
    )


def sequence_stage(settings: Settings, partition: int) -> SequenceStage:
    """The stage of one partition of `events`, without any state yet."""
    return SequenceStage(
        partition,
        slicing_rule(settings),
        epoch_ms=settings.epoch_ms,
        allowed_lateness_ms=int(settings.allowed_lateness_s * 1000),
        weights_milli=weights_milli(settings),
        score=score_rule(settings),
    )


def score_rule(settings: Settings) -> ScoreRule:
    """Scorer-epochs, and what the scorer learns from."""
    return ScoreRule(
        epoch_ms=settings.epoch_ms,
        scorer_epoch_ms=settings.scorer_epoch_ms,
        users_share=settings.score_users_share,
        choices_per_epoch=settings.score_choices_per_epoch,
    )


def trend_rule(settings: Settings) -> TrendRule:
    """The rule by which trends decay."""
    half_lives_ms = tuple(half_life_s * 1000 for half_life_s in settings.half_lives_s)
    return TrendRule(epoch_ms=settings.epoch_ms, half_lives_ms=half_lives_ms)


def weights_milli(settings: Settings) -> dict[str, int]:
    """Weight of each event type in thousandths, at least 1."""
    return {name: max(1, round(weight * 1000)) for name, weight in settings.event_types.items()}
