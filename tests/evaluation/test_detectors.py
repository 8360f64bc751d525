"""The table of the detectors: which prompts are compared, and the fixed sign."""

import pytest
import torch

from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.detectors import evaluate_detectors


class LengthDetectors:
    """Scores a prompt by how often it says the request's letter."""

    ids = ("a", "b")

    def judge(self, prompts):
        scores = torch.tensor([[float(prompt.count(name)) for name in self.ids] for prompt in prompts])
        return scores, scores.clamp(0, 1)


def request(letter):
    return UnlearningRequest(letter, (QuestionAnswer(letter * 3, "x", held_out_prompts=(letter * 2,)),))


STREAM = RequestStream(
    "test", (request("a"), request("b")), {"kept": (QuestionAnswer("z", "x"),)}, {"near": ("aaaa", "z")}
)


def test_each_request_is_compared_with_every_other_prompt():
    table, weights = evaluate_detectors(LengthDetectors(), STREAM)
    assert set(table["a"]) == {"seen", "held_out", "other_requests", "other_held_out", "kept", "near"}
    assert table["a"]["other_requests"]["auroc"] == 1.0
    assert table["a"]["seen"]["auroc"] is None
    assert table["a"]["seen"]["mean_weight"] == 1.0
    assert weights["a"]["near"] == [1.0, 0.0]


def test_a_score_that_points_the_wrong_way_stays_below_chance():
    table, _ = evaluate_detectors(LengthDetectors(), STREAM)
    assert table["a"]["near"]["auroc"] == pytest.approx(0.5)
    assert table["a"]["near"]["fpr95"] == 0.5


def test_others_are_compared_with_held_out_prompts_where_there_are_any():
    plain = UnlearningRequest("b", (QuestionAnswer("bbb", "x"),))
    probes = {"close": ("azaz", "bzbz")}  # as far as the held-out prompts of "a", farther than seen ones
    table, _ = evaluate_detectors(LengthDetectors(), RequestStream("test", (request("a"), plain), {}, probes))
    assert table["a"]["close"]["auroc"] == 0.75
    assert table["b"]["close"]["auroc"] == 1.0
