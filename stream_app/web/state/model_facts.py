"""What the model's folder says of the model, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from encoders.spec import ITEMS_FILE, load_spec, read_file
from stream_app.evaluation.results import CHIEF, EvaluationReport
from stream_app.models import as_model_error, model_folder, trained_at_ms
from stream_app.settings import Settings
from stream_app.web.answers import CurvePoint

EVALUATION_FILE: Final = "evaluation.json"
"""The JSON of `sliceflow evaluate`, where somebody put it into the model's folder."""


@dataclass(frozen=True)
class ModelFacts:
    """A model, in the words of the API.

    Args:
        release: Name and content hash.
        dim: D.
        merge: How slices are merged.
        trained_at: Milliseconds since 1970; None where the folder does not say.
        curve: Every epoch trained.
        evaluation: One row for each method, ours first; None where there is no evaluation.
        trained_items: Ids of the items that training saw.
        reads_words: Whether texts mean something to the model.
    """

    release: str
    dim: int
    merge: str
    trained_at: int | None
    curve: list[CurvePoint]
    evaluation: list[dict[str, Any]] | None
    trained_items: frozenset[str]
    reads_words: bool


def model_facts(settings: Settings) -> ModelFacts:
    """Read them.

    Raises:
        ModelError: The folder is missing or damaged.
    """
    folder = model_folder(settings)
    with as_model_error():
        spec = load_spec(folder)
        items = frozenset(msgspec.json.decode(read_file(folder, spec, ITEMS_FILE), type=list[str]))
        found = folder / EVALUATION_FILE
        trained_at = trained_at_ms(folder)
        report = msgspec.json.decode(found.read_bytes(), type=EvaluationReport) if found.is_file() else None
    return ModelFacts(
        release=spec.release,
        dim=spec.dims.dim,
        merge=spec.dims.merge,
        trained_at=trained_at,
        curve=[_point(epoch) for epoch in spec.training.get("curve", ())],
        evaluation=None if report is None else [_row(report, place) for place in range(len(report.methods))],
        trained_items=items,
        reads_words=spec.dims.items.reads_words,
    )


def _point(epoch: dict[str, Any]) -> CurvePoint:
    return CurvePoint(
        epoch=epoch["epoch"], train_loss=epoch["prediction_loss"], validation=epoch.get("validation_ndcg10")
    )


def _row(report: EvaluationReport, place: int) -> dict[str, Any]:
    method = report.methods[place]
    chief = method.measures.get(CHIEF)
    row: dict[str, Any] = {"method": method.name, "coverage": method.coverage}
    row.update({name: measure.mean for name, measure in method.measures.items()})
    if chief is not None:
        row[f"{CHIEF} interval"] = [chief.low, chief.high]
    return row
