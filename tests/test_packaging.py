"""The two packages do not get in the way of others'."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = "import importlib.util, transformers; spec = importlib.util.find_spec('kernels'); print(spec)"


def test_kernels_is_no_package_of_ours():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_transformers_imports_untouched_from_the_repository_root():
    code = CHECK + "; assert spec is None or spec.origin is None, spec"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_wheel_installs_our_two_names_only(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"o3_lightning", "o3_kernels"}
    assert any(name.startswith("o3_lightning/reporting/templates/") for name in names)
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); {CHECK}; assert spec is None, spec"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
