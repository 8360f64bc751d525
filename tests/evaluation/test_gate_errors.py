"""Misses, false alarms, confusion and calibration from given weights."""

import pytest

from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.detectors import gate_errors

STREAM = RequestStream(
    "made",
    (
        UnlearningRequest("a", (QuestionAnswer("a one", "x", ("a held",)), QuestionAnswer("a two", "x"))),
        UnlearningRequest("b", (QuestionAnswer("b one", "x"),)),
    ),
    {"kept": (QuestionAnswer("k one", "x"), QuestionAnswer("k two", "x"))},
    {"odd": ("o one",)},
)
WEIGHTS = {
    "a": {"seen": [1.0, 0.25], "held_out": [0.4], "other_requests": [0.75], "kept": [0.0, 0.5], "odd": [0.9]},
    "b": {
        "seen": [0.5],
        "other_requests": [0.0, 0.8],
        "other_held_out": [0.3],
        "kept": [0.0, 0.0],
        "odd": [0.0],
    },
}


def test_prompts_on_the_wrong_side_are_listed_worst_first():
    found = gate_errors(STREAM, WEIGHTS, 10)["mistakes"]
    assert [(row["prompt"], row["weight"]) for row in found["a"]] == [
        ("a two", 0.25),
        ("a held", 0.4),
        ("o one", 0.9),
        ("b one", 0.75),
        ("k two", 0.5),
    ]
    assert [row["prompt"] for row in found["b"]] == ["a two"]


def test_as_many_are_listed_as_asked_and_none_at_zero():
    assert [row["prompt"] for row in gate_errors(STREAM, WEIGHTS, 1)["mistakes"]["a"]] == ["a two", "o one"]
    assert gate_errors(STREAM, WEIGHTS, 0)["mistakes"] == {"a": [], "b": []}


def test_confusion_counts_held_out_prompts_and_seen_ones_where_there_are_none():
    confusion = gate_errors(STREAM, WEIGHTS, 0)["confusion"]
    assert confusion["rows"] == ["a", "b", "utility"]
    assert confusion["columns"] == ["a", "b", "none"]
    assert confusion["values"] == [[0, 0, 1], [1, 0, 0], [1, 0, 1]]


def test_a_utility_prompt_is_a_false_alarm_where_it_is_taken_for_a_request():
    found = gate_errors(STREAM, WEIGHTS, 10)
    kept = sum(row["split"] == "kept" for rows in found["mistakes"].values() for row in rows)
    assert kept == sum(found["confusion"]["values"][-1][:-1]) == 1


def test_calibration_error_compares_own_prompts_with_all_others():
    errors = gate_errors(STREAM, WEIGHTS, 0)["calibration"]
    # b: weights 0.5 (own); 0, 0.8, 0.3, 0, 0, 0 (others); each side has half of the mass
    assert errors["b"] == pytest.approx(0.5 * 0.5 + 0.5 / 6 * (0.8 + 0.3))
