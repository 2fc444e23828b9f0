"""What every slice encoder takes and returns: plain numpy arrays, one contract, one error tree.

Errors::

    EncoderError
    ├── DamagedModelError    a model folder is incomplete, altered or contradicts itself
    ├── ModelVersionError    a model folder is of a format this program does not read
    └── TooLittleDataError   there is not enough history to train on

Shapes: S slices, L events of a slice (padded on the right), C events before it (padded on the left), D dimensions,
R rows of a user's memory, H half-lives, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NO_GAP_MS = -1
"""The gap of a user's very first event: there is no event before it."""


MergeKind = Literal["none", "mean", "decayed", "gate", "concat", "tokens"]
"""The ways in which the codes of slices become a memory; `encoders.merges` says what each one is."""


class EncoderError(Exception):
    """Base of everything this package raises on purpose; `retriable` says if trying again can help."""

    retriable: ClassVar[bool] = False


class DamagedModelError(EncoderError):
    """A model folder is incomplete, altered or contradicts itself; the message names the file."""


class ModelVersionError(EncoderError):
    """A model folder has a format version that this program does not read."""


class TooLittleDataError(EncoderError):
    """The histories hold too few targets or items to train on; the message names both numbers."""


def _require(array: npt.NDArray[np.generic], name: str, dtype: npt.DTypeLike, num_axes: int) -> None:
    if array.dtype != np.dtype(dtype) or array.ndim != num_axes:
        raise ValueError(
            f"{name}: got {array.dtype} with {array.ndim} axes, expected {np.dtype(dtype)} with {num_axes}; "
            f"convert it with numpy before handing it over"
        )


@dataclass(frozen=True)
class SliceBatch:
    """Slices to encode, each padded on the right to the encoder's `slice_events`.

    Args:
        item_rows_SL: int64, vocabulary rows of the items (0 pads, 1 is an unknown item).
        type_rows_SL: int64, vocabulary rows of the event types (0 pads, 1 is an unknown type).
        gaps_ms_SL: int64, milliseconds since the same user's event before, in this slice or the one
            before it; `NO_GAP_MS` for the user's first event. What stands in padded places is ignored.
        lengths_S: int64, number of events of each slice, 1 to L.
        context_item_rows_SC: int64, items of the user's events before the slice, newest last; 0 pads on the left.
        context_type_rows_SC: int64, their types.
        context_gaps_ms_SC: int64, their gaps.

    Raises:
        ValueError: if a dtype, a shape or a length does not fit.
    """

    item_rows_SL: Int64Array
    type_rows_SL: Int64Array
    gaps_ms_SL: Int64Array
    lengths_S: Int64Array
    context_item_rows_SC: Int64Array
    context_type_rows_SC: Int64Array
    context_gaps_ms_SC: Int64Array

    def __post_init__(self) -> None:
        self._require_alike("item_rows_SL", "type_rows_SL", "gaps_ms_SL")
        self._require_alike("context_item_rows_SC", "context_type_rows_SC", "context_gaps_ms_SC")
        self._require_context()
        _require(self.lengths_S, "lengths_S", np.int64, 1)
        num_slices, num_places = self.item_rows_SL.shape
        if self.lengths_S.shape != (num_slices,):
            raise ValueError(f"lengths_S has shape {self.lengths_S.shape}, expected ({num_slices},)")
        if num_slices and (self.lengths_S.min() < 1 or self.lengths_S.max() > num_places):
            raise ValueError(
                f"lengths_S runs from {self.lengths_S.min()} to {self.lengths_S.max()}, expected 1 to "
                f"{num_places}; leave empty slices out and cut long ones"
            )

    def _require_alike(self, first: str, *others: str) -> None:
        for name in (first, *others):
            array = getattr(self, name)
            _require(array, name, np.int64, 2)
            if array.shape != getattr(self, first).shape:
                raise ValueError(f"{name} has shape {array.shape}, {first} {getattr(self, first).shape}")

    def _require_context(self) -> None:
        rows_SC = self.context_item_rows_SC
        if len(rows_SC) != len(self.item_rows_SL):
            raise ValueError(f"context_item_rows_SC has {len(rows_SC)} slices, item_rows_SL {len(self.item_rows_SL)}")
        if ((rows_SC[:, 1:] == 0) & (rows_SC[:, :-1] != 0)).any():
            raise ValueError("context_item_rows_SC has padding behind an event; pad it on the left with row 0")

    def __len__(self) -> int:
        return int(self.lengths_S.shape[0])


@dataclass(frozen=True)
class MergeSpec:
    """How slices are merged: what the keeper of the memories has to know.

    Args:
        kind: the way.
        num_rows: R.
        half_lives_ms: of the R rows where they are decayed means; else empty.
    """

    kind: MergeKind
    num_rows: int
    half_lives_ms: tuple[float, ...] = ()

    @property
    def enters_encoder(self) -> bool:
        """Whether the memory is read inside the encoder, by `SliceEncoder.recalled`, and not after it."""
        return self.kind == "tokens"


@dataclass(frozen=True)
class SliceCodes:
    """What an encoder makes of a `SliceBatch`, row by row.

    Args:
        codes_SD: float32, the autoencoder's code of each slice: what is merged into a user's memory.
        locals_SD: float32, the state at each slice's last event, without a memory: what a user vector starts from.
    """

    codes_SD: Float32Array
    locals_SD: Float32Array

    def __post_init__(self) -> None:
        _require(self.codes_SD, "codes_SD", np.float32, 2)
        _require(self.locals_SD, "locals_SD", np.float32, 2)
        if self.codes_SD.shape != self.locals_SD.shape:
            raise ValueError(f"codes_SD {self.codes_SD.shape} and locals_SD {self.locals_SD.shape} differ")


class SliceEncoder(Protocol):
    """A trained encoder, ready to use. Equal rows give equal bytes, whatever else is in the batch.

    Implementations: `runtime.SliceEncoderRuntime` (fast) and `reference.ReferenceEncoder` (its oracle).
    """

    @property
    def release(self) -> str:
        """Name and content hash; vectors of different releases must never meet."""

    @property
    def dim(self) -> int:
        """D, the length of codes, locals, user vectors and item vectors."""

    @property
    def slice_events(self) -> int:
        """L, the places of a slice."""

    @property
    def context_events(self) -> int:
        """C, the places for the events before a slice."""

    @property
    def merge(self) -> MergeSpec:
        """How the codes of a user's slices become the memory that `user_vectors` or `recalled` reads."""

    @property
    def half_lives_ms(self) -> Float64Array:
        """(H,) float64, the half-lives at which a user's slice codes are merged; empty for merges without any."""

    def rows_of(self, item_ids: Sequence[str]) -> Int64Array:
        """Vocabulary rows of item ids, 1 for those that training did not see."""

    def type_rows_of(self, names: Sequence[str]) -> Int64Array:
        """Vocabulary rows of event types, 1 for those that training did not see."""

    def encode(self, batch: SliceBatch) -> SliceCodes:
        """Codes and local states of slices; an empty batch gives empty arrays."""

    def recalled(self, batch: SliceBatch, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 local states of slices whose encoder attends to the user's memory as well.

        `merged_SRD` is the memory of the slices *before* each one; it is ignored where `has_merged_S` is false.

        Raises:
            ValueError: if the merge does not enter the encoder.
        """

    def carried(self, carried_D: Float32Array, code_D: Float32Array, weight: float, age_ms: int) -> Float32Array:
        """(D,) float32 carried vector after one more slice, from the one before (zeros at first).

        Args:
            carried_D: the vector before.
            code_D: code of the slice.
            weight: of the slice, above zero.
            age_ms: milliseconds from the end of the slice before to its own; 0 for the first.

        Raises:
            ValueError: if the merge is no "gate".
        """

    def user_vectors(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 user vectors out of local states and memories.

        `merged_SRD` is the memory of the slices *before* the local's own one; it is ignored where `has_merged_S` is
        false, and by merges that enter the encoder.
        """

    def item_vectors(self) -> tuple[list[str], Float32Array]:
        """Item ids and their (I, D) float32 vectors, to be asked by inner product with user vectors."""
