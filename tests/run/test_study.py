"""Studies: what is read, what is refused, and that the table says what the runs measured."""

import json
import shlex
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from scipy import stats

import o3_lightning.run.study as study_module
from o3_lightning.commands.cli import main
from o3_lightning.commands.common import read_run
from o3_lightning.common.errors import InputError
from o3_lightning.evaluation.figures import headline
from o3_lightning.metrics.quality import CLOSER_LOOK_METRICS, EFFICACY_METRICS, TOFU_SPLITS
from o3_lightning.run.dry_run import command_of, lines_of
from o3_lightning.run.study import merge, read_study, run_study, summarise
from o3_lightning.run.study_table import cell, table
from tests.run.test_configs import ROOT

STUDY = """
question: which rank
common: {adapter: {epochs: 2}}
variants:
  small: {adapter: {rank: 2}}
  large: {adapter: {rank: 16}}
seeds: [0, 1]
figures: [held_out, utility]
"""


def write_study(folder, text=STUDY, name="ranks.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def metrics_of(held_out, utility):
    matrix = {"values": [[1.0, held_out, held_out]]}
    return {
        "requests": ["a"],
        "persistence": {"accuracy": {"held_out": matrix, "seen": matrix}},
        "utility": {"kept": [1.0, utility, utility]},
        "u2r": 3.0,
        "seconds": {"01-a-unlearn": 2.0, "01-a-protect": 1.0, "01-a-evaluate": 9.0},
    }


def test_a_study_runs_every_variant_with_every_seed_and_sums_up(tmp_path, monkeypatch):
    def fake_run(config, trainer):
        config.folder.mkdir(parents=True)
        held_out = config.adapter.rank / 100 + config.seed / 10
        (config.folder / "metrics.json").write_text(json.dumps(metrics_of(held_out, 0.9)))
        return config.folder

    monkeypatch.setattr("o3_lightning.run.pipeline.run_stream", fake_run)
    study = read_study(write_study(tmp_path))
    content = run_study(study, tmp_path / "runs", tmp_path / "results")
    figures = content["variants"]["large"]["figures"]
    assert figures["held_out"]["values"] == pytest.approx([0.16, 0.26])
    assert figures["held_out"]["deviation"] == pytest.approx(statistics.stdev([0.16, 0.26]))
    assert figures["seconds"]["mean"] == 3.0
    assert "drift" not in figures
    assert json.loads((tmp_path / "results/ranks.json").read_text())["seeds"] == [0, 1]
    text = (tmp_path / "results/ranks.md").read_text()
    assert text == table(content)
    assert "| `large` | 0.210 ± 0.071 | 0.900 ± 0.000 |" in text
    assert "| base model | 1.000 ± 0.000 | 1.000 ± 0.000 |" in text
    assert "seconds" not in content["base"]
    assert (tmp_path / "runs/ranks/small-seed1/metrics.json").is_file()


def test_common_fields_build_on_a_configuration_file(tmp_path):
    (tmp_path / "base.yaml").write_text("adapter: {epochs: 3, rank: 4}\n")
    text = STUDY.replace("common:", "config: base.yaml\ncommon:")
    config = read_study(write_study(tmp_path, text)).job("small", 1, tmp_path).config
    assert (config.adapter.epochs, config.adapter.rank, config.seed) == (2, 2, 1)


def test_configuration_files_are_stacked_with_what_they_hold_for_the_benchmark(tmp_path):
    (tmp_path / "base.yaml").write_text("data: {name: tofu}\nadapter: {epochs: 3}\n")
    (tmp_path / "over.yaml").write_text("adapter: {epochs: 4}\nby_benchmark: {tofu: {adapter: {alpha: 2}}}\n")
    text = STUDY.replace("common: {adapter: {epochs: 2}}", "config: [base.yaml, over.yaml]")
    config = read_study(write_study(tmp_path, text)).job("small", 0, tmp_path).config
    assert (config.data.name, config.adapter.epochs, config.adapter.alpha) == ("tofu", 4, 2.0)


def test_files_given_beside_a_study_override_it_and_name_it(tmp_path):
    (tmp_path / "over.yaml").write_text("name: +_over\nadapter: {epochs: 7, rank: 3}\n")
    path, over = write_study(tmp_path), [tmp_path / "over.yaml"]
    study = read_study(path, over)
    config = study.job("small", 0, tmp_path).config
    assert (study.name, config.adapter.epochs, config.adapter.rank) == ("ranks_over", 7, 2)
    assert read_study(path, over, "mine").name == "mine"
    assert read_study(path, over, "mine", [7]).seeds == (7,)


def test_variants_are_compared_with_ours_pair_by_pair(tmp_path):
    text = STUDY.replace("small:", "ours:").replace("[0, 1]", "[0, 1, 2]").replace("y]", "y, truth]")
    study = read_study(write_study(tmp_path, text))
    ours, other = [0.1, 0.2, 0.3], [0.4, 0.52, 0.61]
    measured = {
        name: {
            seed: {"held_out": value, "utility": utility, "truth": truth}
            for seed, (value, utility) in enumerate(zip(values, kept, strict=True))
        }
        for name, values, kept, truth in (
            ("ours", ours, [0.3] * 3, 0.0),
            ("large", other, [0.3, 0.1 + 0.2, 0.3], 1.0),
        )
    }
    content = summarise(study, measured)
    found = content["variants"]["large"]["figures"]
    assert found["held_out"]["p"] == pytest.approx(stats.ttest_rel(other, ours).pvalue)
    assert found["utility"]["p"] is None  # they differ by rounding
    assert found["truth"]["p"] == 0  # they differ by one with every seed
    assert "p" not in content["variants"]["ours"]["figures"]["held_out"]
    text = table(content)
    assert "| `large` | 0.510 ± 0.105* | 0.300 ± 0.000 | 1.000 ± 0.000* |" in text
    assert "* differs from `ours`" in text
    del measured["large"][2]
    fewer = table(summarise(study, measured))
    assert "*" not in fewer.split("\n\n")[0]
    assert "Not all seeds yet: `large` [0, 1]." in fewer


def test_the_accuracies_of_o3_are_found_by_name_since_files_are_sorted():
    official = {"seen": 0.1, "held_out": 0.2, "retained": 0.3, "commonsenseqa": 0.4, "openbookqa": 0.5}
    pairs = {name: [value + 0.5, value] for name, value in sorted(official.items())}
    metrics = {**metrics_of(0.5, 0.9), "official": [{**pairs, "u2r": 1.0}]}
    for column, added in ((-1, 0.0), (0, 0.5)):
        figures = headline(metrics, column)
        found = [figures[name] - added for name in ("su", "du", "rd", "u1", "u2")]
        assert found == pytest.approx(list(official.values()))


def test_the_base_model_has_a_row_only_where_all_variants_share_it(tmp_path, monkeypatch):
    def fake_run(config, trainer):
        metrics = metrics_of(0.5, 0.9)
        metrics["persistence"]["accuracy"]["held_out"] = {"values": [[config.adapter.rank / 20, 0.5, 0.5]]}
        config.folder.mkdir(parents=True)
        (config.folder / "metrics.json").write_text(json.dumps(metrics))

    monkeypatch.setattr("o3_lightning.run.pipeline.run_stream", fake_run)
    content = run_study(read_study(write_study(tmp_path)), tmp_path / "runs", tmp_path / "results")
    assert content["base"] == {}
    assert "| base model" not in table(content)


def test_results_are_written_after_each_run_and_say_what_is_missing(tmp_path, monkeypatch):
    def fake_run(config, trainer):
        if config.adapter.rank == 16:
            raise InputError("stopped")
        base = config.folder / "stages/00-base-evaluate.json"
        assert base.is_file() == config.name.startswith("third")
        base.parent.mkdir(parents=True, exist_ok=True)
        base.write_text("{}")
        (config.folder / "metrics.json").write_text(json.dumps(metrics_of(0.5, 0.9)))
        return config.folder

    monkeypatch.setattr("o3_lightning.run.pipeline.run_stream", fake_run)
    text = STUDY.replace("seeds: [0, 1]", "  third: {adapter: {alpha: 1}}\nseeds: [0]")
    with pytest.raises(InputError, match="1 of 3 runs failed: large-seed0: stopped"):
        run_study(read_study(write_study(tmp_path, text)), tmp_path / "runs", tmp_path / "results")
    content = json.loads((tmp_path / "results/ranks.json").read_text())
    assert (list(content["variants"]), content["missing"]) == (["small", "third"], ["large"])
    assert "Not run yet: `large`." in (tmp_path / "results/ranks.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("common", "comon"), "unknown key 'comon'"),
        (("held_out, utility", "held, utility"), "got ['held']"),
        (("[0, 1]", "[]"), "field 'seeds'"),
        (("rank: 2", "rank: 0"), "variant 'small': field 'adapter.rank'"),
        (("rank: 2", "rnk: 2"), "did you mean 'adapter.rank'"),
        (("{adapter: {rank: 2}}", "{adapter: {rank: 2"), "is not YAML"),
        (("adapter: {rank: 2}", "adaptr: {rank: 2}"), "did you mean 'adapter.rank'"),
        (("small:", "../small:"), "ranks.yaml: field 'variants'"),
        (("rank: 2}", "rank: 2}, seed: 3"), "field 'variants.small': the study sets 'seed' itself"),
        (("[0, 1]", "[1, 1]"), "field 'seeds': expected different integers"),
        (("[0, 1]", "5"), "field 'seeds'"),
        (("[held_out, utility]", "5"), "field 'figures'"),
        (("[held_out, utility]", "utility"), "field 'figures'"),
        (("{adapter: {rank: 2}}", "5"), "field 'variants.small': expected fields, got 5"),
        (("question:", "seeds: [3]\nquestion:"), "key 'seeds' comes twice"),
    ],
)
def test_a_mistake_in_a_study_is_told_before_anything_runs(change, message, tmp_path, monkeypatch):
    monkeypatch.setattr("o3_lightning.run.pipeline.run_stream", lambda *_: pytest.fail("a run began"))
    with pytest.raises(InputError) as error:
        read_study(write_study(tmp_path, STUDY.replace(*change)))
    assert message in str(error.value)


def test_the_command_names_a_missing_file(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["study", "--config", str(tmp_path / "none.yaml")])
    assert stop.value.code == 2
    assert "none.yaml" in capsys.readouterr().err


def test_merging_leaves_both_sides_as_they_were():
    base, change = {"a": {"b": 1, "c": [1]}}, {"a": {"b": 2}}
    merged = merge(base, change)
    merged["a"]["c"].append(2)
    assert (merged["a"]["b"], base, change) == (2, {"a": {"b": 1, "c": [1]}}, {"a": {"b": 2}})


def test_headline_tells_what_is_between_adapters_and_how_training_slows_down():
    metrics = metrics_of(0.1, 0.9)
    metrics["overlaps"] = {
        "update_cosine": [[1.0, -0.2], [0.4, 1.0]],
        "interference": [[5.0, 1.0], [2.0, 5.0]],
    }
    metrics["adapters"] = {str(i): {"seconds": seconds} for i, seconds in enumerate([9.0, 2.0, 2.25, 2.5])}
    metrics["utility_metrics"] = {"probability": {"kept": [0.8, 0.4]}}
    matrix = {"values": [[1.0, 0.2, 0.5], [1.0, 1.0, 0.1]]}
    metrics["persistence"]["probability"] = {"held_out": matrix}
    figures = headline(metrics)
    assert figures["update_cosine"] == pytest.approx(0.3)
    assert figures["interference"] == 1.5
    assert figures["slowdown"] == pytest.approx(0.25)
    assert figures["utility_truth"] == 0.5
    assert figures["truth_drift"] == pytest.approx(0.3)
    assert "row_overlap" not in figures


def test_headline_has_the_combined_metrics_of_closer_look_where_all_their_parts_were_measured():
    metrics = metrics_of(0.1, 0.9)
    for name in EFFICACY_METRICS:
        rows = [[1.0, 0.25], [1.0, 0.75]]
        metrics["persistence"][name] = {"seen": {"values": rows}}
    metrics["utility_metrics"] = {
        name: {split: [1.0, 0.5] for split in TOFU_SPLITS}
        for name in (*CLOSER_LOOK_METRICS, "probability", "normalised_probability")
    }
    figures = headline(metrics)
    assert (figures["efficacy"], figures["model_utility"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert headline(metrics, 0)["efficacy"] == 0.0
    assert (figures["seen_cosine"], figures["utility_ratio"]) == (0.5, 0.5)
    assert headline(metrics, 0)["utility_entropy"] == 1.0
    del metrics["persistence"]["entailment"], metrics["utility_metrics"]["entailment"]
    assert not {"efficacy", "model_utility"} & headline(metrics).keys()


def test_a_change_of_an_earlier_request_counts_in_both_directions():
    metrics = metrics_of(0.1, 0.9)
    metrics["persistence"]["accuracy"]["held_out"] = {"values": [[1.0, 0.75, 0.25], [1.0, 1.0, 0.0]]}
    assert headline(metrics)["drift"] == 0.5


@pytest.mark.parametrize(
    ("rows", "drift"),
    [
        ([[None] * 4, [1.0, 1.0, 0.0, 0.25], [1.0, 1.0, 1.0, 0.0]], 0.25),
        ([[1.0, 0.5, 0.0, 0.75], [1.0, 1.0, 0.0, 0.5], [None] * 4], 0.5),
        ([[None] * 4, [None] * 4, [1.0, 1.0, 1.0, 0.0]], None),
    ],
)
def test_a_request_without_held_out_prompts_moves_no_column_of_another(rows, drift):
    metrics = metrics_of(0.1, 0.9)
    metrics["persistence"]["accuracy"]["held_out"] = {"values": rows}
    assert headline(metrics).get("drift") == drift


def test_headline_leaves_out_what_was_not_measured():
    figures = headline({"requests": ["a"], "persistence": {}, "utility": {}, "u2r": None, "seconds": {}})
    assert figures == {}
    assert cell("drift", None) == "–"


GRID = """
common: {adapter: {epochs: 2}}
grid: {adapter.rank: [2, 8, 4]}
validation: {data: {requests: [authors_3]}}
variants:
  ours: {grid: {adapter.rank: []}}
  other: {adapter: {epochs: 3}}
seeds: [0, 1]
figures: [held_out, utility]
"""


def rank_run(config, trainer):
    """A run that forgets better with a higher rank, and diverges at rank 8."""
    if config.adapter.rank == 8 and "validation" in config.name:
        raise InputError("diverged")
    config.folder.mkdir(parents=True, exist_ok=True)
    held_out = 1 - config.adapter.rank / 10
    (config.folder / "metrics.json").write_text(json.dumps(metrics_of(held_out, 0.9)))
    return config.folder


def test_a_grid_is_decided_on_validation_requests_and_its_choice_is_named(tmp_path, monkeypatch):
    seen = []

    def fake_run(config, trainer):
        seen.append((config.name, config.adapter.rank, config.adapter.epochs, config.data.requests))
        return rank_run(config, trainer)

    monkeypatch.setattr("o3_lightning.run.pipeline.run_stream", fake_run)
    content = run_study(read_study(write_study(tmp_path, GRID)), tmp_path / "runs", tmp_path / "results")
    tried = [(f"other-validation{n}", rank, 3, ("authors_3",)) for n, rank in enumerate((2, 8, 4), 1)]
    assert seen[:3] == tried
    assert sorted(seen[3:]) == sorted(
        [
            (f"{name}-seed{seed}", rank, epochs, ())
            for name, rank, epochs in (("ours", 8, 2), ("other", 4, 3))
            for seed in (0, 1)
        ]
    )
    chosen = content["variants"]["other"]["chosen"]
    assert chosen["values"] == {"adapter.rank": 4}
    assert [each["score"] for each in chosen["tried"]] == pytest.approx([0.18, None, 0.36])
    assert "chosen" not in content["variants"]["ours"]
    text = (tmp_path / "results/ranks.md").read_text()
    assert "Chosen on validation requests, not on those of the table: `other` rank 4 (best of 3)." in text


def test_a_variant_without_a_finished_combination_fails_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("o3_lightning.run.pipeline.run_stream", rank_run)
    study = read_study(write_study(tmp_path, GRID.replace("[2, 8, 4]", "[8]")))
    with pytest.raises(InputError, match="other: no combination of its grid finished"):
        run_study(study, tmp_path / "runs", tmp_path / "results")
    assert json.loads((tmp_path / "results/ranks.json").read_text())["missing"] == ["other"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("validation: {data: {requests: [authors_3]}}", ""), "field 'validation': a grid needs requests"),
        (("adapter.rank: [2, 8, 4]", "adapter.rank: 2"), "field 'grid': expected lists of values by field"),
        (("adapter.rank: []", "adapter.rank: 5"), "field 'variants.ours.grid'"),
        (("[2, 8, 4]", "[2, 0]"), "variant 'other': field 'adapter.rank'"),
    ],
)
def test_a_mistake_in_a_grid_is_found_before_anything_runs(change, message, tmp_path):
    with pytest.raises(InputError) as error:
        read_study(write_study(tmp_path, GRID.replace(*change)))
    assert message in str(error.value)


def test_a_run_of_another_process_is_left_to_it_and_awaited(tmp_path, monkeypatch):
    output = tmp_path / "runs"
    monkeypatch.setattr("o3_lightning.run.pipeline.run_stream", rank_run)
    lock = FileLock(output / "ranks/.locks/small-seed0.lock")
    Path(lock.lock_file).parent.mkdir(parents=True)
    lock.acquire()
    waited = []

    def other_process_finishes(seconds):
        waited.append(seconds)
        assert (output / "ranks/large-seed1/metrics.json").is_file()
        assert not (output / "ranks/small-seed0").exists()
        lock.release()

    monkeypatch.setattr(study_module, "time", SimpleNamespace(sleep=other_process_finishes))
    content = run_study(read_study(write_study(tmp_path)), output, tmp_path / "results")
    assert (len(waited), content["variants"]["small"]["seeds"]) == (1, [0, 1])


def test_a_dry_run_lists_commands_that_give_the_same_configurations(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("o3_lightning.run.pipeline.run_stream", lambda *_: pytest.fail("a run began"))
    path, output = write_study(tmp_path, GRID), tmp_path / "runs"
    study = read_study(path)
    finished = output / "ranks/ours-seed0/metrics.json"
    finished.parent.mkdir(parents=True)
    finished.write_text(json.dumps(metrics_of(0.1, 0.9)))
    main(["study", "--config", str(path), "--output", str(output), "--dry_run", "true"])
    *commands, summary = capsys.readouterr().out.splitlines()
    assert summary == "# runs: 6, about 0.2 minutes each (mean of 1 finished): 0.02 hours"
    configs = [read_run("run", shlex.split(line.split(" run ", 1)[1]))[0] for line in commands]
    assert configs[0] == study.candidates("other", output)[0][1].config
    assert [one.name for one in configs[3:]] == ["other-seed0", "ours-seed1", "other-seed1"]
    assert configs[4] == study.job("ours", 1, output).config


def test_an_estimate_replaces_the_finished_runs_that_are_missing(tmp_path):
    study = read_study(write_study(tmp_path))
    *commands, summary = lines_of(study, tmp_path / "runs", lambda config, trainer: 1800.0)
    assert (len(commands), summary.split(": ")[-1]) == (4, "2.00 hours")
    assert "estimated from a few steps of small-seed0" in summary


def test_commands_of_a_shipped_study_give_its_configurations(tmp_path):
    over = [ROOT / "configs/scienceqa.yaml", ROOT / "configs/overlays/small.yaml"]
    study = read_study(ROOT / "configs/experiments/methods.yaml", over)
    for name in ("ours", "me_gd"):
        words = command_of(study.job(name, 0, tmp_path).fields).split(" run ", 1)[1]
        assert read_run("run", shlex.split(words))[0] == study.job(name, 0, tmp_path).config
