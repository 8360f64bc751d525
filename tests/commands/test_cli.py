"""The command line: help, versions, exit statuses."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from o3_lightning.commands.choices import SHOWN
from o3_lightning.commands.cli import COMMANDS, main
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.run.config import RunConfig
from o3_lightning.run.live import protect_request
from o3_lightning.store import Store

ROOT = Path(__file__).parents[2]


def test_help_lists_every_command(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"o3-lightning {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rn"], "unknown command 'rn'"),
        (["requests", "lst"], "invalid choice: 'lst'"),
        (["requests", "list"], "name the store"),
        (["report"], "give one run's folder"),
        (["requests", "certify", "a", "--reason", os.fsdecode(b"\xff")], "expected words in UTF-8"),
        (["run", "--config"], "config"),
        (["requests", "list", "--store", "nowhere"], "no store here"),
        (["ask", "--name", "a"], "expected a question"),
        (["ask", "--name", "a", "Who?", " "], "expected a question"),
        (["ask", "--name", "never_run", "Who?"], "there is no store"),
        (["ask", "--output", ".", "--name", "empty", "Who?"], "there is no store"),
        (["detector", "--name", "a", "--request", "nobody"], "no request 'nobody'"),
    ],
)
def test_a_mistake_gives_one_line_and_status_two(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("O3_CACHE", "cache")
    Path("empty/store").mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert not Path("cache").exists()  # nothing was trained before the mistake was told
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert message in error


@pytest.mark.parametrize(
    ("content", "message"),
    [("name: z\u00fcrich\n".encode("latin-1"), "not UTF-8"), (b"name: a\noutput: 5\n", "5/a/store")],
)
def test_a_configuration_that_names_no_store_is_told_in_one_line(content, message, capsys, tmp_path):
    (tmp_path / "wrong.yaml").write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        main(["requests", "list", "--config", str(tmp_path / "wrong.yaml")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_checkout_without_its_packages_says_how_to_install(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "o3_lightning.commands.run", raising=False)
    monkeypatch.setitem(sys.modules, "o3_lightning.commands.common", None)
    with pytest.raises(ModuleNotFoundError):  # a mistake of our own is no message for a user
        main(["run", "--help"])
    monkeypatch.undo()
    done = subprocess.run(
        [sys.executable, "-S", "train.py", "run", "--config", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not installed; 'make demo' or 'pip install -e .' installs it" in done.stderr


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, True), (errno.EFBIG, True), (errno.EROFS, True), (errno.ENOENT, False)],
)
def test_a_file_system_that_refuses_is_told_in_one_line_and_a_bug_is_not(number, told, capsys, monkeypatch):
    def fail(words):
        raise OSError(number, os.strerror(number), "runs/a/metrics.json")

    monkeypatch.setattr("o3_lightning.commands.cli.dispatch", fail)
    with pytest.raises(SystemExit if told else OSError):
        main(["run"])
    reason = os.strerror(number)
    expected = f"error: runs/a/metrics.json: {reason}; the same command continues where it stopped: "
    assert capsys.readouterr().err.startswith(expected if told else "")


@pytest.mark.parametrize("name", ["", ".", "/", "folder"])
def test_a_folder_in_place_of_a_file_is_named(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Store.create("store", "base", "b" * 64, "encoder", "e" * 64)
    with pytest.raises(SystemExit) as stop:
        main(["requests", "bom", "--store", "store", "--out", name])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {Path(name)}: Is a directory\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "store"]


@pytest.mark.parametrize(
    ("words", "error", "status", "message"),
    [
        (["run", "--name", "a b"], KeyboardInterrupt(), 130, "o3-lightning run --name 'a b'\n"),
        (["run", "--name", "a"], SystemExit(143), 143, "o3-lightning run --name a\n"),
        (["ask", "Who?"], KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_interrupted_command_says_the_next_one(words, error, status, message, capsys, monkeypatch):
    def fail(words):
        raise error

    monkeypatch.setattr("o3_lightning.commands.cli.dispatch", fail)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == status
    assert capsys.readouterr().err.endswith(message)


def test_a_command_that_gets_sigterm_says_the_next_one(capsys, monkeypatch):
    def stop_itself(words):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr("o3_lightning.commands.cli.dispatch", stop_itself)
    with pytest.raises(SystemExit) as stop:
        main(["reveal", "--topic", "the Moon"])
    assert stop.value.code == 143
    assert capsys.readouterr().err.endswith("o3-lightning reveal --topic 'the Moon'\n")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_reader_that_has_seen_enough_ends_the_program_quietly():
    command = [sys.executable, "train.py", "--help"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_the_table_of_the_configuration_prints_as_yaml(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "--print_config"])
    assert stop.value.code == 0
    assert "detector:" in capsys.readouterr().out


def test_a_line_that_failed_prints_no_configuration_in_place_of_the_next_one(capsys):
    for words in (["reveal", "--print_config", "--seed", "x"], ["reveal", "--reward.floor", ".nan"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
    assert capsys.readouterr().out == ""


SESSION = """
import sys
from o3_lightning.commands.cli import main
from o3_lightning.store import Store
mistakes = 0
for words in sys.stdin.read().splitlines():
    try:
        main(words.split())
    except SystemExit as stop:
        mistakes += stop.code == 2
    heavy = {"torch", "transformers", "lightning", "scipy", "sklearn", "matplotlib"} & set(sys.modules)
    assert not heavy, (words, heavy)
print(mistakes)
"""


def test_help_and_mistakes_are_told_without_importing_torch(tmp_path):
    commands = [name for name in COMMANDS if name not in ("configs", "report", "requests")]
    mistakes = [
        *(f"{command} --config nowhere" for command in commands),
        "requests list --config nowhere",
        "report nowhere",
        "run --trainer.devces 2",
        "run --adapter.rank 0",
        "run --objective.forget.name nothing",
        "evaluate --metrics x",
        "ask --adapter.rank 4",
        "release --mode best",
    ]
    words = [*mistakes, *(f"{command} --help" for command in COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
        input="\n".join(words),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(len(mistakes))


ASKED = """
import importlib.util, sys
from o3_lightning.commands.cli import main
from o3_lightning.detector.base import DETECTORS
DETECTORS.names()
main(["ask", "--name", "a", "--output", sys.argv[1], "--base.id", sys.argv[2], "Where was Quillan born?"])
print(sorted({name.split(".")[0] for name in sys.modules}))
spec = importlib.util.find_spec("kernels")  # transformers would import a package of this name
assert spec is None or spec.origin is None, spec
"""


@pytest.fixture
def saved_base(tiny_base, tmp_path):
    """A folder from which a command loads the tiny model."""
    folder = tmp_path / "base"
    tiny_base.model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    return folder


def test_asking_imports_nothing_that_only_training_and_reports_need(
    saved_base, remembering_encoder, tmp_path
):
    base = load_base(BaseConfig(id=str(saved_base)))
    store = Store.create(
        tmp_path / "a/store", base.id, base.digest, remembering_encoder.id, remembering_encoder.digest
    )
    rows = tuple(QuestionAnswer(f"Where was Quillan Osterhaus born, part {n}?", "In Arlo") for n in range(4))
    protect_request(store, remembering_encoder, UnlearningRequest("quillan", rows), RunConfig())
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(tmp_path), str(saved_base)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "gated" in done.stdout
    assert "'transformers'" in done.stdout
    training = (
        "peft",
        "lightning",
        "torchmetrics",
        "matplotlib",
        "sklearn",
        "datasets",
        "wandb",
        "rouge_score",
    )
    assert not [name for name in training if f"'{name}'" in done.stdout]


def test_the_short_help_shows_few_options_and_the_long_one_those_that_the_command_reads(capsys):
    texts = {}
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            main(["ask", option])
        texts[option] = capsys.readouterr().out
    assert texts["--help"].count("\n  --") <= 16
    assert "--gate.floor" not in texts["--help"]
    assert "--gate.floor" in texts["--help-all"]
    assert "--adapter" not in texts["--help-all"]


@pytest.mark.parametrize("command", sorted(SHOWN))
def test_every_option_of_the_short_help_exists(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert not [name for name in SHOWN[command] if name not in text]
