"""The model that is served."""

from __future__ import annotations

from stream_app.web.answers import ModelAnswer
from stream_app.web.calls import Call


async def facts(call: Call) -> ModelAnswer:
    """Release, training, evaluation, drift, scorer."""
    held = call.service.held
    model, settings = held.model, held.settings
    return ModelAnswer(
        release=model.release,
        dim=model.dim,
        num_items=len(model.trained_items),
        merge=model.merge,
        slice_events=settings.slice_events,
        slice_gap_s=settings.slice_gap_s,
        slice_span_s=settings.slice_span_s,
        half_lives_s=settings.half_lives_s,
        event_types=list(settings.event_types),
        trained_at=model.trained_at,
        training_curve=model.curve,
        evaluation=model.evaluation,
        drift=held.running.drift(),
        scorer=held.running.scorer(),
    )
