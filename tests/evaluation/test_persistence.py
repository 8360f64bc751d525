"""Persistence matrices: their form, and requests that lack a split or a metric."""

from o3_lightning.evaluation.persistence import (
    backward_transfers,
    persistence_matrices,
    utility_ratio,
    utility_series,
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


def test_backward_transfer_tells_what_came_back():
    transfers = backward_transfers(persistence_matrices(["a", "b"], MEASURED))
    assert transfers["accuracy"] == {"seen": 0.5, "held_out": None}


def test_utility_ratio_reads_accuracy_alone():
    matrices, series = persistence_matrices(["a", "b"], MEASURED), utility_series(MEASURED)
    assert series == {"accuracy": {"kept": [1.0, 1.0, 0.9]}}
    assert abs(utility_ratio(matrices, series) - (0.5 + 0.0 + 1.0) / 3 / 0.1) < 1e-9
    assert utility_ratio({}, series) is None
