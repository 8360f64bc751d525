"""Evaluations: any metric by name, plain models, resuming, a reference, several processes, clear errors."""

import json
import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream, load_stream
from o3_lightning.detector.answers import AnswerState, columns
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import EvaluationContext, evaluate_split, evaluate_stream
from o3_lightning.evaluation.reference import check_rows, compare, plain_model, reference_losses
from o3_lightning.evaluation.session import EvaluationSession
from o3_lightning.evaluation.splits import FinishedSplits, check_prompts
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseConfig
from o3_lightning.training.processes import ALONE

TOWNS = ("Arlo", "Brim", "Crane", "Dunmere", "Eskdale", "Farrow", "Gorse")
MANY = (
    "accuracy", "rouge1_f1", "rouge_l_recall", "probability", "normalised_probability", "truth_ratio_raw",
    "truth_ratio@tofu", "token_entropy", "repetition", "exact_memorization", "extraction_strength",
    "mia_loss",
    "mia_zlib", "mia_min_k", "mia_min_k_plus_plus",
    "mia_gradient_norm", "mia_gradient_norm@openunlearning",
)  # fmt: skip


def rows_about(name):
    return tuple(
        QuestionAnswer(f"Where did {name} go in winter {number}?", f"To {town}", (f"{name}, {number}?",),
                       ("To Hythe", "To Ives"))
        for number, town in enumerate(TOWNS)
    )  # fmt: skip


def make_stream():
    request = UnlearningRequest("a", rows_about("Quillan Osterhaus"))
    utility = {name: rows_about(f"{name} Vale") for name in ("kept", "other")}
    return RequestStream("test", (request,), utility, holdout=rows_about("Nobody Known"))


def settings(**changes):
    return EvaluationConfig(**{"metrics": MANY, "max_new_tokens": 4, "batch_size": 3, **changes})


@pytest.fixture
def plain(tiny_base):
    return plain_model(tiny_base)


def test_a_plain_model_is_the_base_model_bit_for_bit(plain, tiny_base):
    ids = torch.tensor([[5, 6, 7]])  # none of them is padding
    assert torch.equal(plain(ids).logits, tiny_base.model(ids).logits)
    assert plain.weights(["Who?"]).shape == (1, 0)


def test_every_metric_has_a_value_per_row_and_an_interval_around_its_mean(plain):
    result = evaluate_split(plain, rows_about("Quillan"), settings(), "forget")
    assert set(result.values) == set(MANY)
    assert {len(column) for column in result.values.values()} == {len(TOWNS)}
    for name, mean in result.aggregate.items():
        low, high, _ = result.intervals[name]
        assert low - 1e-9 <= mean <= high + 1e-9


def test_a_row_without_a_paraphrase_takes_the_loss_of_its_own_answer(plain):
    rows = [
        replace(row, paraphrased_answer=f"In {row.answer[3:]}, far away" if number % 2 else None)
        for number, row in enumerate(rows_about("Quillan"))
    ]
    said = evaluate_split(plain, rows, settings(metrics=("truth_ratio_raw",)), "forget").values
    other = [replace(row, answer=row.paraphrased_answer or row.answer) for row in rows]
    wanted = ("mia_loss", "normalised_probability")
    alone = evaluate_split(plain, other, settings(metrics=wanted), "forget").values
    wrong = [
        evaluate_split(plain, [replace(row, answer=text) for row in rows], settings(metrics=wanted), "forget")
        for text in rows[0].perturbed_answers
    ]
    losses = np.mean([result.values["mia_loss"] for result in wrong], axis=0)
    expected = np.exp(np.array(alone["mia_loss"]) - losses)
    assert said["truth_ratio_raw"] == pytest.approx(expected, rel=1e-4)


class Unmoved:
    """A detector of one request that never recognises a prompt, or always does."""

    ids = ("a",)

    def __init__(self, weight):
        self.weight = weight

    def weights(self, prompts):
        return torch.full((len(prompts), 1), self.weight)


def talkative(base):
    """The tiny model with nothing but words to say: it prefers punctuation otherwise."""
    model, tokenizer = deepcopy(base.model), base.tokenizer
    words = [
        bool(re.fullmatch(r"\s*[a-z]{4,}\s*", tokenizer.decode([token]))) for token in range(len(tokenizer))
    ]
    head = deepcopy(model.get_output_embeddings())
    head.weight = torch.nn.Parameter(head.weight * torch.tensor(words)[:, None])  # not that of the input
    model.set_output_embeddings(head)
    return replace(base, model=model)


def test_answers_that_the_gate_refuses_are_counted_by_their_reason(tiny_base):
    base = talkative(tiny_base)
    rows = tuple(replace(row, held_out_prompts=()) for row in rows_about("Quillan")[:2])
    config = settings(metrics=("accuracy",), max_new_tokens=8, samples=2)
    told = {
        word.lower()
        for sample in evaluate_split(plain_model(base), rows, config, "forget").samples
        for word in re.findall(r"\w+", sample["answer"])
    }
    state = AnswerState(
        torch.tensor([7]),
        *columns([("quillan", 0, 15.0)], 7),
        *columns([(word, 0, 15.0) for word in told], 7),
    )
    stream = RequestStream("test", (UnlearningRequest("a", rows),), {"kept": rows_about("Nobody")[:2]})
    for weight, mode, refused in ((0.0, "on", [0, 2]), (0.0, "off", [0, 0]), (1.0, "on", [2, 0])):
        gated = GatedModel(
            base, Unmoved(weight), {"a": None}, GateConfig(check_answers=mode), answers=[state]
        )
        result = evaluate_stream(gated, stream, config)
        assert list(result["requests"]["a"]["seen"]["refusals"].values()) == refused
        checks = {"mode": mode, "answers": 4, "refused": {"a": refused[1], "utility": 0}}
        assert result["answer_checks"] == checks


def test_the_batch_size_changes_no_value(plain):
    one, many = (
        evaluate_split(plain, rows_about("Quillan"), settings(batch_size=size), "forget") for size in (1, 7)
    )
    for name in MANY:
        assert one.values[name] == pytest.approx(many.values[name], rel=1e-4, abs=1e-5)


def test_a_killed_evaluation_continues_at_the_split_where_it_stopped(plain, tmp_path):
    expected = evaluate_stream(plain, make_stream(), settings())
    parts = FinishedSplits(tmp_path / "parts", "0" * 64, ALONE)
    done = []

    def dies_third(name, work):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(name)
        return parts.resume(name, work)

    with pytest.raises(KeyboardInterrupt):
        evaluate_stream(plain, make_stream(), settings(), EvaluationContext(resume=dies_third))
    fresh = []

    def counts(name, work):
        return parts.resume(name, lambda: fresh.append(name) or work())

    result = evaluate_stream(plain, make_stream(), settings(), EvaluationContext(resume=counts))
    assert done == ["a/seen", "a/held_out"]
    assert fresh == ["utility/kept", "utility/other", "holdout"]
    assert json.loads(json.dumps(result)) == json.loads(json.dumps(expected))
    other = FinishedSplits(tmp_path / "parts", "1" * 64, ALONE)
    assert other.resume("a/seen", lambda: {"new": 1}) == {"new": 1}


def split_of(*losses):
    return {"values": {"mia_loss": list(losses)}}


def test_each_model_is_compared_with_its_own_losses_on_unseen_rows():
    ours = {"requests": {"a": {"seen": split_of(1, 2, 3, 4)}}, "utility": {}, "holdout": split_of(2.5, 5)}
    retrained = {
        "requests": {"a": {"seen": split_of(7, 8)}},
        "utility": {},
        "holdout": split_of(7.5, 6, 9, 6),
    }
    found = compare(ours, retrained)["a/seen"]["membership"]["mia_loss"]
    assert found["auc"] == pytest.approx(6 / 8)  # 2.5 lies above two of four, 5 above all
    assert found["reference_auc"] == pytest.approx(3 / 8)
    assert found["privacy_leak"] == pytest.approx(100 * (0.25 - 0.625) / 0.625)


def test_a_session_writes_json_and_csv_and_compares_with_a_reference(plain, tmp_path):
    common = (BaseConfig(), DataConfig(), 0, tmp_path, ALONE)
    session = EvaluationSession(make_stream(), settings(), *common)
    first = session.measure(plain, "evaluation")
    assert first["comparison"]["a/seen"]["membership"]["mia_loss"]["reference_auc"] is None
    again = EvaluationSession(make_stream(), settings(metrics=("mia_reference",), samples=0), *common)
    result = again.measure(plain, "evaluation-again", str(tmp_path / "evaluation.json"))
    assert result["requests"]["a"]["seen"]["values"]["mia_reference"] == pytest.approx(
        [0.0] * len(TOWNS), abs=1e-6
    )
    assert result["comparison"]["a/seen"]["forget_quality"]["p_value"] == pytest.approx(1.0)
    lines = (tmp_path / "evaluation.csv").read_text().splitlines()
    assert lines[0] == "split,metric,aggregate,low,high,interval,count,unreadable,better"
    assert len(lines) == 1 + 4 * len(MANY)
    assert not list(tmp_path.glob("*.parts"))


def test_a_result_that_could_not_be_written_is_not_measured_again(plain, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    config = settings(metrics=("accuracy",))
    session = EvaluationSession(make_stream(), config, BaseConfig(), DataConfig(), 0, tmp_path, ALONE)
    with monkeypatch.context() as patch:
        patch.setattr("o3_lightning.evaluation.session.write_json", full)
        with pytest.raises(OSError, match="no space"):
            session.measure(plain, "evaluation")
    monkeypatch.setattr("o3_lightning.evaluation.evaluate.evaluate_split", None)
    assert session.measure(plain, "evaluation")["requests"]["a"]["seen"]["count"] == len(TOWNS)


@pytest.mark.parametrize("split", ["a/seen", "utility/kept", "holdout"])
def test_a_reference_on_other_rows_is_refused(plain, split):
    config = settings(metrics=("truth_ratio_raw", "mia_loss"), samples=0)
    stream, others = make_stream(), rows_about("Someone Else")
    ours = evaluate_stream(plain, stream, config)
    check_rows(ours, stream)
    other = {
        "a": replace(stream, requests=(UnlearningRequest("a", others),)),
        "utility": replace(stream, utility={"kept": others}),
        "holdout": replace(stream, holdout=others),
    }[split.partition("/")[0]]
    with pytest.raises(InputError, match=f"other rows of {split}"):
        check_rows(ours, other)
    assert reference_losses(ours)["a/seen"] == ours["requests"]["a"]["seen"]["values"]["mia_loss"]


def test_a_metric_that_no_split_allows_is_an_error_and_the_default_is_not(plain):
    bare = tuple(replace(row, perturbed_answers=()) for row in rows_about("Quillan"))
    stream = RequestStream("bare", (UnlearningRequest("a", bare),))
    with pytest.raises(
        InputError, match=r"'truth_ratio@tofu' needs perturbed_losses, which no split of bare"
    ):
        evaluate_stream(plain, stream, settings(metrics=("accuracy", "truth_ratio@tofu")))
    with pytest.raises(InputError, match=r"'entailment' needs entail \(evaluation\.entailment_model\)"):
        evaluate_stream(plain, stream, settings(metrics=("entailment",)))
    result = evaluate_stream(plain, stream, EvaluationConfig(max_new_tokens=4))
    assert result["requests"]["a"]["seen"]["left_out"] == {"truth_ratio@tofu": ["perturbed_losses"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("acuracy",)}, "field 'evaluation.metrics': expected some of .*got acuracy"),
        ({"metrics": ()}, "got none"),
        ({"batch_size": 0}, "field 'evaluation.batch_size': expected 1 or more"),
    ],
)
def test_a_wrong_field_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)


def test_a_context_smaller_than_a_prompt_is_told_with_file_and_line(tiny_base, tmp_path):
    small = replace(tiny_base, context_tokens=4)
    with pytest.raises(InputError, match=r"a/seen, row 1: \d+ tokens, the model's context is 4"):
        check_prompts(make_stream(), small)
    path = tmp_path / "forget.jsonl"
    path.write_text(json.dumps({"prompt": "Where did Quillan go in winter?", "answer": "Home"}) + "\n")
    with pytest.raises(InputError, match=r"forget\.jsonl:1: field 'prompt'"):
        check_prompts(load_stream(DataConfig("jsonl", (str(path),)), 0), small)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_reference_that_is_no_evaluation_is_told(content, tmp_path):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"other\.json: field 'reference'"):
        EvaluationSession(
            make_stream(), settings(), BaseConfig(), DataConfig(), 0, tmp_path, ALONE
        ).reference(str(path), settings(), None)


def test_long_splits_are_sampled_by_the_seed_and_the_result_says_so(plain, caplog):
    stream, wanted = make_stream(), settings(metrics=("accuracy",), rows=3)
    with caplog.at_level("INFO"):
        found = [evaluate_stream(plain, stream, wanted, EvaluationContext(seed=seed)) for seed in (0, 0, 1)]
    first, again, other = (result["requests"]["a"]["seen"] for result in found)
    assert first == again
    assert first["sample"] != other["sample"]
    assert (first["count"], first["sample"]["of"]) == (3, 7)
    whole = evaluate_stream(plain, stream, settings(metrics=("accuracy",), rows=0))
    assert whole["requests"]["a"]["seen"]["digest"] == first["digest"]
    assert (
        "measuring 3 rows of seen, held_out, kept, other, drawn by the seed; evaluation.rows 0" in caplog.text
    )
    check_rows(found[0], stream, 3, 0)
    for limit, seed in ((0, 0), (3, 1)):
        with pytest.raises(InputError, match="another sample of a/seen"):
            check_rows(found[0], stream, limit, seed)


def test_only_a_cpu_bounds_the_rows_by_default():
    assert EvaluationConfig().rows_on("cpu") > 216  # the demo measures all of its rows
    assert EvaluationConfig().rows_on("cuda") == 0
    assert EvaluationConfig(rows=5).rows_on("cuda") == 5
    with pytest.raises(InputError, match=r"evaluation\.rows.*0 or more"):
        EvaluationConfig(rows=-1)
