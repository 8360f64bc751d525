"""Seeded random command lines: each ends with its work or with one line and status 2, within ten seconds."""

import contextlib
import dataclasses
import importlib
import io
import json
import random
import signal
import sys
from typing import get_type_hints

import pytest
import yaml

from o3_lightning.commands import COMMANDS
from o3_lightning.commands.choices import NOT_READ
from o3_lightning.commands.cli import main
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.reveal.config import RevealConfig
from o3_lightning.run.config import RunConfig
from o3_lightning.store import Store

SECONDS = 10
CONFIGURED = {  # a class of fields for every command that takes some
    **dict.fromkeys(("run", "detector", "adapter", "evaluate", "estimate", "ask"), RunConfig),
    "reveal": RevealConfig,
    "release": ReleaseConfig,
}
HEAVY = {  # where a command line was accepted and its work begins
    "o3_lightning.models.base": ("load_base",),
    "o3_lightning.run.inputs": ("load_base_for",),
    "o3_lightning.detector.encoder": ("load_configured_encoder", "load_encoder"),
    "o3_lightning.training.launch": ("run_processes",),
    "o3_lightning.release.context": (),
    "o3_lightning.release.release": (),
    "o3_lightning.reveal.output": (),
    "o3_lightning.run.estimate": (),
    "o3_lightning.run.live": (),
    "o3_lightning.run.pipeline": (),
    "o3_lightning.run.study": (),
    "o3_lightning.run.unlearner": (),
    "o3_lightning.serving.server": (),
}
TEXTS = ("", " ", "\0", "a\0b", "é" * 300, "\ud800", "../..", "/", "a/b", "-", "--", "[", "{", "}", "'", '"',
         "&a", "*a", "!!python/object:os.system", "null", "~", "yes", "0x10", "1_000", "1e", "\n", "a\nb",
         "%s", "{topic}", "x" * 20_000, "\u202e", "[" * 2000, "- " * 500, "2024-13-01", ":", "a: b", "@", "`",
         "inf", "None")  # fmt: skip
NUMBERS = (
    "nan",
    ".nan",
    "inf",
    "-inf",
    ".inf",
    "1e999",
    "-1e999",
    "1" + "0" * 30,
    "-1" + "0" * 30,
    "9" * 5000,
)
CONTENTS = {  # of configurations that nothing can run with
    "empty": b"",
    "binary": bytes(range(256)),
    "latin": "name: zürich\n".encode("latin-1"),
    "nul": b"name: a\0b\n",
    "list": b"- a\n- b\n",
    "text": b"just words\n",
    "twice": b"seed: 1\nseed: 2\n",
    "nested": ("[" * 5000 + "]" * 5000).encode(),
    "deep": "\n".join(f"{' ' * depth}a:" for depth in range(900)).encode(),
    "bomb": ("a0: &a0 [1]\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]"
                                           for n in range(1, 20))).encode(),
    "self": b"name: &a [*a]\n",
    "unknown": b"nothing: 1\n",
    "inner": b"base:\n  nothing: 1\n",
    "scalar": b"base: 5\n",
    "sections": b"base: [1, 2]\nseed: {a: 1}\n",
    "null": b"seed: null\n",
    "null_id": b"base: {id: null}\n",
    "nan": b"seed: .nan\n",
    "huge": b"seed: 1" + b"0" * 400 + b"\n",
    "tag": b"name: !!python/object/apply:os.system [ls]\n",
    "date": b"name: 2024-01-01\nseed: 2024-01-01\n",
    "keys": b"1: 2\nnull: 3\n[a]: 4\n",
    "merge": b"<<: 5\nname: a\n",
    "documents": b"name: a\n---\nname: b\n",
    "plugins": b"plugins: 5\n",
    "no_plugin": b"plugins: [there_is_none]\n",
    "benchmark": b"by_benchmark: 5\n",
}  # fmt: skip


class Accepted(BaseException):
    """Raised where the work of a command begins."""


def fields_of(kind, prefix=""):
    """Names, types and defaults of all fields of a configuration."""
    types = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default_factory):
            yield from fields_of(field.default_factory, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", types[field.name]


FIELDS = {
    command: [
        (name, kind)
        for name, kind in fields_of(config)
        if name.split(".")[0] not in NOT_READ.get(command, ())
    ]
    for command, config in CONFIGURED.items()
}


def is_number(kind):
    return kind in (int, float) or kind in (tuple[int, ...], tuple[float, ...])


def one_field(draw):
    """A value of a wrong type, a number that is none or too large, or any text."""
    command = draw.choice(sorted(FIELDS))
    name, kind = draw.choice(FIELDS[command])
    if is_number(kind) and draw.random() < 0.7:
        value = draw.choice((*NUMBERS, "word", "{a: 1}", "", "[[1]]", "null", "true", '["x"]'))
        value = f"[{value}]" if kind not in (int, float) and draw.random() < 0.5 else value
        return [command, f"--{name}", value] if draw.random() < 0.5 else [command, f"--{name}={value}"], True
    if kind is bool and draw.random() < 0.7:
        return [command, f"--{name}", draw.choice(("2", "maybe", "[true]", "", "nan"))], True
    return [command, f"--{name}={draw.choice((*TEXTS, *NUMBERS))}"], False


def several_fields(draw):
    """Many fields at once, some of them twice, with any values."""
    command = draw.choice(sorted(FIELDS))
    words = [command]
    for name, _ in draw.choices(FIELDS[command], k=draw.randint(2, 6)):
        words += [
            f"--{name}",
            draw.choice((*TEXTS, *NUMBERS, "1", "0", "-1", "0.5", "[]", "[1, 2]")),
        ] * draw.randint(1, 2)
    return words, False


def trainer_option(draw):
    """Options of Lightning's trainer that it cannot have."""
    name = draw.choice(("devices", "num_nodes", "max_epochs", "accumulate_grad_batches", "gradient_clip_val"))
    value = "100000" if name == "devices" else "word"
    value = draw.choice((*NUMBERS, value, "[[1]]", "{a: b}"))
    words = [draw.choice(("run", "adapter", "detector", "evaluate", "estimate")), f"--trainer.{name}", value]
    return words, name != "gradient_clip_val" or value not in NUMBERS  # any large number clips nothing


def unknown_option(draw):
    """A flag that no command has."""
    command = draw.choice(sorted(COMMANDS))
    flag = draw.choice(
        ("--nothing", "--nam", "--gate.", "--.", "---", "--adapter.rnk", "--=", "--\0", "-x", "--é")
    )
    return [command, flag, *draw.choices(("1", "", "[]"), k=draw.randint(0, 1))], True


def configuration(draw):
    """A file that is no configuration, or none at all."""
    command = draw.choice((*sorted(FIELDS), "study"))
    name = draw.choice((*CONTENTS, "missing", "folder", "", "\0", "x" * 5000, "loop"))
    path = f"{name}.yaml" if name in CONTENTS or name in ("missing", "loop") else name
    return [command, *["--config", path] * draw.randint(1, 2)], True


def section_file(draw):
    """A section from a file, such as --gate gate.yaml."""
    command, config = draw.choice(sorted(CONFIGURED.items(), key=str))
    sections = [
        field.name for field in dataclasses.fields(config) if dataclasses.is_dataclass(field.default_factory)
    ]
    name = draw.choice([one for one in sections if one not in NOT_READ.get(command, ())])
    return [
        command,
        f"--{name}",
        draw.choice([*(f"{one}.yaml" for one in CONTENTS if one != "empty"), "[1]", "5"]),
    ], False


def store_verb(draw):
    """Verbs of requests on stores that are none, or with words that they do not take."""
    verb = draw.choice(("list", "show", "revoke", "restore", "verify", "remove", "certify", "add", "train"))
    place = draw.choice((["--store", "nowhere"], ["--store", "folder"], ["--store", "\0"], ["--store", ""],
                         ["--name", "../x"], ["--name", "\0"], ["--config", "binary.yaml"], [],
                         ["--store", "x" * 5000], ["--store", "loop"], ["--store", "text.yaml"]))  # fmt: skip
    words = draw.choices(("done", "ghost", "", "\0", "text.yaml", "missing.jsonl", "--gate.floor", "nan"),
                         k=draw.randint(0, 3))  # fmt: skip
    return ["requests", verb, *place, *words], True


def good_store(draw):
    """Verbs on a store that is one, with ids, files and dates of any kind."""
    verb = draw.choice(("list", "show", "revoke", "restore", "verify", "certify", "add", "train"))
    known = ("done", "covered", "ghost", "\0", "empty.jsonl", "binary.yaml", "forget.jsonl", "folder")
    words = draw.choices(known, k=draw.randint(0, 2))
    extras = draw.choice(([], ["--key", "key.pem"], ["--key", "folder"], ["--due", "never"],
                          ["--out", "/dev/null/x"],
                          ["--key", "\0"], ["--gate.floor", "nan"], ["--page", "\0"]))  # fmt: skip
    return ["requests", verb, "--store", "store", *words, *extras], False


def result_file(draw):
    """Pages, certificates and logs from files that are none."""
    others = ("missing", "folder", "\0", "", "run", "loop", "store", "hostile")
    name = draw.choice([*(f"{one}.yaml" for one in CONTENTS), *others])
    lines = (
        ["audit", name],
        ["report", name],
        ["report", "--compare", name, "run"],
        ["report", "run", "--beside", name],
        ["verify-certificate", name, "--key", "key.pem"],
        ["verify-certificate", "text.yaml", "--key", name],
        ["configs", "copy", name],
        ["configs", "copy", "demo", name + "/x" if name.endswith(".yaml") else "/dev/null/x"],
        ["study", "--config", name],
    )
    words = draw.choice(lines)
    return words, words != ["audit", "empty.yaml"]  # the log of a server that has answered nothing


def soup(draw):
    """Any words after any command."""
    command = draw.choice((*sorted(COMMANDS), "rn", "", "\0", "-h", "--version", "--help"))
    flags = (
        "config name store output seed help request model port plugin help-all print_config compare key undo"
    )
    flags = [f"--{flag}" for flag in flags.split()]
    return [
        command,
        *draw.choices((*flags, *TEXTS, *NUMBERS, "demo", "folder", "store"), k=draw.randint(0, 6)),
    ], False


KINDS = (one_field, one_field, several_fields, trainer_option, unknown_option, configuration, section_file,
         store_verb, good_store, result_file, soup)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with files that are none, a store without weights, and a run that is damaged."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name, content in CONTENTS.items():
        (folder / f"{name}.yaml").write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "empty.jsonl").write_text("")
    (folder / "forget.jsonl").write_text(json.dumps({"prompt": "Who?", "answer": "Nobody."}) + "\n")
    (folder / "key.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    for name, metrics in (("run", "{}"), ("hostile", "[" * 100_000)):
        (folder / name).mkdir()
        (folder / name / "metrics.json").write_text(metrics)
        (folder / name / "config.yaml").write_text(yaml.safe_dump({"name": name}))
    Store.create(folder / "store", "fictitious", "b" * 64, "minilm", "e" * 64)
    return folder


@pytest.fixture
def cheap(place, monkeypatch):
    """Runs in that folder, and ends every command where its work begins."""

    def accept(*_, **__):
        raise Accepted

    monkeypatch.chdir(place)
    modules = {name: importlib.import_module(name) for name in HEAVY}
    for command in COMMANDS:
        importlib.import_module(f"o3_lightning.commands.{command.replace('-', '_')}")
    replaced = [(getattr(modules[owner], name), accept) for owner, names in HEAVY.items() for name in names]
    for original, other in replaced:
        for module in [one for key, one in sys.modules.items() if key.startswith("o3_lightning")]:
            if getattr(module, original.__name__, None) is original:
                monkeypatch.setattr(module, original.__name__, other)


def outcome(words, must_fail):
    """What is wrong with the end of a command line; empty if nothing is."""

    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    out, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            main(words)
        found = "done"
    except Accepted:
        found = "accepted"
    except SystemExit as end:
        found = f"status {end.code}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
    text = errors.getvalue()
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if found == "status 2" and (len(lines) != 1 or not text.endswith("\n")):
        return f"status 2 without one line: {text[-300:]!r}"
    if found not in ("done", "accepted", "status 0", "status 2"):
        return found
    return f"{found} although nothing can work" if must_fail and found != "status 2" else ""


def check_lines(seed, count):
    draw, wrong = random.Random(seed), {}
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        words, must_fail = kind(draw)
        problem = outcome(words, must_fail)
        if problem:
            wrong[f"{kind.__name__}: {[word[:60] for word in words]}"] = problem
    assert not wrong, "\n".join(f"{line}\n    {problem}" for line, problem in wrong.items())


def test_sixty_six_random_command_lines_end_in_one_line(cheap):
    check_lines(0, 66)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_six_hundred_random_command_lines_end_in_one_line(cheap, seed):
    check_lines(seed, 660)
