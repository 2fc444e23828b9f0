"""One broker per data folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stream_app.broker.errors import FolderInUseError
from stream_app.broker.lock import FolderLock, Holder, read_holder

HOLDER = Holder(pid=12, since="2026-01-02T03:04:05+00:00", kafka_pid=34, port=5678, controller_port=9)


def test_a_second_one_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "broker.lock"
    lock = FolderLock.acquire(path)
    lock.record(HOLDER)
    with pytest.raises(FolderInUseError) as caught:
        FolderLock.acquire(path)
    for fact in (str(tmp_path), "12", "34", "5678", HOLDER.since):
        assert fact in str(caught.value)
    lock.release()
    FolderLock.acquire(path).release()


def test_a_holder_that_said_nothing_yet_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "broker.lock"
    lock = FolderLock.acquire(path)
    with pytest.raises(FolderInUseError, match="just starting"):
        FolderLock.acquire(path)
    lock.release()


def test_what_was_recorded_stays_readable_after_the_release(tmp_path: Path) -> None:
    path = tmp_path / "broker.lock"
    lock = FolderLock.acquire(path)
    lock.record(Holder(pid=1, since="a much longer text than the one that follows" * 3))
    lock.record(HOLDER)
    lock.release()
    assert read_holder(path) == HOLDER


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"pid": "x"}'])
def test_a_file_that_says_nothing_is_no_holder(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broker.lock"
    if content is not None:
        path.write_bytes(content)
    assert read_holder(path) is None


def test_the_lock_lives_as_long_as_the_process_that_inherited_it(tmp_path: Path) -> None:
    path = tmp_path / "broker.lock"
    lock = FolderLock.acquire(path)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.descriptor])
    os.close(lock.descriptor)  # as when the starting process dies: nobody unlocks
    with pytest.raises(FolderInUseError):
        FolderLock.acquire(path)
    child.communicate()
    FolderLock.acquire(path).release()
