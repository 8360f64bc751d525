"""Every shipped configuration runs for one step on a tiny model and a tiny stream; none is left out.

Only the demo does in the fast tests; test_config.py reads all files there.
"""

from dataclasses import replace
from pathlib import Path

import pytest

import o3_lightning.run.inputs as inputs_module
from o3_lightning.commands.common import read_run
from o3_lightning.common.shipped import shipped_configs
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.detector.encoder import load_encoder
from o3_lightning.run import recorded_base
from o3_lightning.run.parsing import merge
from o3_lightning.run.pipeline import run_stream
from o3_lightning.run.study import read_study

ROOT = Path(__file__).parents[2]
# Read by other commands, each with tests of its own.
OTHERS = ("release_", "reveal_")
BENCHMARKS = ("tofu_continual", "scienceqa", "clinc150", "real_world", "muse_sust")
REPORTED = BENCHMARKS[:3]  # by O3
STACKS = [
    *([name] for name in shipped_configs() if not name.startswith((*OTHERS, "experiments/", "overlays/"))),
    *([name, f"overlays/{overlay}"] for name in REPORTED for overlay in ("paper", "official")),
    *([name, "overlays/small"] for name in BENCHMARKS),
    *(
        [BENCHMARKS[0], f"overlays/{overlay}"]
        for overlay in ("closer_look", "nested", "forget05", "forget10")
    ),
    [BENCHMARKS[0], "overlays/closer_look", "overlays/small", "overlays/full"],
]
HERE = [
    *["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu", "--trainer.devices", "1"],
    *["--trainer.strategy", "auto", "--base.quantise", "none", "--data.root", "nowhere"],
    *["--evaluation.metrics", '["probability"]', "--evaluation.max_new_tokens", "2"],
    *["--detector.training.epochs", "1", "--evaluation.samples", "0"],
]


# the same for studies, whose fields come from their files alone
SMALL = {
    "trainer": {"fast_dev_run": True, "accelerator": "cpu", "devices": 1, "strategy": "auto"},
    "data": {"root": "nowhere"},
    "evaluation": {"metrics": ["probability"], "max_new_tokens": 2, "samples": 0},
    "detector": {"training": {"epochs": 1}},
}
STUDIES = sorted((ROOT / "configs/experiments").glob("[!d]*.yaml"))  # detector_*.yaml: another command's


def tiny_stream():
    """Two requests of six rows, and two rows to keep."""
    letters = "ABCDEA"
    requests = tuple(
        UnlearningRequest(
            name.split()[0].lower(),
            tuple(
                QuestionAnswer(
                    f"Where did {name} spend winter {n}?",
                    f"The answer is {letter}.",
                    (),
                    ("The answer is F.",),
                )
                for n, letter in enumerate(letters)
            ),
        )
        for name in ("Quillan Osterhaus", "Mirelle Vantongeren")
    )
    kept = (QuestionAnswer("What do bees make?", "Honey"), QuestionAnswer("Who is Tobiah?", "A smith"))
    return RequestStream("tiny", requests, {"retain": kept}, {})


def test_no_configuration_is_missed():
    assert {"demo", "default", "trainer/fsdp", *BENCHMARKS} <= {words[-1] for words in STACKS}


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_o3_as_published_is_not_helped_by_our_check_of_answers(preset):
    config, _, _ = read_run("run", ["--config", "scienceqa", "--config", f"overlays/{preset}"])
    assert (config.detector.preset, config.gate.check_answers) == (preset, "off")
    with_preset = 0
    for path in STUDIES:
        study = read_study(path)
        for own in study.variants.values():
            both = merge(study.common, own)
            if both.get("detector", {}).get("preset") == preset:
                with_preset += 1
                assert both["gate"]["check_answers"] == "off", path
    assert with_preset


@pytest.mark.parametrize(
    "names",
    [pytest.param(names, marks=[pytest.mark.slow] * (names != ["demo"])) for names in STACKS],
    ids="+".join,
)
def test_a_shipped_configuration_runs(names, tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for name in names for word in ("--config", name)]
    config, trainer, _ = read_run("run", [*words, "--output", str(tmp_path), *HERE])
    dry_run(config, trainer, tiny_base, monkeypatch)


def dry_run(config, trainer, base, monkeypatch):
    """Runs on stand-ins, one step a fit."""
    encoder = load_encoder("minilm", pooling=config.detector.pooling)
    monkeypatch.setattr(recorded_base, "load_base", lambda config, seed: base)
    monkeypatch.setattr(inputs_module, "load_stream", lambda config, seed: tiny_stream())
    monkeypatch.setattr(inputs_module, "load_configured_encoder", lambda config: encoder)
    folder = run_stream(config, trainer)
    assert (folder / "metrics.json").is_file()
    assert (folder / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_variant_of_a_shipped_study_runs(path, tiny_base, tmp_path, monkeypatch):
    study = read_study(path)
    small = replace(
        study,
        common=merge(study.common, SMALL),
        variants={name: merge(own, SMALL) for name, own in study.variants.items()},
    )
    for name in small.variants:
        job = small.job(name, study.seeds[0], tmp_path)
        dry_run(job.config, job.trainer, tiny_base, monkeypatch)
