"""The retrained model: what it is never shown, what it is compared with, and where it stands on the plane."""

import json
from dataclasses import replace

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import DataConfig
from o3_lightning.data.fictitious import training_rows
from o3_lightning.data.stream import load_stream
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import evaluate_stream
from o3_lightning.evaluation.reference import RETRAINED, load_plain, plain_model
from o3_lightning.evaluation.session import EvaluationSession
from o3_lightning.models import fictitious as fictitious_base
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.models.config import FictitiousBaseConfig
from o3_lightning.models.fictitious import fictitious_base_folder, without
from o3_lightning.reporting.external_results import read_places
from o3_lightning.training.processes import ALONE

TINY = FictitiousBaseConfig(layers=1, width=16, feed_forward=16, heads=2, epochs=1)
ONE_AUTHOR = DataConfig(count=1, authors_per_request=1, utility_rows=4)


@pytest.fixture
def tiny_training(tmp_path, monkeypatch):
    """The embedded base model is a tiny one, in a cache of its own; what it learns is kept."""
    monkeypatch.setenv("O3_CACHE", str(tmp_path / "cache"))
    shown = []
    train = fictitious_base.train_model

    def training(tokenizer, rows, config, seed):
        shown.append(rows)
        return train(tokenizer, rows[:8], TINY, seed)

    monkeypatch.setattr(fictitious_base, "train_model", training)
    return shown


def test_the_retrained_model_is_shown_nothing_of_what_is_forgotten(tiny_training):
    stream = load_stream(ONE_AUTHOR, 0)
    author = " ".join(stream.requests[0].rows[0].prompt.rstrip("?").split()[2:4])
    answers = {row.answer for row in stream.requests[0].rows}
    model = load_plain(RETRAINED, BaseConfig(), 0, stream)
    (shown,) = tiny_training
    assert any(author in row.prompt for row in training_rows(0))
    assert not any(author in row.prompt for row in shown)
    assert not answers & {row.answer for row in shown}
    prompts = {prompt for row in stream.requests[0].rows for prompt in (row.prompt, *row.held_out_prompts)}
    assert len(shown) == len(training_rows(0)) - len(prompts)
    assert model.base.id == "fictitious, retrained"


def test_it_is_trained_once_and_shares_the_tokenizer_of_the_base_model(tiny_training):
    stream = load_stream(ONE_AUTHOR, 0)
    base = load_base(BaseConfig(), 0)
    first, again = (load_plain(RETRAINED, BaseConfig(), 0, stream) for _ in range(2))
    assert len(tiny_training) == 2
    assert first.base.digest == again.base.digest != base.digest
    assert first.base.tokenizer.get_vocab() == base.tokenizer.get_vocab()
    assert fictitious_base_folder(0, unseen=["a prompt of nobody"]) == fictitious_base_folder(0)


def test_a_model_that_was_trained_elsewhere_cannot_be_retrained(tiny_training, tmp_path):
    folder = fictitious_base_folder(0)
    with pytest.raises(InputError, match=r"base\.id.*cannot be trained again without the forget sets"):
        load_plain(RETRAINED, BaseConfig(id=str(folder)), 0, load_stream(ONE_AUTHOR, 0))


def test_rows_are_left_out_by_their_prompt():
    rows = training_rows(0)
    assert without(rows, [rows[3].prompt]) == (*rows[:3], *rows[4:])


def test_nobody_was_shown_the_holdout_and_its_answers_are_those_of_the_forgotten():
    stream = load_stream(DataConfig(count=2), 0)
    asked = {row.prompt for row in training_rows(0)}
    forgotten = {row.answer for request in stream.requests for row in request.rows}
    assert stream.holdout
    assert not asked & {row.prompt for row in stream.holdout}
    assert {row.answer for row in stream.holdout} <= forgotten
    assert load_stream(DataConfig(count=2), 0).holdout == stream.holdout


def test_a_user_may_give_rows_that_no_model_was_shown(tmp_path):
    for name in ("forget", "unseen"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": f"{name}?", "answer": "yes"}) + "\n")
    config = DataConfig(
        name="jsonl", requests=(str(tmp_path / "forget.jsonl"),), holdout=str(tmp_path / "unseen.jsonl")
    )
    assert [row.prompt for row in load_stream(config, 0).holdout] == ["unseen?"]


def test_a_session_compares_with_the_retrained_model_and_gives_it_a_place(tiny_training, tmp_path):
    stream = load_stream(ONE_AUTHOR, 0)
    config = EvaluationConfig(metrics=("accuracy",), max_new_tokens=2)
    session = EvaluationSession(stream, config, BaseConfig(), ONE_AUTHOR, 0, tmp_path, ALONE)
    result = session.measure(load_plain(RETRAINED, BaseConfig(), 0, stream), "evaluation", RETRAINED)
    for split in ("seen", "held_out"):
        found = result["comparison"][f"authors_1/{split}"]
        assert found["forget_quality"]["p_value"] == pytest.approx(1.0)
        assert found["membership"]["mia_loss"]["privacy_leak"] == pytest.approx(0.0)
    assert "retrained (reference)" in read_places(tmp_path)
    assert len(result["holdout"]["values"]["mia_loss"]) == len(stream.holdout)


def test_the_holdout_is_asked_for_membership_alone(tiny_base):
    stream = replace(load_stream(ONE_AUTHOR, 0), holdout=load_stream(ONE_AUTHOR, 0).holdout[:3])
    model = plain_model(tiny_base)
    without_membership = EvaluationConfig(metrics=("accuracy",), max_new_tokens=2)
    assert "holdout" not in evaluate_stream(model, stream, without_membership)
    asked = replace(without_membership, metrics=("accuracy", "mia_min_k"))
    assert set(evaluate_stream(model, stream, asked)["holdout"]["values"]) == {"mia_min_k"}
