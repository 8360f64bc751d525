"""The configuration: every shipped file loads, documented defaults are the real ones, mistakes are named."""

import dataclasses
import functools
import inspect
import re
from pathlib import Path

import pytest
import yaml

import o3_lightning.run.study as study_module
from benchmarks.detector.__main__ import read_experiment
from o3_lightning.commands.common import config_parser, read_run
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import leaves, to_plain
from o3_lightning.detector.config import PRESETS, DetectorConfig
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.reveal.config import RevealConfig
from o3_lightning.run.config import RunConfig, default_yaml
from o3_lightning.run.parsing import build, config_from, merge, parse
from o3_lightning.run.study import read_study
from o3_lightning.training.config import trainer_class

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = {
    path: path.relative_to(CONFIGS).with_suffix("").as_posix() for path in sorted(CONFIGS.rglob("*.yaml"))
}
STUDIES = [path for path in SHIPPED if "variants:" in path.read_text()]
DETECTORS = [path for path, name in SHIPPED.items() if name.startswith("experiments/detector_")]
OWN = [path for path, name in SHIPPED.items() if name.startswith(("reveal_", "release_"))]
OVERLAYS = [path for path, name in SHIPPED.items() if name.startswith("overlays/")]
PARTS = [*OVERLAYS, *(path for path, name in SHIPPED.items() if name.startswith("trainer/"))]
RUNS = [path for path in SHIPPED if path not in (*STUDIES, *DETECTORS, *OWN, *PARTS)]


def read(*arguments):
    return read_run("run", list(arguments))


read_once = functools.cache(read)


@pytest.mark.parametrize("path", STUDIES, ids=SHIPPED.get)
def test_every_shipped_study_is_read_whole(path, monkeypatch):
    checked = []

    def note(values):
        checked.append(config_from(values))
        return checked[-1]

    monkeypatch.setattr(study_module, "config_from", note)
    study = read_study(path)
    assert study.question
    for (config, _), own in zip(checked, study.variants.values(), strict=True):
        plain = to_plain(config)  # what a variant changes reaches its run
        assert all(reached(plain, field) == value for field, value in leaves(own))


@pytest.mark.parametrize("path", DETECTORS, ids=SHIPPED.get)
def test_every_shipped_experiment_with_detectors_is_read_whole(path):
    config, output = read_experiment(path)
    assert config.detectors
    assert output.endswith(".json")


@pytest.mark.parametrize("path", OWN, ids=SHIPPED.get)
def test_every_shipped_configuration_of_its_own_command_loads(path):
    command = path.stem.split("_")[0]
    kind = RevealConfig if command == "reveal" else ReleaseConfig
    assert (
        build(
            kind,
            parse(config_parser(command, kind, trainer=command == "release"), ["--config", str(path)]),
        ).seed
        >= 0
    )


def reached(plain, name):
    for part in name.split("."):
        plain = plain[part]
    return plain


@pytest.mark.parametrize("path", RUNS, ids=SHIPPED.get)
def test_what_a_shipped_configuration_gives_is_what_runs(path):
    given = dict(leaves(yaml.safe_load(path.read_text())))
    config, trainer, _ = read("--config", str(path))
    assert isinstance(config, RunConfig)
    assert trainer["devices"] == 1
    plain = {**to_plain(config), "trainer": trainer}
    empty = ("", [])  # in default.yaml: filled in by the preset
    assert {name: reached(plain, name) for name, value in given.items() if value not in empty} == {
        name: value for name, value in given.items() if value not in empty
    }


@pytest.mark.parametrize("path", OVERLAYS, ids=SHIPPED.get)
@pytest.mark.parametrize("benchmark", ["clinc150", "scienceqa", "tofu_continual"])
def test_an_overlay_changes_what_it_says_and_nothing_else(path, benchmark):
    given = yaml.safe_load(path.read_text())
    own = given.pop("by_benchmark", {}).get(benchmark.removesuffix("_continual"), {})
    expected = dict(leaves(merge(given, own)))
    before, after = (
        dict(leaves(to_plain(read_once(*words)[0])))
        for words in (["--config", benchmark], ["--config", benchmark, "--config", SHIPPED[path]])
    )
    assert after["name"] == f"{benchmark}_{path.stem}"
    assert {**expected, "name": ""}.items() <= {**after, "name": ""}.items()
    preset = "detector." if "detector.preset" in expected else "name"
    changed = {key for key in after if before.get(key) != after[key] and not key.startswith(preset)}
    assert changed <= {*expected, "name"}


def test_a_name_is_appended_to_what_came_before_and_a_path_wins_over_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read("--config", "demo")[0] == read("--config", str(CONFIGS / "demo.yaml"))[0]
    assert read("--name", "a", "--config", "overlays/paper", "--seed", "1")[0].name == "a_paper"
    (tmp_path / "demo").write_text("name: mine\n")
    assert read("--config", "demo")[0].name == "mine"
    with pytest.raises(InputError, match="did you mean 'tofu_continual'"):
        read("--config", "tofu_continal")


def test_default_yaml_is_what_the_classes_say():
    assert (CONFIGS / "default.yaml").read_text() == default_yaml()


def test_default_yaml_holds_the_defaults():
    config, _, _ = read("--config", str(CONFIGS / "default.yaml"))
    assert config == RunConfig()


def test_a_run_reads_back_the_configuration_it_wrote(tmp_path):
    config, _, _ = read("--name", "again", "--adapter.rank", "4", "--detector.preset", "cosine_maha_lexical")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_plain(config)))
    assert read("--config", str(path))[0] == config


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_given_to_the_parser_fills_what_it_fills_in_python(preset, tmp_path):
    expected = DetectorConfig(preset=preset)
    assert read("--detector.preset", preset)[0].detector == expected
    assert config_from({"detector": {"preset": preset}})[0].detector == expected
    path = tmp_path / "config.yaml"
    path.write_text((CONFIGS / "default.yaml").read_text().replace("preset: default", f"preset: {preset}"))
    assert read("--config", str(path))[0].detector == expected


def test_a_given_field_is_stronger_than_the_preset():
    config = config_from({"detector": {"preset": "paper", "objective": "none"}})[0]
    assert config.detector == DetectorConfig(preset="paper", objective="none")
    assert config.detector.family == "layers"


def test_the_command_line_overrides_the_file():
    config, _, _ = read("--config", str(CONFIGS / "demo.yaml"), "--seed", "3")
    assert (config.name, config.seed) == ("demo", 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeed", "3"], "unknown key 'seeed'; did you mean 'seed'?"),
        (["--adapter.rnk", "3"], "unknown key 'adapter.rnk'; did you mean 'adapter.rank'?"),
        (["--se-ed", "3"], "unknown key 'se-ed'; did you mean 'seed'?"),
        (["--adapter.rank", "many"], "adapter.rank"),
        (["--adapter.rank", "0"], "field 'adapter.rank': expected 1 or more, got 0"),
        (["--trainer.max_epoch", "3"], "did you mean 'trainer.max_epochs'?"),
        (["--config", "missing.yaml"], "missing.yaml: there is no such file"),
        (["--config", "n" * 300], "there is no such file"),
        (["--config", "name: a"], "name: a: there is no such file"),
        (["--seed", "-1"], "field 'seed': expected an integer from 0 to 4294967295, got -1"),
        (["--output", "a\0b"], "field 'output': expected text without NUL"),
        (
            ["--detector.channel_weights", "[0,0,0,0,0]"],
            "'detector.channel_weights': expected 5 weights, not all 0",
        ),
        (["--name", "../up"], "field 'name'"),
        (["--gate.combine", "all"], "field 'gate.combine'"),
        (["--detector.tail_quantile", "2"], "detector.tail_quantile"),
        (["--data.requests", "forget.jsonl"], "a list is written '[one, two]'"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        read(*arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_key_of_a_file_is_named_with_the_nearest_right_one(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("name: a\nadapter:\n  rnk: 3\n")
    with pytest.raises(InputError, match=r"unknown key 'adapter.rnk'; did you mean 'adapter.rank'"):
        read("--config", str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys and values"),
        (b"- 1\n", "expected keys and values"),
        ("name: z\u00fcrich\n".encode("latin-1"), "not UTF-8: byte 8"),
        (b"name: a\nseed: 1\nname: b\n", "key 'name' comes twice"),
        (b"adapter: {rank: 2, rank: 4}\n", "key 'rank' comes twice"),
        (b"adapter: 5\n", "field 'adapter': expected the fields of a section, got 5"),
        (
            b"objective:\n  forget: null\n",
            "field 'objective.forget': expected the fields of a section, got None",
        ),
        (b"trainer: null\n", "field 'trainer': expected the fields of a section, got None"),
        (b"name:\n", "field 'name': expected a value, got null"),
        (b"trainer:\n  foo: 1\n", "unknown key 'trainer.foo'; did you mean 'trainer."),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_what_is_wrong_with_a_file_is_told_in_one_line(content, message, joined, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(*([f"--config={path}"] if joined else ["--config", str(path)]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_is_read_once_by_the_strict_reader(tmp_path, monkeypatch):
    path, reads = tmp_path / "mine.yaml", []
    path.write_text("name: 2024-01-01\nadapter: {learning_rate: 1e-5}\ntrainer: {gradient_clip_val: 0.5}\n")
    monkeypatch.setattr(Path, "read_text", lambda self, **_: reads.append(self) or self.read_bytes().decode())
    config, trainer, _ = read("--name", "other", "--config", str(path), "--adapter.rank", "2")
    assert reads == [path]
    assert (config.name, config.adapter.learning_rate, config.adapter.rank) == ("2024-01-01", 1e-5, 2)
    assert trainer["gradient_clip_val"] == 0.5


def test_a_file_may_fill_one_section(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("rank: 5\n")
    assert (
        read("--adapter", str(path), "--seed", "2")[0] == config_from({"adapter": {"rank": 5}, "seed": 2})[0]
    )
    path.write_text("max_epochs: 3\n")
    assert read("--trainer", str(path))[1] == read("--trainer.max_epochs", "3")[1]
    path.write_bytes("rank: z\u00fcrich\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8: byte 8"):
        read("--adapter", str(path))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "marked.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: marked\r\nseed: 4\r\n")
    config, _, _ = read("--config", str(path))
    assert (config.name, config.seed) == ("marked", 4)


def test_options_of_the_trainer_pass_through():
    _, trainer, _ = read("--name", "a", "--trainer.max_epochs", "2", "--trainer.precision", "bf16-true")
    assert (trainer["max_epochs"], trainer["precision"]) == (2, "bf16-true")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"gate": {"floor": float("nan")}}, "gate.floor"),
        ({"adapter": {"learning_rate": float("inf")}}, "adapter.learning_rate"),
        ({"trainer": {"gradient_clip_val": float("nan")}}, "trainer.gradient_clip_val"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(values, field):
    with pytest.raises(InputError, match=f"{re.escape(field)}.*expected a finite number"):
        config_from(values)


def test_the_options_of_the_trainer_are_those_of_lightning():
    from lightning import Trainer

    real = inspect.signature(Trainer.__init__).parameters
    read_from_source = {field.name: field.default for field in dataclasses.fields(trainer_class())}
    assert read_from_source == {name: real[name].default for name in real if name != "self"}
