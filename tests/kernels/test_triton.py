"""The Triton kernels: right in the interpreter and on a GPU, fit for Hopper, and not needed elsewhere."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run_python(*arguments: str, **variables: str) -> str:
    """Runs Python in the repository with variables set; fails the test with its output."""
    path = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


CASES = ("-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider", "--import-mode=importlib")


@pytest.mark.parametrize("part", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_equal_float64_in_the_interpreter(part):
    pytest.importorskip("triton")
    output = run_python(*CASES, "-m", part, str(HERE / "triton_cases.py"), TRITON_INTERPRET="1")
    assert " passed" in output


@pytest.mark.gpu
def test_kernels_equal_float64_on_the_gpu():
    assert torch.cuda.is_available(), "this test was asked for on a machine without a CUDA device"
    # each case compiles a kernel of its own, on one core
    output = run_python(*CASES, "-n", str(min(os.cpu_count() or 1, 8)), str(HERE / "triton_cases.py"))
    assert " passed" in output


def check_planned(name, facts):
    """Nothing spills, and products are on the matrix units where the type and the rows allow."""
    assert facts["stack_bytes"] <= 64, (name, facts)
    assert facts["shared_bytes"] <= 227 * 1024, (name, facts)
    if name in ("layer_scores bfloat16 64 rows", "layer_scores float32 1 row"):
        assert facts["matrix_units"] == ("bfloat16" in name), (name, facts)


# each kernel once; the others of its plans are slow
@pytest.mark.parametrize(
    "name",
    [
        "layer_scores float32 1 row",
        "layer_scores bfloat16 64 rows",
        "layer_scores combine",
        "penalty float32 rank 8",
        "gated_lora down decode",
        "gated_lora up decode",
    ],
)
def test_a_kernel_compiles_for_hopper_without_spilling(name, tmp_path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    spec = importlib.util.spec_from_file_location("compile_for_hopper", HERE / "compile_for_hopper.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check_planned(name, module.PLANNED[name]())


@pytest.mark.slow
def test_kernels_compile_for_hopper_without_spilling(tmp_path):
    pytest.importorskip("triton")
    output = run_python(str(HERE / "compile_for_hopper.py"), TRITON_CACHE_DIR=str(tmp_path))
    results = json.loads(output.splitlines()[-1])
    assert len(results) == 13
    for name, facts in results.items():
        check_planned(name, facts)


@pytest.mark.slow
def test_kernels_compile_for_hopper_with_every_plan_and_argument(tmp_path):
    pytest.importorskip("triton")
    output = run_python(str(HERE / "compile_for_hopper.py"), "--every", TRITON_CACHE_DIR=str(tmp_path))
    results = json.loads(output.splitlines()[-1])
    assert len(results) > 100
    for name, facts in results.items():
        assert facts["shared_bytes"] <= 227 * 1024, (name, facts)


def test_any_number_of_requests_and_layers_fits_the_grid(monkeypatch):
    launch = pytest.importorskip("o3_kernels.ops.layer_scores.launch")
    grids = []

    class Recorder:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *_, **__: None

    for name in ("layer_scores_tiles_kernel", "layer_scores_combine_kernel"):
        monkeypatch.setattr(launch, name, Recorder())
    K, one = 70000, torch.ones(1, 1, 1)
    tiles = one.expand(K, 1, 1, 1)
    flat = torch.ones(K, 1)
    launch.launch_layer_scores(one, (None, flat, tiles, tiles, None, flat, flat, 1, False))
    assert len(grids) == 2
    for grid in grids:
        assert all(size <= 65535 for size in grid[1:])


WITHOUT_TRITON = """
import importlib, pkgutil, sys
sys.modules["triton"] = None
import torch, o3_kernels
from o3_kernels.checks import runs_on_triton
for module in pkgutil.walk_packages(o3_kernels.__path__, "o3_kernels."):
    if not module.name.endswith(("triton_kernel", ".launch", "__main__")):
        importlib.import_module(module.name)
one = torch.ones(1, 1)
assert not runs_on_triton([one])
new = [torch.ones(1, 2, requires_grad=True)]
o3_kernels.orthogonality_penalty(new, [torch.ones(1, 1, 2)]).backward()
assert new[0].grad.tolist() == [[4.0, 4.0]]
unit = torch.ones(1, 1, 1, 1)
scores = o3_kernels.layer_scores(3 * one[None], one[None], one, unit, unit, None, one, one)
assert [part.item() for part in scores] == [0.0, 1.0, 1.0]
assert o3_kernels.gated_lora(one[None], one[None], one, one, one).item() == 2.0
for registered in ("layer_scores", "orthogonality_penalty", "gated_lora", "gated_lora_"):
    assert hasattr(torch.ops.o3_kernels, registered)
"""


def test_package_works_without_triton():
    run_python("-c", WITHOUT_TRITON)


def test_import_does_not_import_triton_kernels_or_start_cuda():
    run_python(
        "-c",
        "import sys, torch, o3_kernels\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert not [name for name in sys.modules if name.endswith(('triton_kernel', '.launch'))]",
    )


def test_folder_of_the_package_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()
