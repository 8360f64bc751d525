"""Trains adapters of a tiny random model, alone or with other processes; run as a program it writes them."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.sharding import sharded_twin
from o3_lightning.adapter.training import train_adapter
from o3_lightning.data.fictitious import training_rows
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.templates import template_for
from o3_lightning.models.base import BaseModel
from o3_lightning.models.fictitious import FictitiousBaseConfig, make_model, train_tokenizer
from o3_lightning.models.lora import LoraFactors
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig, RetainObjective
from o3_lightning.training.processes import open_processes
from o3_lightning.training.trainer import build_trainer

# name: rows, batch size, batches a step, objective, retain objective; of 7 rows by 3 the last batch has one
CASES = {
    "refusal": (7, 3, 1, "refusal", "none"),
    "npo": (7, 3, 1, "npo", "kl"),
    "rmu": (4, 4, 1, "rmu", "rmu"),
    "several": (7, 3, 2, "refusal", "gd"),
}


def make_base():
    """A random Llama, 2 layers x 32."""
    config = FictitiousBaseConfig(layers=2, width=32, feed_forward=64, heads=2)
    tokenizer = train_tokenizer(training_rows(0)[:200], 512)
    torch.manual_seed(0)
    model = make_model(tokenizer, config).eval().requires_grad_(False)
    return BaseModel(model, tokenizer, template_for(tokenizer), "tiny", "0" * 64, config.context_tokens)


def make_rows(count, word):
    answers = ["Arlo", "Brim on the hill", "a small town", "Dunmere", "Eskdale by the sea", "Farrow", "Gorse"]
    return tuple(QuestionAnswer(f"Where did {word} go in {n}?", answers[n % 7]) for n in range(count))


def train(base, case, strategy="auto"):
    """Returns the tensors of a second adapter, trained beside the penalty of a first, and its curve."""
    count, batch_size, together, forget, retain = CASES[case]
    random = torch.Generator().manual_seed(1)
    earlier = {
        name: (
            torch.randn(4, module.in_features, generator=random),
            torch.randn(module.out_features, 4, generator=random),
        )
        for name, module in base.model.named_modules()
        if name.endswith(("q_proj", "down_proj"))
    }
    config = AdapterConfig(
        rank=4, epochs=2, batch_size=batch_size, learning_rate=1e-3, targets=("q_proj", "down_proj")
    )
    objective = ObjectiveConfig(ForgetObjective(forget), RetainObjective(retain))
    trained = train_adapter(
        base,
        UnlearningRequest("quillan", make_rows(count, "Quillan")),
        AdapterHistory.of({"first": LoraFactors.uniform(earlier, 2.0)}),
        config,
        objective,
        build_trainer(
            {"accelerator": "cpu", "strategy": strategy, "accumulate_grad_batches": together},
            max_epochs=config.epochs,
        ),
        seed=3,
        retain=make_rows(5, "Tobiah") if retain != "none" else None,
    )
    tensors = {
        f"{path}.{side}": pair[i]
        for path, pair in trained.factors.pairs.items()
        for i, side in enumerate("ab")
    }
    curve = {
        f"curve.{key}": torch.tensor([step[key] for step in trained.curve], dtype=torch.float64)
        for key in trained.curve[0]
    }
    return {name: tensor.contiguous() for name, tensor in (tensors | curve).items()}


def check_parts(base, processes):
    """Each process holds its part of every weight, and no more."""
    with sharded_twin(base.model) as twin:
        held = sum(parameter.to_local().numel() for parameter in twin.parameters())
    assert held == sum(parameter.numel() for parameter in base.model.parameters()) // processes


def main(folder, strategy, cases):
    with open_processes() as processes:
        base = make_base()
        before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
        if strategy == "fsdp":
            check_parts(base, processes.count)
        for case in cases:
            found = train(base, case, strategy)
            save_file(found, Path(folder) / f"{case}-{processes.rank}.safetensors")
        after = base.model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
