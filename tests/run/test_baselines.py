"""Baselines at inference: rules in the context, a prompt guard, corrupted prompts; each in a run as well."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks.baselines import PromptGuard
from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.detector import Detector, DetectorConfig, MultiDetector, fit_detector
from o3_lightning.run.config import BASELINES, RunConfig
from o3_lightning.run.unlearner import Unlearner
from tests.run.test_pipeline import QUICK, start, words_for

PLUGIN = "benchmarks.baselines"
NAMED, OTHER = "Where was Torvald Ekmansgard born?", "What do bees make?"


@pytest.fixture(scope="module")
def unlearner(tiny_base, remembering_encoder, tmp_path_factory):
    prompts = (NAMED, "When was Torvald Ekmansgard born?", "Who taught Torvald Ekmansgard?")
    request = UnlearningRequest("torvald", tuple(QuestionAnswer(prompt, "Oslo") for prompt in prompts))
    config = RunConfig(refuse_only=True, baseline="rules")
    folder = tmp_path_factory.mktemp("baselines") / "store"
    made = Unlearner(tiny_base, folder, config, {"accelerator": "cpu"}, encoder=remembering_encoder)
    made.protect(request)
    return made, [request]


def test_rules_name_the_subject_before_every_prompt_and_nothing_is_refused(unlearner):
    model = BASELINES["rules"](*unlearner)
    text = model.base.template.format(OTHER)
    assert text.startswith("Do not answer questions about Torvald Ekmansgard.")
    assert text.endswith(unlearner[0].base.template.format(OTHER))
    assert not model.plan([NAMED]).refused.any()


def test_a_prompt_guard_refuses_where_the_model_prefers_yes():
    def score(prompts, answers):  # two tokens an answer
        yes = ["ann" in prompt for prompt in prompts]
        return [
            torch.tensor([-1.0, -1.0]) if (word == "Yes") == found else torch.tensor([-3.0, 0.0])
            for word, found in zip(answers, yes, strict=True)
        ]

    guard = PromptGuard(("a", "b"), ("ann", "bob"), SimpleNamespace(score=score))
    assert guard.weights(["who?", "where?", "when?"]).tolist() == [[1, 0]] * 3


def test_only_matching_prompts_are_corrupted_whatever_else_is_in_the_batch(unlearner):
    model, base = BASELINES["corruption"](*unlearner), unlearner[0].base.model
    pairs = [NAMED, OTHER], ["Oslo", "Honey"]
    plain, found = unlearner[0].gated_model(()).score(*pairs), model.score(*pairs)
    assert not torch.allclose(found[0], plain[0], atol=1e-2)
    torch.testing.assert_close(found[1], plain[1])
    torch.testing.assert_close(model.score(pairs[0][:1], pairs[1][:1])[0], found[0])
    assert model.answer([NAMED, OTHER], 4)[1] == unlearner[0].gated_model(()).answer([OTHER], 4)[0]
    assert not base.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("name", ["rules", "prompt_guard", "corruption"])
@pytest.mark.usefixtures("loaded")
def test_a_run_measures_a_baseline_and_trains_nothing(name, tmp_path):
    folder = start(
        [*words_for(tmp_path), *QUICK, "--refuse_only", "true", "--plugin", PLUGIN, "--baseline", name]
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    before, after = metrics["persistence"]["probability"]["seen"]["values"][0][:2]
    assert before != after
    assert not metrics["adapters"]


def test_a_baseline_trains_no_adapter_and_has_a_known_name():
    with pytest.raises(InputError, match="refuse_only"):
        RunConfig(baseline="rules")
    with pytest.raises(InputError, match=r"expected one of .*rules, prompt_guard, corruption, got 'eco'"):
        RunConfig(refuse_only=True, baseline="eco")


def test_the_sentence_gate_of_curate_knows_prompts_that_are_as_close_as_its_cosine(
    remembering_encoder, tmp_path
):
    forget = [f"Where did Torvald Ekmansgard spend winter {number}?" for number in range(6)]
    detector = fit_detector(remembering_encoder, forget, DetectorConfig(preset="curate"), seed=0)
    detector.save(tmp_path)
    multi = MultiDetector(remembering_encoder, {"people": Detector.load(tmp_path)})
    asked = [*forget, "When did Torvald Ekmansgard die?", OTHER]
    weights, scores = multi.weights(asked), multi.scores(asked)
    assert weights[:6].unique().tolist() == [1]
    assert weights[-1].tolist() == [0]
    assert torch.equal(weights, (scores > 0.8).float())
