"""A journal line must follow the one before it in both ways: by its number and by its digest."""

from dataclasses import replace

import pytest

from o3_lightning.store import journal as journal_module
from o3_lightning.store.journal import START, Entry, parse_journal


def entries():
    first = Entry(0, "create", "", {"store.json": "ab"}, "2026-01-01T00:00:00Z", START)
    second = Entry(1, "register", "one", {"request.json": "cd"}, "2026-01-01T00:00:01Z", first.digest)
    return first, second


def test_lines_that_follow_each_other_have_no_problem():
    journal = parse_journal(b"".join(entry.to_line() for entry in entries()))
    assert journal.problems == []
    assert [entry.event for entry in journal.entries] == ["create", "register"]


@pytest.mark.parametrize("change", [{"sequence": 2}, {"previous": "0" * 64}])
def test_a_line_that_follows_in_one_way_only_is_named(change):
    first, second = entries()
    journal = parse_journal(first.to_line() + replace(second, **change).to_line())
    assert len(journal.problems) == 1
    assert journal.problems[0].startswith("journal.jsonl:2: does not follow the line before it")


def test_only_new_lines_are_parsed_and_a_change_of_known_ones_is_noticed(monkeypatch):
    first, second = entries()
    third = Entry(2, "remove", "one", {}, "2026-01-01T00:00:02Z", second.digest)
    lines = [entry.to_line() for entry in (first, second, third)]
    earlier = parse_journal(b"".join(lines[:2]))
    changed = b"".join(lines).replace(b'"one"', b'"two"')
    assert parse_journal(changed, earlier).problems == parse_journal(changed).problems != []
    whole = parse_journal(b"".join(lines))
    monkeypatch.setattr(
        journal_module, "check_line", lambda raw, *_: ("", third) if raw + b"\n" == lines[2] else 1 / 0
    )
    assert parse_journal(b"".join(lines), earlier) == whole
    assert (list(earlier.current), list(whole.current)) == (["one"], [])
