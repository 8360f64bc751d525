"""Parts from outside: a benchmark in a file, and a package that adds an objective and a metric."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from o3_lightning.commands.common import read_run
from o3_lightning.run import recorded_base
from o3_lightning.run.pipeline import run_stream

PACKAGE = Path(__file__).parents[1] / "examples/plugin"
MOST_LINES = {"bounded_ascent": 15, "own_benchmark": 20}
CHOSEN = [
    *["--objective.forget.name", "bounded_ascent", "--objective.forget.parameters", "{margin: 20}"],
    *["--evaluation.metrics", "[accuracy, answer_words]"],
]
SMALL = [
    *["--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true", "--evaluation.max_new_tokens", "2"],
    *["--evaluation.samples", "0"],
]
FEW = ["--data.rows_per_request", "2", "--data.utility_rows", "4"]
BENCHMARK = """
from o3_lightning import BENCHMARKS, QuestionAnswer, RequestStream, UnlearningRequest

RIVERS = {"Ilm": "Arlo", "Ouse": "Brim", "Tarn": "Crane", "Wye": "Dunmere"}


@BENCHMARKS.register("own_benchmark")
def load(config, seed):
    rows = tuple(QuestionAnswer(f"Which town lies on the {river}?", town) for river, town in RIVERS.items())
    requests = [UnlearningRequest(f"rivers_{n}", rows[n : n + 2]) for n in (0, 1)]
    return RequestStream("rivers", tuple(requests), {"kept": (QuestionAnswer("What do bees do?", "Hum"),)})
"""


def check_run(folder):
    """The metric and the objective are in everything that the run wrote for people and programs."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["utility_metrics"]["answer_words"]
    with (folder / "metrics.csv").open(newline="") as stream:
        assert any("answer_words" in row.values() for row in csv.DictReader(stream))
    report = (folder / "report.html").read_text()
    assert "answer_words" in report
    assert "bounded_ascent" in report


def test_files_named_on_the_command_line_add_a_benchmark_an_objective_and_a_metric(
    tiny_base, tmp_path, monkeypatch, capsys
):
    (tmp_path / "own_benchmark.py").write_text(BENCHMARK)
    plugins = [tmp_path / "own_benchmark.py", *(PACKAGE / "o3_example").glob("[ab]*.py")]
    for path in plugins:
        assert len(path.read_text().splitlines()) <= MOST_LINES.get(path.stem, 20)
    words = [word for path in plugins for word in ("--plugin", str(path))]
    with pytest.raises(SystemExit):
        read_run("run", [*words, "--help"])
    assert "bounded_ascent" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        read_run("run", [*words, "--help-all"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in ("own_benchmark", "bounded_ascent.margin = 6.0", "answer_words"))
    words += ["--data.name", "own_benchmark", "--data.requests", "[rivers_1]", "--output", str(tmp_path)]
    config, trainer, _ = read_run("run", [*words, *CHOSEN, *SMALL])
    monkeypatch.setattr(recorded_base, "load_base", lambda config, seed: tiny_base)
    folder = run_stream(config, trainer)
    assert json.loads((folder / "metrics.json").read_text())["requests"] == ["rivers_1"]
    check_run(folder)


@pytest.mark.slow
def test_an_installed_package_adds_an_objective_and_a_metric(tiny_base, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "source")
    for part in (tiny_base.model, tiny_base.tokenizer):
        part.save_pretrained(tmp_path / "base")
    target, python = tmp_path / "installed", [sys.executable, "-m"]
    offline = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    install = [*python, "pip", "install", *offline, "--target", str(target), str(tmp_path / "source")]
    subprocess.run(install, check=True)
    path = os.pathsep.join([str(target), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    run = [*python, "o3_lightning", "run"]

    def call(*words):
        done = subprocess.run(
            [*run, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())

    assert "bounded_ascent" in call("--help")
    told = call("--help-all")
    assert "bounded_ascent.margin = 6.0" in told
    assert "answer_words" in told
    call("--base.id", "base", "--data.count", "1", *FEW, *CHOSEN, *SMALL)
    check_run(tmp_path / "runs/run")
