"""Model folders as the roles see them: checked against the settings before anything is served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from encoders.contract import EncoderError
from stream_app.errors import ModelError
from stream_app.settings import Settings
from stream_app.settings_rules import score_rule
from stream_app.stages.learning import Scorer, initial_state
from stream_app.stages.listing import ListRule
from stream_app.stages.scorer_epochs import ScorerStage, ServedScorer
from stream_app.stages.scoring import feature_names
from stream_app.topics import EVENTS, prefixed

if TYPE_CHECKING:  # torch takes seconds to import
    from encoders.runtime import SliceEncoderRuntime

STREAM_FILE = "stream.json"
SCORER_FILE = "scorer.json"

TRAINED_FILE = "trained.json"
"""When the model was trained. Beside what is signed: the same training is to give the same model."""

TRAIN_HINT = "train one with `sliceflow train FILE --out DIR`, then set `model` (or SLICEFLOW_MODEL) to DIR"


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How the stream was cut when the model was trained: a model understands only slices cut the same way."""

    slice_events: int
    slice_gap_s: float
    slice_span_s: float
    half_lives_s: list[float]


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """When a model was trained, in milliseconds since 1970."""

    trained_at: int


@dataclass(frozen=True)
class ServedModel:
    """What the recommend role needs of a model: no weights of the encoder."""

    release: str
    dim: int
    scorer: Scorer


def stream_spec(settings: Settings) -> StreamSpec:
    """The part of the settings a model depends on."""
    return StreamSpec(
        slice_events=settings.slice_events,
        slice_gap_s=settings.slice_gap_s,
        slice_span_s=settings.slice_span_s,
        half_lives_s=list(settings.half_lives_s),
    )


def note_trained(folder: Path, now_ms: int) -> None:
    """Write into a model's folder when it was trained."""
    (folder / TRAINED_FILE).write_bytes(msgspec.json.encode(Trained(trained_at=now_ms)) + b"\n")


def trained_at_ms(folder: Path) -> int | None:
    """When a model was trained, in milliseconds since 1970; None where its folder does not say.

    Raises:
        msgspec.MsgspecError: What says so cannot be read.
    """
    file = folder / TRAINED_FILE
    return msgspec.json.decode(file.read_bytes(), type=Trained).trained_at if file.is_file() else None


def model_folder(settings: Settings) -> Path:
    """The folder of the model.

    Raises:
        ModelError: None is set, or it is not there.
    """
    if not settings.model:
        raise ModelError("No model is set.", mend=TRAIN_HINT)
    folder = Path(settings.model).expanduser()
    if not folder.is_dir():
        raise ModelError(f"There is no model folder at {folder}.", mend=TRAIN_HINT)
    return folder


def served_model(settings: Settings) -> ServedModel:
    """Read and check the model for serving, without loading its weights.

    Raises:
        ModelError: The folder is missing or damaged, or the model was trained for other settings.
    """
    from encoders.spec import load_spec, read_file

    folder = model_folder(settings)
    with as_model_error():
        spec = load_spec(folder)
        stream = msgspec.json.decode(read_file(folder, spec, STREAM_FILE), type=StreamSpec)
        scorer = msgspec.json.decode(read_file(folder, spec, SCORER_FILE), type=Scorer)
    _check_fits(stream, settings, folder)
    expected = feature_names(settings.half_lives_s)
    if scorer.feature_names != expected:
        raise ModelError(
            f"{folder / SCORER_FILE} scores by {', '.join(scorer.feature_names)}; expected {', '.join(expected)}.",
            mend=TRAIN_HINT,
        )
    return ServedModel(spec.release, spec.dims.dim, scorer)


def list_rule(settings: Settings, model: ServedModel) -> ListRule:
    """What lists are made with."""
    return ListRule(
        events=prefixed(settings.prefix, EVENTS),
        release=model.release,
        scorer=model.scorer,
        score=score_rule(settings),
        list_items=settings.list_items,
        candidates=settings.candidates,
    )


def scorer_stage(settings: Settings, model: ServedModel, num_sources: int) -> ScorerStage:
    """The stage that learns from choices, without any state yet; `num_sources` partitions of `events`."""
    served = ServedScorer(model.release, lambda: initial_state(model.scorer))
    return ScorerStage(num_sources, score_rule(settings), served)


def load_encoder(settings: Settings) -> SliceEncoderRuntime:
    """Load the encoder of the model; needs torch.

    Raises:
        ModelError: The folder is missing or damaged, or the model was trained for other settings.
    """
    served_model(settings)
    from encoders.runtime import SliceEncoderRuntime

    with as_model_error():
        return SliceEncoderRuntime.load(model_folder(settings))


@contextmanager
def as_model_error() -> Iterator[None]:
    """Turn the encoders' own errors into one for people."""
    try:
        yield
    except EncoderError as error:
        raise ModelError(str(error)) from error
    except msgspec.MsgspecError as error:
        raise ModelError(f"A file of the model does not hold what it should: {error}.", mend=TRAIN_HINT) from error


def _check_fits(stream: StreamSpec, settings: Settings, folder: Path) -> None:
    wanted = stream_spec(settings)
    differing = [
        f"{name} is {getattr(wanted, name)}, the model's {getattr(stream, name)}"
        for name in StreamSpec.__struct_fields__
        if getattr(wanted, name) != getattr(stream, name)
    ]
    if differing:
        raise ModelError(
            f"The model at {folder} was trained for other settings: {'; '.join(differing)}.",
            mend="set them as the model has them, or train again with `sliceflow train`",
        )
