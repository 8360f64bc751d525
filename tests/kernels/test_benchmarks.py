"""The benchmark: cases agree with their truth, a wrong result is never timed, the report is written."""

import dataclasses
import json

import pytest
import torch

from o3_kernels.benchmarks import __main__ as command
from o3_kernels.benchmarks import cases, loops
from o3_kernels.benchmarks.decoder_layer import INPUT_WIDTHS, decoder_layer_case
from o3_kernels.benchmarks.measure import measure_case

CPU = torch.device("cpu")


@pytest.fixture
def tiny_cases(monkeypatch):
    """The real cases with small sizes."""
    monkeypatch.setitem(cases.LLAMA_WIDTHS, "llama-2-7b", (8, 12))
    tiny = {
        "layer_scores": [cases._layer_scores_case("tiny", 5, 2, 2, 6, 4, CPU)],
        "orthogonality_penalty": [cases._penalty_case("llama-2-7b", 2, 3, CPU)],
        "gated_lora": [cases._gated_case("tiny", 3, 2, 2, 8, 6, CPU)],
    }
    monkeypatch.setattr(command, "cases_for", lambda operation, device: tiny[operation])
    monkeypatch.setattr(
        command, "measure_roofs", lambda device: {"copy_gb_s": 1.0, "matmul_float32_tflop_s": 1.0}
    )
    return tiny


def test_command_measures_every_variant_and_writes_its_files(tiny_cases, tmp_path, capsys):
    assert command.main(["--out", str(tmp_path), "--seconds", "0", "--device", "cpu"]) == 0
    (file,) = tmp_path.glob("*.json")
    results = json.loads(file.read_text())
    for case in results["cases"]:
        assert set(case["median_ms"]) >= {"ours", "official", "eager"}
        assert case["relative_error"]["ours"] <= 1e-4
        assert min(case["rounds"].values()) >= 3
    assert "orthogonality_penalty" in capsys.readouterr().out
    pytest.importorskip("matplotlib")
    assert (tmp_path / file.stem).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_timed_where_ours_is_wrong(tiny_cases, tmp_path):
    case = tiny_cases["gated_lora"][0]
    wrong = {**case.variants, "ours": lambda y, *_: y + 1}
    tiny_cases["gated_lora"][0] = dataclasses.replace(case, variants=wrong)
    assert measure_case(tiny_cases["gated_lora"][0], CPU, 0, compile_too=False)["median_ms"] == {}
    assert (
        command.main(["--op", "gated_lora", "--out", str(tmp_path), "--seconds", "0", "--device", "cpu"]) == 1
    )


def test_row_by_row_loop_equals_the_loop_over_requests():
    torch.manual_seed(0)
    inputs = torch.randn(4, 2, 5), torch.randn(3, 2, 5), torch.randn(3, 2, 5, 5), torch.randn(3, 2, 6, 5)
    torch.testing.assert_close(loops.layer_scores_official(*inputs), loops.layer_scores_loop(*inputs))


def test_decoder_layer_adds_to_its_base(monkeypatch):
    module = "o3_kernels.benchmarks.decoder_layer"
    monkeypatch.setattr(f"{module}.INPUT_WIDTHS", (16, 16, 16, 24))
    monkeypatch.setattr(f"{module}.OUTPUT_WIDTHS", ((16, 8, 8), (16,), (24, 24), (16,)))
    assert INPUT_WIDTHS[0] == 4096
    result = measure_case(decoder_layer_case(4, 2, 2, CPU), CPU, 0, compile_too=False)
    assert set(result["median_ms"]) == {"ours", "eager", "base"}
    assert "base" not in result["relative_error"]
