"""A record is what it says, or it is refused with the field's name."""

import json

import pytest

from o3_lightning.common.errors import O3Error, StoreError
from o3_lightning.store.record import RequestRecord

GOOD = {
    "id": "a",
    "status": "protected",
    "rows": 2,
    "digest": "d",
    "configuration": {},
    "metrics": {"loss": 1.5},
}


def test_round_trip(tmp_path):
    record = RequestRecord(**GOOD)
    (tmp_path / "request.json").write_text(record.to_text())
    assert RequestRecord.read(tmp_path / "request.json") == record


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "gone"), ("rows", 0), ("rows", True), ("rows", "2"), ("digest", 1), ("configuration", []),
     ("metrics", {"loss": "low"}), ("id", "../up"), ("id", 3)],
)  # fmt: skip
def test_bad_field_is_named(tmp_path, field, value):
    (tmp_path / "request.json").write_text(json.dumps({**GOOD, field: value}))
    with pytest.raises(O3Error, match="request_id" if value == "../up" else f"field '{field}'"):
        RequestRecord.read(tmp_path / "request.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "[" * 100_000, json.dumps({**GOOD, "code": 1}), "1" * 10_000]
)
def test_other_content_is_refused(tmp_path, text):
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(StoreError, match=r"request.json: (is not JSON|expected an? )"):
        RequestRecord.read(tmp_path / "request.json")
