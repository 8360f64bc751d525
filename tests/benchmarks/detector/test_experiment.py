"""The benchmark of the detectors: its file, its figures, its memory."""

import json
from pathlib import Path

import pytest

from benchmarks.detector import experiment as experiment_module
from benchmarks.detector.__main__ import main, read_experiment
from benchmarks.detector.experiment import DetectorBenchmarkConfig, run_detector_benchmark
from benchmarks.detector.measures import summarise, table_rows
from benchmarks.detector.tasks import DEVELOPMENT, TASKS
from o3_lightning.common.errors import InputError
from o3_lightning.detector import DetectorConfig

CONFIGS = "configs/experiments/detector_{}.yaml"


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["benchmark", "training"])
def test_the_experiments_can_be_read(name):
    config, output = read_experiment(Path(CONFIGS.format(name)))
    assert config.seeds == (0, 1, 2)
    assert output.startswith("results/detector")


def test_the_benchmark_names_every_task():
    config, _ = read_experiment(Path(CONFIGS.format("benchmark")))
    assert sorted(config.tasks) == sorted(TASKS)
    assert set(DEVELOPMENT) < set(TASKS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("detectors: {a: {presett: cosine_maha_lexical}}", "detector 'a': .*presett"),
        ("detectors: {a: {}}\nseed: [0]", "unknown key 'seed'"),
        ("detectors: {a: {}}\ntasks: [moon]", "got 'moon'"),
        ("detectors: {a: {}}\nseeds: [-1]", "integers >= 0"),
        ("tasks: [fictitious]", "detectors"),
        ("{", "not YAML"),
        ("detectors: {a: {}}\nseeds: 5", "field 'seeds': expected a list, got 5"),
        (
            "detectors: {a: {}}\nmost_prompts: 0",
            "field 'most_prompts': expected an integer, 1 or more, got 0",
        ),
    ],
)
def test_mistakes_in_an_experiment_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_experiment(write(tmp_path / "x.yaml", text))


def test_benchmark_writes_continues_and_prints(tmp_path, capsys, monkeypatch):
    encoder = experiment_module.remembering(DetectorConfig())  # of all settings below
    monkeypatch.setattr(experiment_module, "remembering", lambda settings: encoder)
    experiment = write(
        tmp_path / "small.yaml",
        f"output: {tmp_path / 'small.json'}\ntasks: [fictitious]\ndetectors: {{default: {{}}}}\nseeds: [0]\n"
        "most_prompts: 12\n",
    )
    main(["--config", str(experiment)])
    out, err = capsys.readouterr()
    assert "| fictitious | default | 1" in out
    assert "1/1 fictitious, default, seed 0" in err
    first = json.loads((tmp_path / "small.json").read_text())
    main(["--config", str(experiment)])
    assert "seed 0" not in capsys.readouterr().err
    assert json.loads((tmp_path / "small.json").read_text())["tasks"] == first["tasks"]
    assert first["tasks"]["fictitious"]["default"]["held_out|near"]["auroc"]["seeds"] == [1.0]
    write(experiment, experiment.read_text().replace("{}", "{tail_quantile: 0.2}"))
    main(["--config", str(experiment)])
    assert "1/1 fictitious, default, seed 0" in capsys.readouterr().err  # changed settings are measured again
    changed = json.loads((tmp_path / "small.json").read_text())
    assert changed["settings"]["default"]["tail_quantile"] == 0.2


def test_missing_data_is_left_out_and_named(tmp_path):
    config = DetectorBenchmarkConfig(tasks=("tofu_forget01",))
    results = run_detector_benchmark(config, tmp_path)
    assert "forget01_perturbed.json is not there" in results["left_out"][0]
    assert len(list(table_rows(results))) == 6


def test_the_deviation_is_that_of_the_sample():
    rows = [{"near": {"auroc": value}} for value in (0.5, 0.75, 1.0)]
    assert summarise(rows)["near"]["auroc"] == {"mean": 0.75, "std": 0.25, "seeds": [0.5, 0.75, 1.0]}
    assert summarise(rows[:1])["near"]["auroc"]["std"] == 0.0
