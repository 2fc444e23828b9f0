"""Snapshots of an index on disk, published whole or not at all.

A snapshot is a folder ``snapshot-NUMBER`` with arrays (``.npy``, never pickled) and a ``manifest.json`` that says what
is in them, with the SHA-256 of each file and of itself. It is written under another name, synced to the disk, and then
renamed; a crash at any moment leaves either no snapshot or a whole one. One process at a time may write to a folder.

Texts are UTF-8 in one array and their lengths in another, so that any text comes back, unpaired surrogates too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from index.checks import check_contents
from index.contract import IndexContents, ItemIndex
from index.errors import DamagedSnapshotError, ItemIndexError, NoSnapshotError
from index.snapshot_files import FILES, read_contents, write_contents

FORMAT: Final = 1
PREFIX: Final = "snapshot-"
UNFINISHED: Final = ".unfinished-"
"""Of folders that are being written or deleted: whoever finds one while writing may remove it."""
MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, eq=False, slots=True)
class LoadedSnapshot:
    """A snapshot read from disk, checked.

    Attributes:
        name: Its folder's.
        contents: What is in it.
        positions: What the writer said of how far the contents reach.
        damaged: Newer ones that were refused, newest first.
        others: Names of newer ones of another release.
    """

    name: str
    contents: IndexContents
    positions: Mapping[str, Any]
    damaged: list[DamagedSnapshotError]
    others: list[str]


def save(index: ItemIndex, folder: Path, positions: Mapping[str, Any], *, keep: int = 3) -> Path:
    """Write what is in the index now as the newest snapshot.

    Args:
        index: Goes on answering meanwhile.
        folder: Of the snapshots; made where it is not there.
        positions: How far the contents reach (offsets of topics, say); plain JSON. To be taken before this call: the
            contents
            may hold more than what it says, and not less.
        keep: So many snapshots stay, the newest.

    Returns:
        The snapshot's folder.

    Raises:
        OSError: The disk is full, or the like; there is no new snapshot then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left)
    written = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
    try:
        _write(written, index.contents(), positions)
        published = folder / f"{PREFIX}{_newest_number(folder) + 1:012d}"
        written.rename(published)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        raise
    _sync(folder)
    for old in sorted(folder.glob(f"{PREFIX}*"))[: -max(1, keep)]:
        # Renamed first: what is half deleted must not be taken for a damaged snapshot.
        shutil.rmtree(old.rename(folder / f"{UNFINISHED}{old.name}"))
    return published


def load_newest(folder: Path, release: str) -> LoadedSnapshot:
    """Read the newest good snapshot of a release.

    Raises:
        NoSnapshotError: There is none; names those that were refused.
    """
    damaged: list[DamagedSnapshotError] = []
    others: list[str] = []
    for found in sorted(folder.glob(f"{PREFIX}*"), reverse=True):
        try:
            manifest = _manifest(found)
            if manifest["release"] != release:
                others.append(found.name)
                continue
            return LoadedSnapshot(found.name, _read(found, manifest), manifest["positions"], damaged, others)
        except DamagedSnapshotError as error:
            damaged.append(error)
    told = [error.message for error in damaged] + [f"{name} is of another release." for name in others]
    raise NoSnapshotError(
        " ".join([f"There is no snapshot of release {release!r} in {folder}.", *told]),
        mend="start with an empty index.",
    )


def load(index: ItemIndex, folder: Path) -> LoadedSnapshot:
    """Put the newest good snapshot of the index's release in place of what is in it.

    Raises:
        NoSnapshotError: As `load_newest`. ItemIndexError: As `ItemIndex.swap`.
    """
    loaded = load_newest(folder, index.release)
    index.swap(loaded.contents)
    return loaded


def _write(folder: Path, contents: IndexContents, positions: Mapping[str, Any]) -> None:
    write_contents(folder, contents)
    manifest = {
        "format": FORMAT,
        "release": contents.release,
        "count": len(contents.ids),
        "dim": contents.vectors_ND.shape[1],
        "positions": dict(positions),
        "files": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": _own_sha256(manifest)}, indent=1), "ascii")
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _manifest(folder: Path) -> dict[str, Any]:
    """A snapshot's manifest, checked against itself."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        told = manifest.pop("sha256")
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DamagedSnapshotError(folder.name, f"{MANIFEST} cannot be read ({error})") from error
    if told != _own_sha256(manifest):
        raise DamagedSnapshotError(folder.name, f"{MANIFEST} is not what was written")
    if manifest["format"] != FORMAT:
        raise DamagedSnapshotError(folder.name, f"it has format {manifest['format']}, expected {FORMAT}")
    return dict(manifest)


def _read(folder: Path, manifest: Mapping[str, Any]) -> IndexContents:
    if not set(manifest["files"]) <= FILES:
        raise DamagedSnapshotError(folder.name, "it has files of names that are unknown")
    for name, told in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedSnapshotError(folder.name, f"{name} is not there")
        if _sha256(path) != told:
            raise DamagedSnapshotError(folder.name, f"{name} is not what was written")
    try:
        contents = read_contents(folder, manifest["release"], frozenset(manifest["files"]))
        check_contents(contents, dim=manifest["dim"], release=manifest["release"])
    except (OSError, ValueError, KeyError, IndexError, ItemIndexError) as error:
        raise DamagedSnapshotError(folder.name, f"its arrays cannot be read ({error})") from error
    if len(contents.ids) != manifest["count"]:
        raise DamagedSnapshotError(folder.name, f"it has {len(contents.ids)} items, expected {manifest['count']}")
    return contents


def _newest_number(folder: Path) -> int:
    names = [path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_sha256(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode("ascii")).hexdigest()


def _sync(path: Path) -> None:
    """Have the disk hold a file, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
