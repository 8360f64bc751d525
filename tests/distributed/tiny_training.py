"""Trains adapters of a tiny random model, alone or with other processes; run as a program it writes them.

With `measure` among its cases it also evaluates the model and collects rows: one start serves all tests. The
imports serve all of its processes: they are forked before there is any thread.
"""

import json
import os
import sys
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import save_file

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.sharding import sharded_twin
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.data.fictitious import training_rows
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.data.templates import template_for
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import EvaluationContext, evaluate_stream
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.metrics.collection import RowCollector
from o3_lightning.metrics.text import rouge_words
from o3_lightning.models.base import BaseModel
from o3_lightning.models.config import FictitiousBaseConfig
from o3_lightning.models.fictitious import make_model, train_tokenizer
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

METRICS = (
    "accuracy", "rouge_l_recall", "probability", "truth_ratio@tofu", "token_entropy", "extraction_strength",
    "mia_min_k_plus_plus", "mia_gradient_norm",
)  # fmt: skip
VALUES = [[0.1], [], [0.2, 1 / 3], [1e-300, 5.0, 6.0], [0.7], [7.5, 8.5], [2 / 3]]
# batches of rows of VALUES, by process
SHARES = [
    [[[0, 2, 4], [6]], [[1, 3], [5], [0]]],  # uneven, and one row twice
    [[[0, 1, 2, 3, 4, 5, 6]], []],  # one process without any
    [[[5, 1], [6, 4]], [[3, 0, 2]]],
]


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
        FitTask(
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


def evaluate(base, processes):
    """Returns what an evaluation of the untrained model finds, as it is after JSON."""

    def rows(name):
        return tuple(
            QuestionAnswer(row.prompt, row.answer, (f"{row.prompt[:-1]}, please?",), ("To Hythe", "To Ives"))
            for row in make_rows(7, name)
        )

    utility = {"kept": rows("Tobiah"), "other": rows("Ansgar")}
    stream = RequestStream(
        "test", (UnlearningRequest("a", rows("Quillan")),), utility, holdout=rows("Mirelle")
    )
    settings = EvaluationConfig(metrics=METRICS, max_new_tokens=4, batch_size=3)
    found = evaluate_stream(plain_model(base), stream, settings, EvaluationContext(processes))
    return json.loads(json.dumps(found))


def collect(rank):
    """Returns what this process knows after each of SHARES, and of a row that it kept to itself."""
    results = []
    for share in SHARES:
        collector, alone = RowCollector(torch.float64), RowCollector(torch.float64, sync=False)
        for batch in share[rank]:
            collector.update(batch, [torch.tensor(VALUES[row], dtype=torch.float64) for row in batch])
        alone.update([0], [torch.tensor([float(rank)])])
        results.append([[row.reshape(-1).tolist() for row in one.compute()] for one in (collector, alone)])
    return results


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
        if "measure" in cases:
            found = {"count": processes.count, "collected": collect(processes.rank)}
            found["evaluated"] = evaluate(base, processes)
            (Path(folder) / f"measure-{processes.rank}.json").write_text(json.dumps(found))
        for case in (case for case in cases if case in CASES):
            found = train(base, case, strategy)
            save_file(found, Path(folder) / f"{case}-{processes.rank}.safetensors")
        after = base.model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def begin(rank, words):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    main(words[0], words[1], words[2:])


if __name__ == "__main__":
    rouge_words()  # imports scikit-learn, once for both
    fork, count = get_context("fork"), int(os.environ["WORLD_SIZE"])
    started = [fork.Process(target=begin, args=(rank, sys.argv[1:]), daemon=True) for rank in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    sys.exit(any(process.exitcode for process in started))
