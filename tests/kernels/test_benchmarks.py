"""The benchmark: cases agree with their truth, a wrong result is never timed, the report is written."""

import dataclasses
import json

import pytest
import torch

from o3_kernels.benchmarks import __main__ as command
from o3_kernels.benchmarks import cases, loops, readme
from o3_kernels.benchmarks.decoder_layer import INPUT_WIDTHS, decoder_layer_case
from o3_kernels.benchmarks.measure import measure_case, relative_error
from o3_kernels.benchmarks.memory import peak_mib
from o3_kernels.benchmarks.tune import Tunable, tune_case

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
        assert case["bound_ms"] > 0
        assert case["peak_mib"]["ours"] > 0
    assert "orthogonality_penalty" in capsys.readouterr().out
    pytest.importorskip("matplotlib")
    assert (tmp_path / file.stem).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_partial_runs_add_up_where_they_were_measured_alike(tiny_cases, tmp_path, monkeypatch):
    options = ["--out", str(tmp_path), "--seconds", "0", "--device", "cpu"]
    (name,) = {f"{command.device_file_name('cpu ' + command.platform.machine())}.json"}

    def operations():
        return [case["operation"] for case in json.loads((tmp_path / name).read_text())["cases"]]

    assert command.main([*options, "--op", "gated_lora"]) == 0
    assert command.main([*options, "--shape", "modules=64"]) == 0
    assert operations() == ["gated_lora", "orthogonality_penalty"]
    assert command.main([*options, "--op", "gated_lora"]) == 0
    assert operations() == ["orthogonality_penalty", "gated_lora"]
    monkeypatch.setattr(command, "_git", lambda *arguments: "another commit")
    assert command.main([*options, "--op", "layer_scores"]) == 0
    assert operations() == ["layer_scores"]


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


def test_tuner_keeps_the_rule_unless_another_right_plan_is_clearly_faster(monkeypatch):
    pytest.importorskip("triton")
    duration = {"rule": 1.0, "same": 0.99, "fast": 0.5, "wrong": 0.1}
    clock = [0.0]

    def run(plan):
        clock[0] = duration[plan]
        return torch.tensor(2.0 if plan == "wrong" else 1.0)

    def fake_time(run, device):
        run()
        return clock[0]

    monkeypatch.setattr("o3_kernels.benchmarks.tune.time_ms", fake_time)
    wanted = [torch.tensor(1.0, dtype=torch.float64)]

    def best(*plans):
        return tune_case(Tunable((1,), plans, run), wanted, 1e-5, CPU, rounds=1)

    assert best("rule", "same", "wrong") == "rule"
    assert best("rule", "same", "fast") == "fast"
    assert best("wrong", "same") == "same"


def test_memory_counts_what_is_held_at_once():
    def twice_a_mebibyte():
        first = torch.empty(1 << 18)
        second = first + 1
        del first
        return second + 1

    assert peak_mib(twice_a_mebibyte, CPU) == pytest.approx(2, abs=0.01)


def test_relative_error_is_of_the_largest_magnitude():
    assert relative_error(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0])) == 0.25


def test_tables_of_a_readme_show_the_result_files(tiny_cases, tmp_path):
    assert command.main(["--out", str(tmp_path), "--seconds", "0", "--device", "cpu"]) == 0
    table = readme.markdown_tables(tmp_path)
    (file,) = tmp_path.glob("*.json")
    for case in json.loads(file.read_text())["cases"]:
        assert f"| {case['median_ms']['ours']:.2f} |" in table
    assert readme._is_shown({"B": 8, "K": 16})
    assert not readme._is_shown({"B": 8, "K": 64})
    text = readme.with_tables(f"a\n{readme.BEGIN}\nold\n{readme.END}\nb\n", table)
    assert text == f"a\n{readme.BEGIN}\n{table}{readme.END}\nb\n"
    with pytest.raises(ValueError, match="has no lines"):
        readme.with_tables("no marks", table)


def test_readme_shows_the_committed_results():
    text = (readme.ROOT / "README.md").read_text()
    assert readme.with_tables(text, readme.markdown_tables(readme.RESULTS)) == text


@pytest.mark.parametrize("arguments", [["--tune", "--device", "cpu"], ["--op", "no_such_operation"]])
def test_command_refuses_what_it_cannot_do(arguments, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "error:" in capsys.readouterr().err
