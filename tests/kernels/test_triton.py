"""The Triton kernels: right in the interpreter and on a GPU, fit for Hopper, and not needed elsewhere."""

import importlib
import json
import math
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import gated_inputs, penalty_inputs, relative_error, score_inputs

from o3_kernels import RequestStatistics, orthogonality_penalty_reference
from o3_kernels.blocks import CPU_PROCESSORS, allows_tf32

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


def check_planned(name, facts, hopper):
    """Nothing spills, products are on the matrix units, and the main loops are as short as planned."""
    assert facts["stack_bytes"] == 0, (name, facts)
    assert facts["shared_bytes"] <= hopper.SHARED_KIB.get(name, 227) * 1024, (name, facts)
    assert facts["matrix_units"] == ("combine" not in name), (name, facts)
    assert facts.get("programs", 1) <= facts.get("fitting", 1), (name, facts)
    limit = hopper.LIMITS.get(name, math.inf)
    assert hopper.instructions_per_kb(name, facts) <= limit, (name, facts, limit)


# one kernel of each operation; the others are slow
@pytest.mark.parametrize("name", ["layer_scores 64 rows", "penalty rank 8", "gated_lora up decode"])
def test_a_kernel_compiles_for_hopper_within_its_limits(name, tmp_path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    hopper = importlib.import_module("benchmarks.kernels.hopper")
    check_planned(name, hopper.PLANNED[name](), hopper)


@pytest.mark.slow
def test_every_planned_kernel_compiles_for_hopper_within_its_limits(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    output = run_python("-m", "benchmarks.kernels.hopper", TRITON_CACHE_DIR=str(tmp_path))
    results = json.loads(output.splitlines()[-1])
    hopper = importlib.import_module("benchmarks.kernels.hopper")
    assert results.keys() == hopper.PLANNED.keys()
    for name, facts in results.items():
        check_planned(name, facts, hopper)


@pytest.mark.slow
def test_kernels_compile_for_hopper_with_every_plan_and_argument(tmp_path):
    pytest.importorskip("triton")
    output = run_python("-m", "benchmarks.kernels.hopper", "--every", TRITON_CACHE_DIR=str(tmp_path))
    results = json.loads(output.splitlines()[-1])
    assert len(results) > 70
    for name, facts in results.items():
        assert facts["shared_bytes"] <= 227 * 1024 or "stages=4" in name, (name, facts)


class Stub:
    """A kernel that notes its grids, and whether it was launched on the device of its tensors."""

    def __init__(self, launch, monkeypatch):
        self.grids, self.current, self.launched_on = [], None, []
        for name in [name for name in vars(launch) if name.endswith("_kernel")]:
            monkeypatch.setattr(launch, name, self)
        monkeypatch.setattr(launch, "device_of", self.device_of)

    def __getitem__(self, grid):
        self.grids.append(grid)
        return lambda *_, **__: self.launched_on.append(self.current)

    @contextmanager
    def device_of(self, tensor):
        self.current = tensor.device
        yield
        self.current = None


def test_any_number_of_requests_and_layers_fits_the_grid(monkeypatch):
    launch = pytest.importorskip("o3_kernels.ops.layer_scores.launch")
    stub = Stub(launch, monkeypatch)
    K, one = 70000, torch.ones(1, 1, 1)
    tiles = one.expand(K, 1, 1, 1)
    flat = torch.ones(K, 1)
    launch.launch_layer_scores(one, (None, flat, tiles, tiles, None, flat, flat, 1, False))
    assert len(stub.grids) == 3
    for grid in stub.grids:
        assert all(size <= 65535 for size in grid[1:])


@pytest.mark.parametrize(("modules", "programs"), [(2, 6), (40, 3 * CPU_PROCESSORS)])
def test_no_more_programs_of_the_penalty_are_started_than_run_at_a_time(modules, programs, monkeypatch):
    launch = pytest.importorskip("o3_kernels.ops.orthogonality_penalty.launch")
    stub = Stub(launch, monkeypatch)
    new, old = penalty_inputs((130,) * modules, 8, 2, 8, dtype=torch.bfloat16)
    launch.launch_orthogonality_penalty(new, old, True)  # an item of overlaps, two of the gradient each
    assert stub.grids == [(programs,)]


@pytest.mark.parametrize("rank", [65, 256])
def test_ranks_beyond_a_tile_are_computed_without_the_kernel(rank, monkeypatch):
    launch = pytest.importorskip("o3_kernels.ops.orthogonality_penalty.launch")
    stub = Stub(launch, monkeypatch)
    new, old = penalty_inputs((300,), rank, 2, rank)
    value, _ = launch.launch_orthogonality_penalty(new, old, True)
    assert relative_error(value, orthogonality_penalty_reference(new, old)) <= 1e-12
    assert not stub.grids


@pytest.mark.parametrize("operation", ["layer_scores", "orthogonality_penalty", "gated_lora"])
def test_every_kernel_is_launched_on_the_device_of_its_tensors(operation, monkeypatch):
    launch = pytest.importorskip(f"o3_kernels.ops.{operation}.launch")
    stub = Stub(launch, monkeypatch)
    if operation == "layer_scores":
        features, *statistics = score_inputs(3, 2, 8, 2, 3, 4, dtype=torch.float32)
        launch.launch_layer_scores(features, RequestStatistics(*statistics))
    elif operation == "gated_lora":
        launch.launch_gated_lora(*gated_inputs(3, 2, 8, 4, (6, 5, 4, 3), dtype=torch.float32))
    else:
        launch.launch_orthogonality_penalty(*penalty_inputs((8, 9), 4, 3, 2, dtype=torch.float32), True)
    assert stub.launched_on
    assert set(stub.launched_on) == {torch.device("cpu")}


@pytest.mark.parametrize(
    ("newer", "older", "allowed"),
    [("none", "highest", False), ("none", "high", True), ("tf32", None, True), ("ieee", None, False)],
)
def test_either_setting_of_torch_allows_tf32(newer, older, allowed, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision=newer))

    def refuse():
        raise RuntimeError("mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", (lambda: older) if older else refuse)
    assert allows_tf32() == allowed


def test_addresses_reach_the_device_without_a_copy_from_the_host():
    launch = pytest.importorskip("o3_kernels.ops.orthogonality_penalty.launch")
    addresses = [0x7F12_3456_789A_BC00, 1 << 46, 16]
    assert launch.write_addresses(addresses, torch.device("cpu")).tolist() == addresses


WITHOUT_TRITON = """
import importlib, pkgutil, sys
import torch, o3_kernels
assert not torch.cuda.is_initialized()
assert not [name for name in sys.modules if name.endswith(("triton_kernel", ".launch"))]
for name in [name for name in sys.modules if name.split(".")[0] == "triton"]:
    del sys.modules[name]
sys.modules["triton"] = None
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


def test_package_works_without_triton_and_imports_no_kernel():
    run_python("-c", WITHOUT_TRITON)


def test_folder_of_the_package_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()
