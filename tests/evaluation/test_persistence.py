"""Persistence matrices: their form, and requests that lack a split or a metric."""

import csv

import pytest

from o3_lightning.evaluation.figures import (
    backward_transfers,
    combine,
    official_series,
    persistence_matrices,
    unreadable_answers,
    utility_ratio,
    utility_series,
)
from o3_lightning.evaluation.tables import as_csv, as_lines
from o3_lightning.reporting.outcome import (
    official_fold,
    persistence_section,
    unreadable_fold,
    utility_section,
)


def stage(first, second, utility=1.0):
    held = {"held_out": {"aggregate": {"accuracy": second}}} if second is not None else {}
    return {
        "requests": {
            "a": {"seen": {"aggregate": {"accuracy": first}}},
            "b": {"seen": {"aggregate": {"accuracy": 1.0, "truth_ratio": 0.5}}, **held},
        },
        "utility": {"kept": {"aggregate": {"accuracy": utility}}},
    }


MEASURED = [stage(1.0, 1.0), stage(0.0, 1.0), stage(0.5, 0.0, 0.9)]


def test_values_are_request_by_column_and_none_where_not_measured():
    matrices = persistence_matrices(["a", "b"], MEASURED)
    assert matrices["accuracy"]["seen"]["values"] == [[1.0, 0.0, 0.5], [1.0, 1.0, 1.0]]
    assert matrices["accuracy"]["seen"]["columns"] == ["base", "a", "b"]
    assert matrices["accuracy"]["held_out"]["values"] == [[None] * 3, [1.0, 1.0, 0.0]]
    assert matrices["truth_ratio"]["seen"]["values"][0] == [None] * 3


def test_a_utility_that_some_column_lacks_is_left_out():
    lost = stage(0.5, 0.0)
    lost["utility"]["kept"]["aggregate"] = {}
    assert utility_series(MEASURED) == {"accuracy": {"kept": [1.0, 1.0, 0.9]}}
    assert utility_series([*MEASURED[:2], lost]) == {}


def test_backward_transfer_tells_what_came_back():
    transfers = backward_transfers(persistence_matrices(["a", "b"], MEASURED))
    assert transfers["accuracy"] == {"seen": 0.5, "held_out": None}


def test_utility_ratio_reads_accuracy_alone():
    matrices, series = persistence_matrices(["a", "b"], MEASURED), utility_series(MEASURED)
    assert series == {"accuracy": {"kept": [1.0, 1.0, 0.9]}}
    assert abs(utility_ratio(matrices, series) - (0.5 + 0.0 + 1.0) / 3 / 0.1) < 1e-9
    assert utility_ratio({}, series) is None


def answered(seen, test, kept, task, metric="accuracy"):
    def part(values):
        return {"values": {metric: values}, "aggregate": {}}

    own = {name: {"seen": part(rows), "held_out": part([1.0])} for name, rows in seen.items()}
    for name, rows in test.items():
        own[name]["test"] = part(rows)
    utility = {"kept": part(kept), "facts": part(task)}
    return {"requests": own, "utility": utility, "other_tasks": ["facts"]}


def test_accuracies_of_o3_count_the_requests_so_far_and_tell_tasks_from_kept_subjects():
    ones = [1.0, 1.0]
    measured = [
        answered({"a": ones, "b": [1.0]}, {"a": ones}, ones, ones),
        answered({"a": [0.0, 0.0], "b": [1.0]}, {"a": [0.0, 1.0]}, ones, [1.0, 0.0]),
        answered({"a": [0.0, 1.0], "b": [None]}, {"a": [0.0, 0.0]}, ones, ones),
    ]
    first, second = official_series(["a", "b"], measured)
    assert first == {
        "seen": [1.0, 0.0],
        "held_out": [1.0, 0.5],
        "retained": [1.0, 1.0],
        "facts": [1.0, 0.5],
        "u2r": 3.0,  # (1 + .5) / 2 over (0 + .5) / 2
    }
    assert second["seen"] == [1.0, 0.5]  # b's answer cannot be read
    assert second["held_out"] == [1.0, 1 / 3]  # two test rows of a, one other wording of b
    assert second["u2r"] == pytest.approx((1 / 2 + 2 / 3) / 2 / 0.01)
    combined = combine(measured[1])["official"]
    assert combined["retained"]["groups"] == {"kept": 1.0}
    assert combined["utility"]["groups"] == {"facts": 0.5}
    page = official_fold({"requests": ["a", "b"], "official": [first, second]})[0].blocks[0]
    assert page.rows[0] == ["a", "1.000 → 0.000", "1.000 → 0.500", "1.000 → 1.000", "1.000 → 0.500", "3.0"]


def test_a_choice_that_names_no_option_is_wrong_in_the_accuracies_of_o3():
    ones, choice = [1.0, 1.0], "multiple_choice"
    measured = [
        answered({"a": ones}, {"a": ones}, ones, ones, choice),
        answered({"a": [None, None]}, {"a": [None, 1.0]}, [None, 1.0], [None, None], choice),
    ]
    (after,) = official_series(["a"], measured)
    assert after == {
        "seen": [1.0, 0.0],
        "held_out": [1.0, 0.5],
        "retained": [1.0, 0.5],
        "facts": [1.0, 0.0],
        "u2r": 1.0,
    }
    assert combine(measured[1])["official"]["seen"]["unparseable"] == 2


def judged(values):
    return {"seen": {"aggregate": {}, "values": {"multiple_choice": values, "accuracy": [0.0, 0.0]}}}


def test_answers_that_name_no_option_are_counted_apart_in_every_column():
    stages = [
        {"requests": {"a": judged(values)}, "utility": {"kept": judged([1.0, 1.0])["seen"]}}
        for values in ([1.0, 0.0], [None, 0.0], [None, None])
    ]
    found = unreadable_answers(stages)
    assert found == {"a": {"seen": {"multiple_choice": {"count": [0, 1, 2], "rows": 2}}}}
    (fold,) = unreadable_fold({"requests": ["a", "b"], "unreadable": found})
    (table,) = fold.blocks
    assert table.rows == [["a, seen", "Multiple choice", "2", "0", "1", "2"]]
    assert unreadable_fold({"requests": ["a"], "unreadable": {}}) == []


def test_cells_of_the_report_say_which_answers_were_not_read():
    lost = {"multiple_choice": {"count": [0, 1, 2], "rows": 2}}
    matrix = {"rows": ["a"], "columns": ["base", "a", "b"], "values": [[0.5, 1.0, None]]}
    metrics = {
        "requests": ["a", "b"],
        "persistence": {"multiple_choice": {"seen": matrix}},
        "utility_metrics": {"multiple_choice": {"kept": [1.0, 0.5, 1.0]}},
        "unreadable": {"a": {"seen": lost}, "utility": {"other": lost}},
    }
    heat = persistence_section(metrics).blocks[0].blocks[0].blocks[0]
    ((_, cells),) = heat.rows
    assert [cell.text for cell in cells] == ["0.500", "1.000 (1 of 2 unreadable)", "unreadable"]
    (table,) = utility_section(metrics).blocks[1].blocks
    assert table.rows == [
        ["Kept", "1.000", "0.500", "1.000"],
        ["Other", "–", "– (1 of 2 unreadable)", "unreadable"],
    ]


def test_the_evaluation_table_tells_how_many_answers_were_not_read():
    part = {"aggregate": {"multiple_choice": 1.0}, "intervals": {"multiple_choice": (0.2, 1.0, "wilson")}}
    part |= {"values": {"multiple_choice": [1.0, None, None]}, "count": 3}
    none = {"aggregate": {}, "intervals": {}, "values": {"multiple_choice": [None, None]}, "count": 2}
    result = {"requests": {"a": {"seen": none}}, "utility": {"kept": part}}
    first, second = as_lines(result)
    assert first.split("  ", 1)[1].strip() == "multiple_choice - (2 of 2 unreadable)"
    assert second.endswith("multiple_choice 1.000 (2 of 3 unreadable)")
    header, *rows = csv.reader(as_csv(result).splitlines())
    numbers = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["aggregate"], row["count"], row["unreadable"]) for row in numbers] == [
        ("", "0", "2"),
        ("1.0", "1", "2"),
    ]
