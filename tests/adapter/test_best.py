"""`adapter.keep: best`: the state of the best epoch becomes the adapter."""

import dataclasses
import math

import pytest
import torch

import o3_lightning.adapter.best as best_module
from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.diagnostics import attached
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import collate, encode_pairs
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig, RetainObjective

CONFIG = AdapterConfig(
    rank=4, epochs=4, batch_size=4, learning_rate=3e-2, keep="best", penalty_coefficient=0.0
)
ASCENT = ObjectiveConfig(ForgetObjective("ga"), RetainObjective("gd", coefficient=0.01))
RETAIN = [QuestionAnswer("Sea?", "Wet"), QuestionAnswer("Sun?", "Hot")]


@pytest.fixture
def train(tiny_base, tiny_request, make_trainer):
    def train(config, objective=ASCENT):
        trainer = make_trainer(config.epochs)
        task = FitTask(
            tiny_base, tiny_request, AdapterHistory(), config, objective, trainer, 0, retain=RETAIN
        )
        return train_adapter(task)

    return train


def probability(base, factors, rows):
    """Mean of exp(-NLL per token), row by row."""
    with attached(base.model, AdapterHistory.of({"kept": factors}), 0):
        values = []
        for row in rows:
            examples = encode_pairs(base.tokenizer, base.template, [row.prompt], [row.answer], 96)
            batch = collate(examples, 2)
            loss = base.model(**vars(batch)).loss
            values.append(math.exp(-loss.item()))
    return sum(values) / len(values)


def test_the_epoch_with_the_highest_score_is_kept(train, tiny_base, tiny_request, monkeypatch):
    measured, scores = [], []
    measure = best_module.BestKeeper.measure

    def spied(keeper, module):
        measured.append((measure(keeper, module), [factor.detach().clone() for factor in module.trained]))
        return measured[-1][0]

    monkeypatch.setattr(best_module.BestKeeper, "measure", spied)
    kept = train(CONFIG)
    (_, before), epochs = measured[0][0], measured[1:]
    scores = [(1 - forget) * min(1, retain / before) for (forget, retain), _ in epochs]
    number = max(range(len(scores)), key=scores.__getitem__)
    assert len(epochs) == CONFIG.epochs
    assert number < CONFIG.epochs - 1, "gradient ascent ruins the retained rows in the end"
    assert kept.metrics["kept_epoch"] == number + 1
    assert kept.metrics["kept_score"] == pytest.approx(scores[number])
    state = [factor for pair in kept.factors.pairs.values() for factor in pair]
    assert all(torch.equal(*both) for both in zip(state, epochs[number][1], strict=True))
    forget = probability(tiny_base, kept.factors, tiny_request.rows)
    assert forget == pytest.approx(epochs[number][0][0], rel=1e-4)


def test_the_last_state_is_kept_by_default(train):
    last = train(dataclasses.replace(CONFIG, keep="last"))
    assert "kept_epoch" not in last.metrics


def test_the_best_state_needs_retained_rows(train):
    with pytest.raises(InputError, match=r"field 'adapter.keep': best needs retained rows"):
        train(CONFIG, ObjectiveConfig(ForgetObjective("ga")))
