"""Dead letters: those that the role writes pass, and each that was tampered with is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from stream_app.audit.dead_letters import DeadLetters
from stream_app.audit.findings import Check
from stream_app.dead_letters import MAX_DEAD_BYTES
from stream_app.settings_rules import clean_rules
from stream_app.stages.intake import read_record
from tests.audit.cases import EVENTS, LETTERS, SETTINGS, Record, SequenceRole, new_check, run

GOOD = b'{"user_id":"u","item_id":"i","type":"click","ts":5}'
LOG = [
    Record(0, b"u", GOOD),
    Record(1, b"u", b"{"),
    Record(2, None, GOOD),
    Record(3, b"u", None),
    Record(4, b"u", b""),
    Record(5, b"u", b"x" * (MAX_DEAD_BYTES + 5)),
    Record(7, b"\xff", b"\x00"),
]
REFUSED = [1, 2, 3, 4, 5, 7]


def letters_of_role() -> list[Record]:
    """What the role makes of the log."""
    role = SequenceRole()
    role.take(run(LOG))
    return role.letters()


def audited(letters: Sequence[Record], *, begin: int = 0, up_to: int = 7) -> tuple[Check, DeadLetters]:
    """The findings about these letters, beside the log from `begin` on."""
    check = new_check()
    dead = DeadLetters(check, LETTERS, EVENTS, {0: 8, 1: 3}, ["items"])
    if letters:
        dead.take(run(letters, LETTERS))
    rest = run([record for record in LOG if record.offset >= begin])
    rules = clean_rules(SETTINGS)
    contents = [read_record(one.key, one.value, one.timestamp, one.headers, rules) for one in LOG[-len(rest) :]]
    dead.skip_removed(0, begin)
    dead.compare(rest, contents, up_to)
    return check, dead


def test_what_the_role_writes_passes() -> None:
    check, dead = audited(letters_of_role())
    assert (check.status, check.num_checked) == ("pass", len(REFUSED))
    assert sum(dead.reasons(0, 7).values()) == len(REFUSED)
    assert sum(dead.reasons(0, 3).values()) == 3
    assert (dead.newest_origin(0), dead.newest_origin(1)) == (7, -1)


def test_a_letter_that_was_written_twice_counts_once() -> None:
    letters = letters_of_role()
    check, dead = audited([*letters, *[again._replace(offset=again.offset + 10) for again in letters]])
    assert (check.status, sum(dead.reasons(0, 7).values())) == ("pass", len(REFUSED))


def test_letters_whose_originals_were_removed_are_not_checked() -> None:
    check, dead = audited(letters_of_role(), begin=4)
    assert (check.status, dead.num_removed) == ("partly checked", 3)


def test_letters_of_other_topics_are_left_to_others() -> None:
    letters = letters_of_role()
    check, dead = audited([*letters, with_header("topic", b"items")(letters[0])._replace(value=b"?")])
    assert (check.status, sum(dead.reasons(0, 7).values())) == ("pass", len(REFUSED))


def test_letters_that_are_not_due_yet_are_not_missed() -> None:
    assert audited([], up_to=-1)[0].status == "pass"


def with_header(name: str, value: bytes | None) -> Callable[[Record], Record]:
    """Another value of a header; None: none."""

    def change(letter: Record) -> Record:
        others = [header for header in letter.headers if header[0] != name]
        return letter._replace(headers=others if value is None else [*others, (name, value)])

    return change


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (with_header("class", None), "no header class"),
        (with_header("reason", b""), "no header reason"),
        (with_header("offset", None), "no header offset"),
        (with_header("topic", b"other"), "origin topic 'other'"),
        (with_header("offset", b"8"), f"origin {EVENTS}[0] offset 8"),
        (with_header("partition", b"4"), f"origin {EVENTS}[4]"),
        (with_header("offset", b"-1"), "origin '0', '-1'"),
        (with_header("null-value", b"true"), "other bytes"),
        (with_header("truncated-from-bytes", b"9"), "other bytes"),
        (with_header("truncated-from-bytes", b"many"), "other bytes"),
        (lambda letter: letter._replace(value=b"["), "other bytes"),
        (lambda letter: letter._replace(key=b"v"), "other bytes"),
        (lambda letter: letter._replace(key=None), "other bytes"),
        (with_header("offset", b"0"), "other bytes"),
    ],
)
def test_a_letter_that_was_tampered_with_is_named(damage: Callable[[Record], Record], seen: str) -> None:
    letters = letters_of_role()
    letters[0] = damage(letters[0])
    check, _ = audited(letters)
    assert any(seen in one.seen and (one.topic, one.offset) == (LETTERS, 0) for one in check.breaches), check.breaches


def test_letters_of_one_origin_with_different_bytes_are_named() -> None:
    letters = letters_of_role()
    check, _ = audited([*letters, letters[0]._replace(offset=50, value=b"[")])
    assert [breach.offset for breach in check.breaches] == [50]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_a_refused_event_without_a_letter_is_named(number: int) -> None:
    letters = letters_of_role()
    del letters[number]
    (breach,) = audited(letters)[0].breaches
    assert (breach.topic, breach.offset) == (EVENTS, REFUSED[number])
