"""The verbs of `requests`, and the table they print."""

import json

import pytest

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.store.commands import format_records, run_store_command
from o3_lightning.store.record import RequestRecord


def test_list_is_a_table_with_one_line_a_request(store):
    lines = run_store_command(store.path, "list").splitlines()
    assert lines[0].split() == ["request", "status", "rows", "digest", "metrics"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["done", "unlearned", "3"],
        ["covered", "protected", "3"],
        ["noted", "registered", "3"],
        ["back", "revoked", "3"],
    ]
    assert lines[1].endswith("loss=0.5")
    assert (
        len(
            {
                line.index(word)
                for line, word in zip(lines, ("status", "unlearned", "protected"), strict=False)
            }
        )
        == 1
    )


def test_table_of_nothing_says_so():
    assert format_records([]) == "no requests"


def test_table_grows_with_its_cells():
    wide = RequestRecord("a" * 60, "protected", 123456789, "0" * 64)
    head, line = format_records([wide]).splitlines()
    assert head.index("status") == line.index("protected") == 62


def test_verbs_change_the_store(store):
    assert run_store_command(store.path, "revoke", "done") == "done: revoked"
    assert store.record("done").status == "revoked"
    assert run_store_command(store.path, "restore", "done") == "done: unlearned"
    assert run_store_command(store.path, "remove", "done") == "done: removed"
    assert [record.id for record in store.records()] == ["covered", "noted", "back"]


def test_show_tells_record_and_history(store):
    shown = json.loads(run_store_command(store.path, "show", "back"))
    assert (shown["status"], shown["metrics"]) == ("revoked", {"loss": 0.5})
    assert [line.split()[1] for line in shown["history"]] == ["register", "protect", "unlearn", "revoke"]


def test_verify_is_quiet_about_a_good_store_and_names_damage(store):
    assert "every byte" in run_store_command(store.path, "verify")
    (store.path / "requests/done/detector.json").write_text("x")
    (store.path / "stray").write_text("x")
    with pytest.raises(StoreError, match=r"2 damaged: stray: added.*; requests/done/detector.json: changed"):
        run_store_command(store.path, "verify")


def test_verify_promises_nothing_where_there_is_no_journal(store, tmp_path):
    (store.path / "journal.jsonl").unlink()
    for path in (store.path, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match=r"journal\.jsonl: missing; .* none that can be checked$"):
            run_store_command(path, "verify")


@pytest.mark.parametrize(
    ("verb", "request_id", "message"),
    [
        ("burn", None, "expected one of list, show"),
        ("show", None, "needs the id of a request"),
        ("list", "done", "takes no request"),
        ("revoke", "ghost", "no request 'ghost'"),
    ],
)
def test_wrong_use_is_told(store, verb, request_id, message):
    with pytest.raises(InputError, match=message):
        run_store_command(store.path, verb, request_id)
