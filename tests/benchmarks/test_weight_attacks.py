"""The pooled table of attacks on weights."""

import json

from benchmarks.weight_attacks import pool


def test_attacks_are_averaged_over_requests_and_then_over_runs(tmp_path):
    for run, leaks in (("one", (0.0, 0.5)), ("two", (1.0, 1.0))):
        rows = [
            {"attack": "relearn", "member": None, "request": f"r{number}", "attempts": 4, "leak": leak,
             "base_leak": 1.0, "utility": 0.5, "base_utility": 1.0}
            for number, leak in enumerate(leaks)
        ]  # fmt: skip
        rows.append({"attack": "plain", "member": "test", "leak": 0.9})
        (tmp_path / run).mkdir()
        content = {"table": rows, "environment": {}, "settings": {"rows": 4}}
        (tmp_path / run / "robustness.json").write_text(json.dumps(content))
    found = pool([tmp_path / "one", tmp_path / "two"])
    assert list(found["table"]) == ["relearn"]
    row = found["table"]["relearn"]
    assert (row["leak"], row["leak_by_run"], row["worst_leak"]) == (0.625, {"one": 0.25, "two": 1.0}, 1.0)
    assert (row["facts"], row["utility"]) == (16, 0.5)
