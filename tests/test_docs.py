"""README and docs: their commands parse, their code runs, their tables are those of the results files."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import o3_lightning
from benchmarks import small, table_rows
from benchmarks.tables import TABLES, written
from o3_lightning.commands import common, report, study
from o3_lightning.commands.cli import COMMANDS, main
from o3_lightning.common.program import LightParser
from o3_lightning.run.config import RunConfig
from o3_lightning.run.parsing import add_config_arguments, known_keys
from o3_lightning.serving.config import ServeConfig

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCK = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w*)\n(?P<code>.*?)\n```", re.DOTALL)
BLOCKS = [
    (name, found["language"], found["code"], found["before"])
    for name, text in PAGES.items()
    for found in BLOCK.finditer(f"\n{text}")
]
TABLED = re.compile(r"`((?:o3-lightning|python -m) [^`]*)`")  # commands in the cells of a table
STUDIES = {"docs/results/methods.md": "baselines", "docs/results/gate.md": "gate_rules"}  # tables shown whole


FILES = ("C", "my_study.yaml", "runs/demo_0/config.yaml", "runs/mine/config.yaml")  # that the pages assume
OTHER_PROGRAMS = (
    "pip",
    "curl",
    "export",
    "docker",
    "openssl",
    "python3",
    "sh",
    "nvidia-smi",
    "compute-sanitizer",
    "ncu",
    "mkdir",
    "cp",
)


def commands():
    """Every command line of the pages once, with the pages that show it."""
    found = {}
    for name, language, code, _ in BLOCKS:
        if language in ("", "sh"):
            for line in code.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith(("#", " ")):
                    found.setdefault(line.split(" #")[0].strip(), name)
    for line in TABLED.findall(PAGES["docs/results/papers.md"]):
        found.setdefault(line, "docs/results/papers.md")
    return sorted(found)


def words_of(line):
    """The words behind o3-lightning in one of the forms in which it is started; None for another program."""
    for start in ("o3-lightning ", "python train.py "):
        if line.startswith(start):
            return shlex.split(line.removeprefix(start))
    _, is_ours, rest = line.partition(" -m o3_lightning ")
    return shlex.split(rest) if is_ours else None


class ParsedError(Exception):
    """Raised when a command line was read, before the command does anything."""


@pytest.fixture
def parse_only(monkeypatch, tmp_path):
    """Stops every command when its command line has been read."""

    def stop_after(read):
        def call(*arguments, **options):
            read(*arguments, **options)
            raise ParsedError

        return call

    for module in (common, report, study):
        monkeypatch.setattr(module, "parse", stop_after(module.parse))
    monkeypatch.setattr(LightParser, "parse_args", stop_after(LightParser.parse_args))
    real = LightParser.parse_known_args

    def known(self, *arguments):
        _, rest = real(self, *arguments)
        fields = [word.removeprefix("--").split("=")[0] for word in rest if word.startswith("--")]
        assert not [field for field in fields if field not in KNOWN], fields
        raise ParsedError

    monkeypatch.setattr(LightParser, "parse_known_args", known)
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)


def field_names():
    parser = common.new_parser("serve")
    add_config_arguments(parser, RunConfig, ServeConfig, trainer=True)
    return {*known_keys(parser), "request"}


KNOWN = field_names()


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_pages_is_read(line, parse_only):
    for part in re.split(r" && | \| ", line):
        words = words_of(part)
        if words is None:
            check_other_program(part)
            continue
        assert words[0] in COMMANDS
        with pytest.raises(ParsedError):
            main([word for word in words if word != "my_objective.py" and word != "--plugin"])


def check_other_program(line):
    """A target of the Makefile, a module of a study, or a program that the pages may use."""
    program, *words = shlex.split(line)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(f"\n{word}:" in makefile for word in words if "=" not in word)
    elif program == "python" and words[0].startswith("scripts/"):
        assert (ROOT / words[0]).is_file()
    elif program in ("python", "python3", "torchrun") and "-m" in words:
        name = words[words.index("-m") + 1]
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or path.is_dir() or importlib.util.find_spec(name)
    else:
        assert program in OTHER_PROGRAMS or program.startswith(("VAR=", "-", "http"))


def test_every_block_of_python_runs_or_says_who_runs_it(tmp_path):
    code, marked = [], 0
    for name, language, text, before in BLOCKS:
        if language == "python":
            told = re.search(r"<!-- (not run|run by (\S+))", before)
            marked += told is not None or name == "README.md"  # run by tests/test_api.py
            code += [] if told or name == "README.md" else [text]
    assert code
    assert marked
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_each_row_of_the_papers_has_a_command_or_says_what_is_missing():
    rows = [line.split("|")[2:4] for line in PAGES["docs/results/papers.md"].splitlines() if line[:2] == "| "]
    rows = [row for row in rows if row[0].strip() != "command"]
    assert len(rows) > 30
    assert all("`" in command or "missing" in state for command, state in rows)


def test_blocks_of_data_are_what_they_say():
    for _, language, text, _ in BLOCKS:
        if language == "json":
            assert all({"prompt", "answer"} <= set(json.loads(line)) for line in text.splitlines())
        if language == "yaml":
            assert yaml.safe_load(text)


def test_every_results_file_has_the_command_that_wrote_it(parse_only):
    written = yaml.safe_load((ROOT / "results/commands.yaml").read_text())
    assert set(written) == {path.stem for path in (ROOT / "results").glob("*.json")}
    for line in written.values():
        words = words_of(line)
        if words is None:
            check_other_program(line)
        else:
            with pytest.raises(ParsedError):
                main(words)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.page}, {table.head}")
def test_tables_of_the_pages_are_those_of_their_results(table):
    page = PAGES[f"docs/{table.page}.md"]
    assert written(page, table) == page
    some = next(iter(table.rows()))
    changed = page.replace(some[-1], "0.123")
    assert written(changed, table) != changed


def test_the_page_of_the_small_studies_is_that_of_their_results():
    assert small.page() == PAGES["docs/results/small.md"]
    assert small.with_links(PAGES["docs/results/papers.md"]) == PAGES["docs/results/papers.md"]
    for name, content in small.studies():
        drawn = (ROOT / f"docs/results/{name}.svg").read_text()
        counted = sum(map(int, re.findall(r">(\d+) others<", drawn)))  # of many variants at one point
        assert sum(f">{label}<" not in drawn for label in small.means_of(content)) == counted
        measured = next(iter(small.means_of(content).values()))
        forgotten = [key for key in ("seen_rouge", "su", "held_out_rouge", "du") if key in measured][-1]
        assert f", {forgotten} (lower is better)<" in drawn


@pytest.mark.parametrize(
    ("ours", "other", "said"),
    [
        ((0.1, 1.0), (0.2, 0.99), "forgets most by {} (0.100, next 0.200 of `npo`)"),
        ((0.2, 1.0), (0.2, 0.99), "forgets as much as `npo` by {} (0.200)"),
        ((0.2, 1.0), (0.1, 0.98), "forgets **less than `npo` by {} (0.200 against 0.100)**"),
        ((0.2, 1.0), (0.1, 0.97), "No other measured variant keeps 0.98 of the utility"),
        ((0.2, 0.9), (0.1, 0.97), "**`ours` keeps only 0.900 of the utility.**"),
    ],
)
@pytest.mark.parametrize(
    ("benchmark", "forget", "keep"),
    [("tofu", "held_out_rouge", "utility_rouge"), ("clinc150", "du", "rd")],
)
def test_a_small_study_says_whether_ours_is_best(ours, other, said, benchmark, forget, keep):
    base = 0.5 if keep == "rd" else 1.0  # R.D. is not relative to the base model's yet
    variants = {
        name: {"figures": {forget: {"mean": forgotten}, keep: {"mean": kept * base}}}
        for name, (forgotten, kept) in {"ours": ours, "npo": other}.items()
    }
    content = {
        "common": {"data": {"name": benchmark}},
        "variants": variants,
        "base": {"rd": {"mean": 0.5}},
    }
    assert said.format(forget) in small.verdict(content)


def test_a_small_study_of_choices_shows_accuracies():
    figures = {name: {"mean": 0.5, "values": [0.5]} for name in ("seen_rouge", "su", "rd", "utility")}
    content = {
        "common": {"data": {"name": "clinc150"}},
        "variants": {"ours": {"figures": figures}},
        "figures": ["seen_rouge", "su", "du", "rd"],
        "seeds": [0],
    }
    head, _, row, *_ = small.rows_of(content).split("\n")
    assert head == "| variant | su ↓ | rd ↑ |"
    assert row == "| `ours` | 0.500 | 0.500 |"


def test_the_table_of_the_readme_is_that_of_the_results():
    rows = {
        row.split("|")[1].strip(" `"): [cell.strip() for cell in row.split("|")[2:-1]]
        for row in (ROOT / "results/baselines.md").read_text().splitlines()
        if row.startswith("| `")
    }
    worst, utility = 2, 4  # columns
    shown = PAGES["README.md"]
    for column, base in ((worst, "Does it forget?"), (utility, "What does it keep?")):
        line = next(line for line in shown.splitlines() if base in line)
        values = re.findall(r"\d\.\d{3}", line.split("|")[2])
        expected = [rows["ours"][column].split(" ± ")[0], rows["ours"][column].split(" ± ")[1]]
        expected += [rows[name][column].split(" ")[0] for name in ("ga", "npo", "o3_paper")]
        assert values == expected


def test_the_other_figures_of_the_readme_are_those_of_the_results():
    found = {
        row.split("|")[1].split("?")[0].strip(): row for row in PAGES["README.md"].splitlines() if "? " in row
    }
    kinds, leak, alarms = next(row[1:] for row in table_rows.attack_members() if row[0] == "test")
    variants = dict(small.studies())["tofu_smollm2"]["variants"]
    measured = {
        name: [one["figures"][key]["mean"] for key in ("seen_rouge", "utility_rouge")]
        for name, one in variants.items()
    }
    gates = {name: measured.pop(name) for name in ("ours", "refusal_gate", "o3_paper", "o3_official")}
    forgotten, kept = max(measured.values(), key=lambda one: (1 - one[0]) * one[1])
    row = found["And a real model"]
    assert f"{len(variants)} methods" in row
    assert "**{:.3f}**, **{:.2f}**".format(*gates["ours"]) in row
    assert f"edits the model keeps {kept:.2f} at {forgotten:.3f}" in row
    assert "gate alone {:.3f}, {:.2f}".format(*gates["refusal_gate"]) in row
    row = found["Do disguises get through"]
    assert all(text in row for text in (f"{kinds} kinds", leak.split(":")[0], alarms.split(":")[0]))
    disguised = {row[0]: row for row in table_rows.disguises()}
    row = found["And without the check of answers"]
    missed = {name: line[2].split(" of ")[0] for name, line in disguised.items()}
    people = {
        "made-up authors": "made-up authors",
        "an author of TOFU": "TOFU",
        "ten real people": "real people",
    }
    assert all(f"{shown} **{missed.pop(name)}**" in row for name, shown in people.items())
    assert f"topics {min(missed.values())} to {max(missed.values())}" in row
    stopped = [line[3].split(" of ") for line in disguised.values()]
    assert "they stop {} of {:,}".format(*(sum(map(int, side)) for side in zip(*stopped, strict=True))) in row
    held, near = next(row[1:] for row in table_rows.articles() if row[0] == "English, eight articles")
    row = found["Is a topic of ordinary words recognised"]
    assert all(text in row for text in (held, near))
    chance = next(row[4] for row in table_rows.reference() if row[0] == "ours")
    assert f"p ≤ {chance.split(' to ')[1]}" in found["Is it as if the model had never known"]
    leaks = {row[0]: float(row[1]) for row in table_rows.weight_attacks_over_seeds()}
    row = found["Can the knowledge be brought back from merged weights"]
    assert all(f"{leaks[f'`relearn_{count}_rows`']:.0%}".replace("%", " %") in row for count in (10, 50))


def test_every_file_that_the_pages_name_is_there():
    for text in PAGES.values():
        named = {
            re.sub(r"`.*", "", word.lstrip("`(["))
            for word in text.split()
            if word.lstrip("([").startswith(("`configs/", "`results/"))
        }
        missing = [
            name
            for name in named
            if not any(sign in name for sign in "{*") and not (ROOT / name.strip(".,")).exists()
        ]
        assert not [name for name in missing if not name.startswith("results/my_study")]


def test_every_public_name_has_its_place_in_the_reference():
    shown = re.findall(r"^::: o3_lightning\.([\w.]+)", PAGES["docs/reference/api.md"], flags=re.MULTILINE)
    decorators = ("forget_objective", "retain_objective")  # both are ObjectiveRegistry.declare
    names = [name for name in o3_lightning.__all__ if name not in decorators]
    assert {f"{o3_lightning.MODULES[name]}.{name}" for name in names} == {
        name for name in shown if not name.endswith(".declare")
    }


def test_the_page_for_language_models_names_every_command_and_pages_that_exist():
    text = (ROOT / "docs/llms.txt").read_text()
    assert set(COMMANDS) == set(re.search(r"`o3-lightning ([\w|-]+) ", text).group(1).split("|"))
    pages = re.findall(r"\]\(([\w/.]+)\.md\)", text)
    assert len(pages) > 10
    assert all(any((ROOT / f"docs/{page}{end}").is_file() for end in (".md", ".py")) for page in pages)


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 180


def load_messages():
    spec = importlib.util.spec_from_file_location("messages", ROOT / "docs/messages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_message_of_the_troubleshooting_page_occurs_in_the_code():
    module = load_messages()
    raised = [text for texts in module.error_messages().values() for text in texts]
    assert len(raised) > 250
    others = (
        "unknown key '…'; --help lists the known keys",
        "…: No space left on device; the same command continues",
    )
    shown = re.findall(r"^\| `([^`]+)` \|", PAGES["docs/howto/troubleshooting.md"], flags=re.MULTILINE)
    assert len(shown) > 40
    assert not [message for message in shown if not module.is_raised(message, [*raised, *others])]
    assert not module.is_raised("there is no shop yet", raised)


def test_the_container_is_set_up_by_the_steps_of_the_makefile():
    container, makefile = ((ROOT / name).read_text() for name in ("Dockerfile", "Makefile"))
    needed = re.search(r"^\$\(STAMP\): (.*)$", makefile, flags=re.MULTILINE).group(1).split()
    copied = {
        word for line in container.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]
    }
    assert {*needed, "o3_lightning", "kernels/o3_kernels", "configs"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    assert "-m pip install --quiet --constraint constraints.txt" in makefile
    assert 'CONSTRAINTS="--constraint constraints.txt"' in container
    for step in ("-m venv", "-m pip install"):
        assert step in makefile
        assert step in container
