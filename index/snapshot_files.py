"""The arrays of a snapshot.

Shape suffixes: N items, B bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from index.contract import AttributeColumns, IndexContents, Partition

_TEXTS: Final = ("ids", "told_ids", "categories")
_PARTITION: Final = ("centres", "parts")
_ARRAYS: Final = ("vectors", "queries", "codes", "prices", "available", *_PARTITION)

FILES: Final = frozenset(
    [f"{name}.npy" for name in _ARRAYS] + [f"{name}_{part}.npy" for name in _TEXTS for part in ("text", "lengths")]
)
"""All files of a snapshot but its manifest."""


def write_contents(folder: Path, contents: IndexContents) -> None:
    """Write all arrays into an empty folder."""
    told = contents.attributes
    arrays: dict[str, npt.NDArray[Any]] = {
        "vectors": contents.vectors_ND,
        "codes": told.codes_NC,
        "prices": told.prices_N,
        "available": told.available_N,
    }
    if contents.partition is not None:
        arrays |= {"centres": contents.partition.centres_PD, "parts": contents.partition.parts_N}
    if contents.queries_SD is not None:
        arrays |= {"queries": contents.queries_SD}
    for name, array in arrays.items():
        _write(folder, name, array)
    for name, texts in zip(_TEXTS, (contents.ids, told.ids, told.names), strict=True):
        _write_texts(folder, name, texts)


def read_contents(folder: Path, release: str, names: frozenset[str]) -> IndexContents:
    """Read all arrays.

    Args:
        folder: The snapshot's.
        release: The release of the vectors.
        names: The files that there are.

    Raises:
        OSError, ValueError: A file is not there, or no array.
    """
    ids, told_ids, categories = (_read_texts(folder, name) for name in _TEXTS)
    attributes = AttributeColumns(
        told_ids,
        categories,
        _read(folder, "codes", np.int32),
        _read(folder, "prices", np.float64),
        _read(folder, "available", np.bool_),
    )
    partition = None
    if {f"{name}.npy" for name in _PARTITION} <= names:
        partition = Partition(_read(folder, "centres", np.float32), _read(folder, "parts", np.int32))
    queries_SD = _read(folder, "queries", np.float32) if "queries.npy" in names else None
    return IndexContents(release, ids, _read(folder, "vectors", np.float32), attributes, partition, queries_SD)


def _write(folder: Path, name: str, array: npt.NDArray[Any]) -> None:
    np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _read(folder: Path, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    array = np.load(folder / f"{name}.npy", allow_pickle=False)
    if array.dtype != dtype:
        raise ValueError(f"{name} holds {array.dtype}, expected {np.dtype(dtype)}")
    return np.asarray(array)


def _write_texts(folder: Path, name: str, texts: Sequence[str]) -> None:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    _write(folder, f"{name}_text", np.frombuffer(b"".join(encoded), dtype=np.uint8))
    _write(folder, f"{name}_lengths", np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)))


def _read_texts(folder: Path, name: str) -> list[str]:
    text = _read(folder, f"{name}_text", np.uint8).tobytes()
    lengths_N = _read(folder, f"{name}_lengths", np.int64)
    ends = np.cumsum(lengths_N).tolist()
    if (lengths_N < 0).any() or (ends[-1] if ends else 0) != len(text):
        raise ValueError(f"the lengths of {name} do not add up to its bytes")
    bounds = pairwise([0, *ends])
    if text.isascii():  # As most ids are: then places in the text are those in the bytes, and one decoding is enough.
        whole = text.decode("ascii")
        return [whole[start:end] for start, end in bounds]
    return [text[start:end].decode("utf-8", "surrogatepass") for start, end in bounds]
