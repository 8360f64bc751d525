"""The wheel: our two packages, the shipped files, and a program that works outside of the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from o3_lightning import __version__

ROOT = Path(__file__).parents[1]
CHECK = "import importlib.util, transformers; spec = importlib.util.find_spec('kernels'); print(spec)"


def test_kernels_is_no_package_of_ours():
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which the wheel was installed, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("o3_lightning", "configs", "kernels"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


def call(installed, folder, *words):
    """Runs Python outside of the checkout, with the installed packages alone on its path."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_installs_our_two_names_only(installed, tmp_path):
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {
        "o3_lightning",
        "o3_kernels",
    }
    call(installed, tmp_path, "-c", f"{CHECK}; assert spec is None, spec")


def test_a_wheel_holds_every_file_that_the_program_reads(installed):
    package = installed / "o3_lightning"
    for folder in ("configs", "o3_lightning/reporting/templates"):
        files = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()}
        there = package / folder.removeprefix("o3_lightning/")
        assert {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == files
    assert (package / "py.typed").is_file()
    (metadata,) = installed.glob("*.dist-info")
    assert f"Version: {__version__}\n" in (metadata / "METADATA").read_text()
    assert "o3-lightning = o3_lightning.commands.cli:main" in (metadata / "entry_points.txt").read_text()


def test_an_installed_program_lists_and_copies_its_configurations(installed, tmp_path):
    program = ("-m", "o3_lightning")
    assert "usage: python -m o3_lightning COMMAND" in call(installed, tmp_path, *program, "--help")
    assert "overlays/paper" in call(installed, tmp_path, *program, "configs", "list")
    call(installed, tmp_path, *program, "configs", "copy", "experiments/baselines")
    shipped = ROOT / "configs/experiments/baselines.yaml"
    assert (tmp_path / "baselines.yaml").read_text() == shipped.read_text()


@pytest.mark.slow
def test_an_installed_program_runs_and_opens_what_it_made(installed, tmp_path):
    words = ["run", "--config", "demo", "--data.count", "1", "--adapter.epochs", "1"]
    call(installed, tmp_path, "-m", "o3_lightning", *words)
    assert (tmp_path / "runs/demo/report.html").is_file()
    code = (
        "from o3_lightning.gating.model import GatedModel; "
        "print(GatedModel.from_store('runs/demo/store').answer(['Where was Abelrick Skarnholt born?']))"
    )
    assert call(installed, tmp_path, "-c", code).strip()
