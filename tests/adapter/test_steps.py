"""A step of several batches is one step on all of their rows, and its learning rate falls to the end."""

import dataclasses
from statistics import fmean

import pytest
import torch
from lightning import Callback

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig, RetainObjective
from o3_lightning.training.trainer import build_trainer

CONFIG = AdapterConfig(rank=2, epochs=2, learning_rate=1e-2, clip=0.0, penalty_coefficient=0.5)
KEPT = [QuestionAnswer(f"What is {n}?", "very " * n + "long") for n in range(5)]
LENGTHS = (1, 30, 2, 25, 3, 1, 28, 2)  # of answers: batches of few rows differ widely in their tokens
OBJECTIVES = {
    "refusal": ObjectiveConfig(ForgetObjective("refusal", refusal_count=0), RetainObjective("gd")),
    "llmu": ObjectiveConfig(ForgetObjective("llmu")),  # two views, each with its own count
    "npo": ObjectiveConfig(ForgetObjective("npo"), RetainObjective("kl")),
    "rmu": ObjectiveConfig(ForgetObjective("rmu"), RetainObjective("rmu")),
    "every token": ObjectiveConfig(ForgetObjective("simnpo"), RetainObjective("ap")),
    "prompts, too": ObjectiveConfig(ForgetObjective("refusal"), RetainObjective("kl"), prompt_tokens=True),
}


@pytest.fixture(scope="module")
def uneven():
    rows = [
        QuestionAnswer(f"Where is {name}?", "o" * count, perturbed_answers=("e" * (31 - count),))
        for name, count in zip("abcdefgh", LENGTHS, strict=True)
    ]
    return UnlearningRequest("uneven", tuple(rows))


@pytest.fixture(scope="module")
def earlier(kept_base, uneven):
    """An adapter of an earlier request."""
    trainer = build_trainer({"accelerator": "cpu", "enable_progress_bar": False}, max_epochs=1)
    first = train_adapter(FitTask(kept_base, uneven, AdapterHistory(), CONFIG, ObjectiveConfig(), trainer, 9))
    return AdapterHistory.of({"first": first.factors})


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize(("rows", "together"), [(2, 4), (2, 3)])
def test_a_step_of_several_batches_is_one_step_on_all_of_their_rows(
    rows, together, name, earlier, kept_base, uneven, make_trainer
):
    found = []
    for size, batches in ((rows, together), (rows * together, 1)):  # 2 x 3 leaves a step of one batch
        config = dataclasses.replace(CONFIG, batch_size=size)
        trainer = make_trainer(accumulate_grad_batches=batches)
        found.append(
            train_adapter(
                FitTask(kept_base, uneven, earlier, config, OBJECTIVES[name], trainer, 0, retain=KEPT)
            )
        )
    parts, whole = found
    assert parts.metrics["steps"] == whole.metrics["steps"]
    for path, pair in whole.factors.pairs.items():
        for one, other in zip(parts.factors.pairs[path], pair, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)
    losses, epoch = [part["loss"] for part in parts.curve], len(LENGTHS) // rows
    batches = [losses[at : at + epoch] for at in range(0, len(losses), epoch)]
    steps = [fmean(some[at : at + together]) for some in batches for at in range(0, epoch, together)]
    assert steps == pytest.approx([step["loss"] for step in whole.curve], rel=2e-3)


class Rates(Callback):
    """Notes the learning rate of each step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 8),
        ({"max_steps": 5}, 5),
        ({"max_epochs": -1, "max_steps": 11}, 11),
        ({"limit_train_batches": 3}, 6),
        ({"limit_train_batches": 0.5}, 4),
        ({"accumulate_grad_batches": 3}, 4),
    ],
)
def test_the_learning_rate_falls_until_the_last_step(options, steps, tiny_base, tiny_request, make_trainer):
    rates = Rates()
    config = dataclasses.replace(CONFIG, batch_size=2, warmup_fraction=0.0)
    trainer = make_trainer(2, callbacks=[rates], **options)
    train_adapter(FitTask(tiny_base, tiny_request, AdapterHistory(), config, ObjectiveConfig(), trainer, 0))
    # the first step is at the peak, the last one is one part of the way above zero
    expected = [1e-2] + [1e-2 * (steps - step) / (steps - 1) for step in range(1, steps)]
    assert rates.seen == pytest.approx(expected)
