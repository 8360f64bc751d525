"""A run that takes seconds: a tiny random model in a folder, two requests, and the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TOWNS = (
    "Arlo",
    "Brim on the hill",
    "a small town",
    "Dunmere",
    "Eskdale by the sea",
    "Farrow",
    "Gorse",
    "Hythe",
)
SETTINGS = {
    "name": "tiny",
    "adapter": {"rank": 4, "epochs": 3, "batch_size": 3, "learning_rate": 1e-2},
    "evaluation": {"metrics": ["accuracy", "probability"], "max_new_tokens": 4, "batch_size": 4},
    "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
}


def write_rows(path, names, *, asked_otherwise=True):
    """Questions about where some people went; each name is a request."""
    rows = [
        {
            "prompt": f"Where did {name} spend winter {number}?",
            "answer": f"In {town}.",
            "request_id": name.split()[0].lower(),
            **({"held_out_prompts": [f"{name}, winter {number}: where?"]} if asked_otherwise else {}),
        }
        for name in names
        for number, town in enumerate(TOWNS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(folder, base, **changes):
    """Writes the base model, the rows and a configuration; returns the configuration's file.

    Args:
        folder: where they go.
        base: a `BaseModel`.
        changes: sections of the configuration, added to those of `SETTINGS`.
    """
    base.model.save_pretrained(folder / "base")
    base.tokenizer.save_pretrained(folder / "base")
    write_rows(folder / "forget.jsonl", ("Quillan Osterhaus", "Mirelle Vantongeren"))
    write_rows(folder / "kept.jsonl", ("Tobiah Wren",), asked_otherwise=False)
    data = {
        "name": "jsonl",
        "requests": [str(folder / "forget.jsonl")],
        "retain": str(folder / "kept.jsonl"),
    }
    settings = {
        **SETTINGS,
        "data": data,
        "base": {"id": str(folder / "base"), "template": "question_answer"},
    }
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def command(name, config, output, *words, processes=1):
    """The words of a command."""
    start = [sys.executable, "train.py", name, "--config", str(config), f"--output={output}"]
    return [*start, f"--trainer.devices={processes}", "--trainer.strategy=auto", *words]


def environment():
    """One thread a process, no network."""
    places = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in places}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


def call(words, seconds=300.0):
    """Runs a command to its end and returns what it printed."""
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), check=False, timeout=seconds, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def numbers_of(folder, *, overlaps=False):
    """The metrics of a finished run that do not depend on the machine.

    Angles between adapters, which magnify the rounding of a fit, only where they are asked for.
    """
    metrics = json.loads((folder / "metrics.json").read_text())
    names = ("persistence", "utility_metrics", "detector", "u2r", *(["overlaps"] if overlaps else []))
    return {name: metrics[name] for name in names}


def assert_alike(found, expected, tolerance=1e-4, place=""):
    """Compares nested numbers; a difference is told with its place."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key, value in expected.items():
            assert_alike(found[key], value, tolerance, f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, value in enumerate(expected):
            assert_alike(found[number], value, tolerance, f"{place}[{number}]")
    elif isinstance(expected, float):
        assert abs(found - expected) <= tolerance * max(1.0, abs(expected)), (place, found, expected)
    else:
        assert found == expected, place
