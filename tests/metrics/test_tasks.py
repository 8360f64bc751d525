"""Entities, programs and numbers: what counts as right."""

import math

import pytest

from o3_lightning.metrics.likelihood import perplexity
from o3_lightning.metrics.registry import Evidence, measure
from o3_lightning.metrics.tasks import entity_f1, gsm8k, pass_at_1, passes


def test_entities_are_compared_type_by_type():
    truth = "PER: Ada Lovelace; PER: Bob; LOC: London"
    said = "PER: Ada Lovelace\nLOC: Rome; LOC: London"
    assert entity_f1([said], [truth], "PER") == [pytest.approx(2 / 3)]
    assert entity_f1([said], [truth], "LOC") == [pytest.approx(2 / 3)]
    assert entity_f1([said], [truth], "ORG") == [None]
    assert entity_f1(["nothing"], [truth], "PER") == [0.0]
    assert measure("entity_f1@PER", Evidence("keep", ["?"], [truth], answers=[truth])) == [1.0]


@pytest.mark.parametrize(
    ("answer", "right"),
    [("The result is 1,250.", 1.0), ("1250.0", 1.0), ("1250 or 7", 0.0), ("none", 0.0), ("-1250", 0.0)],
)
def test_the_last_number_is_the_answer(answer, right):
    assert gsm8k([answer], ["50 * 25 = 1250\n#### 1,250"]) == [right]
    assert gsm8k(["no number"], ["none"]) == [0.0]


TESTS = "assert add(1, 2) == 3"
CODE = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    ("prompt", "answer", "right"),
    [
        ("Add two numbers.", CODE, 1.0),
        ("Add two numbers.", f"Sure:\n```python\n{CODE}\n```\nDone.", 1.0),
        ("def add(a, b):\n", "    return a + b", 1.0),
        ("Add two numbers.", CODE.replace("+", "-"), 0.0),
        ("Add two numbers.", "def add(a, b)", 0.0),
        ("Add two numbers.", "import sys\ndef add(a, b): return 3\nsys.exit(0)", 0.0),
    ],
)
def test_a_program_is_right_if_it_passes_its_tests(prompt, answer, right):
    assert pass_at_1([prompt], [answer], [TESTS]) == [right]


def test_a_program_is_stopped_and_sees_no_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("O3_SECRET", "told")
    assert not passes("while True: pass", "", seconds=1)
    assert not passes("data = bytearray(2**31)", "")
    assert passes("import os", "assert 'O3_SECRET' not in os.environ")
    assert not passes("import torch", "")


def test_perplexity_is_the_exponential_of_the_loss():
    assert perplexity([0.0, math.log(7)]) == pytest.approx([1.0, 7.0])
    assert perplexity([1e4]) == [math.inf]
