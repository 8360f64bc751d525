"""The text that has to stay is halved fairly."""

from o3_lightning.release.bench import halves
from o3_lightning.requests import QuestionAnswer


def test_rows_that_alternate_between_kinds_are_in_both_halves():
    rows = [QuestionAnswer(f"{kind} {number}?", "a") for number in range(20) for kind in ("name", "fact")]
    kept, judged = halves(rows, 0)
    assert sorted(row.prompt for row in (*kept, *judged)) == sorted(row.prompt for row in rows)
    assert len(kept) == len(judged)
    for half in (kept, judged):
        assert 5 <= sum(row.prompt.startswith("name") for row in half) <= 15
    assert halves(rows, 0) == (kept, judged)
    assert halves(rows, 1) != (kept, judged)


def test_two_rows_are_one_each():
    assert [len(half) for half in halves([QuestionAnswer("a", "b"), QuestionAnswer("c", "d")], 0)] == [1, 1]
