"""What the documents say of roles, topics and settings is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from stream_app.lag import group_name
from stream_app.roles import ROLE_INPUTS, ROLES
from stream_app.settings import KafkaSettings, Settings
from stream_app.topics import TABLE_GROUPS, changelog_name, topic_specs

ROOT = Path(__file__).parents[2]
DOCS = ("operations.md", "security.md", "alerts.md")
TABLE_MODULE = re.compile(r"table=tables\.([A-Z_]+)")


def acl_rows() -> dict[str, list[str]]:
    """The cells of the table of rights, by role."""
    rows = {}
    for line in (ROOT / "docs" / "security.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].strip("`") in ROLES:
            rows[cells[0].strip("`")] = cells
    return rows


def changelog_of(role: str) -> str:
    """The changelog of a role's table, as its wiring names it."""
    text = (ROOT / "stream_app" / "wiring" / f"{role}.py").read_text()
    (constant,) = TABLE_MODULE.findall(text)
    name = constant.lower().replace("_", "-")
    assert name in TABLE_GROUPS
    return changelog_name("", name)


def test_each_role_may_read_its_input_and_keep_its_table_under_its_own_name() -> None:
    rows = acl_rows()
    assert set(rows) == set(ROLES)
    for role, (_, reads, writes, group, ids) in rows.items():
        assert f"`{ROLE_INPUTS[role]}`" in reads
        assert f"`{changelog_of(role)}`" in reads
        assert f"`{changelog_of(role)}`" in writes
        assert group == f"`P{group_name(Settings(), role)}`"
        assert ids == f"`P{group_name(Settings(), role)}:`"


def test_each_role_may_write_what_its_wiring_names() -> None:
    known = {spec.name for spec in topic_specs("", 1)}
    for role, (_, reads, writes, _, _) in acl_rows().items():
        granted = set(re.findall(r"`([a-z-]+)`", reads + writes))
        assert granted <= known
        text = (ROOT / "stream_app" / "wiring" / f"{role}.py").read_text()
        named = {name.lower().replace("_", "-") for name in re.findall(r"topics\.([A-Z_]+)", text)}
        # The dead letters have a shorter name in the code.
        named = {"events-dead-letter" if name == "dead-letter" else name for name in named}
        assert named <= granted, role


def test_settings_and_files_that_are_named_exist() -> None:
    fields = {*Settings.__struct_fields__, *(f"kafka.{name}" for name in KafkaSettings.__struct_fields__)}
    for name in DOCS:
        text = (ROOT / "docs" / name).read_text()
        for setting in re.findall(r"`((?:kafka\.|(?:serve|metrics|store|score|drift)_)[a-z_]+)(?: = [^`]+)?`", text):
            assert setting in fields, f"{name}: {setting}"
        for path in re.findall(r"`((?:docs|deploy|bench|examples)/[^`*]+)`", text):
            assert (ROOT / path).exists(), f"{name}: {path}"
