"""The doctor's checks of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream_app import doctor
from stream_app.cli.doctor import line_of
from stream_app.doctor import (
    GIB,
    Check,
    check_disk,
    check_model,
    check_packages,
    check_state_folder,
    local_checks,
)
from stream_app.settings import Settings


def test_packages_are_named_with_their_versions() -> None:
    check = check_packages()
    assert check.status == "OK"
    assert all(name in check.detail for name in (*doctor.PACKAGES, "python", "faiss"))


def test_a_missing_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("msgspec", "no-such-package"))
    assert check_packages() == Check("packages", "FAIL", "not installed: no-such-package", "install the project anew")


def test_the_state_folder_may_be_there_or_be_made(tmp_path: Path) -> None:
    assert check_state_folder(tmp_path).status == "OK"
    assert not list(tmp_path.iterdir())
    assert "will be made" in check_state_folder(tmp_path / "a" / "b").detail
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "state"):
        check = check_state_folder(folder)
        assert (check.status, "no folder" in check.detail, bool(check.mend)) == ("FAIL", True, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert check_state_folder(tmp_path).status == "FAIL"
    assert check_state_folder(tmp_path / "state").status == "FAIL"


@pytest.mark.parametrize(("free_gib", "status"), [(0.5, "FAIL"), (1, "WARN"), (4.9, "WARN"), (5, "OK")])
def test_free_disk(tmp_path: Path, free_gib: float, status: str) -> None:
    assert check_disk(tmp_path / "not" / "yet", int(free_gib * GIB)).status == status


def test_the_model_folder(tmp_path: Path) -> None:
    assert check_model("").status == "WARN"
    assert check_model(str(tmp_path / "none")).status == "FAIL"
    assert check_model(str(tmp_path)).status == "FAIL"
    (tmp_path / "weights.safetensors").write_bytes(b"")
    assert check_model(str(tmp_path)).status == "OK"


def test_whatever_is_not_ok_says_what_mends_it(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path), model=str(tmp_path / "none"))
    for check in local_checks(settings):
        assert (check.status == "OK") != bool(check.mend), check


def test_a_finding_is_one_line() -> None:
    assert line_of(Check("disk", "OK", "72 GiB free")) == "OK    disk          72 GiB free"
    assert line_of(Check("disk", "FAIL", "Full.", "free some")) == "FAIL  disk          Full. To mend it: free some."
