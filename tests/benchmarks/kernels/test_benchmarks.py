"""The benchmark: cases agree with their truth, a wrong result is never timed, the report is written."""

import dataclasses
import json
import re
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from benchmarks.kernels import __main__ as command
from benchmarks.kernels import cases, loops, measure, others, readme, report, training_step, tune
from benchmarks.kernels.decoder_layer import INPUT_WIDTHS, decoder_layer_case
from benchmarks.kernels.measure import measure_case, relative_error
from benchmarks.kernels.memory import peak_mib

CPU = torch.device("cpu")


@pytest.fixture
def tiny_cases(monkeypatch):
    """The real cases with small sizes, in three rounds and without a plot."""
    monkeypatch.setitem(cases.LLAMA_WIDTHS, "llama-2-7b", (8, 12))
    monkeypatch.setattr(cases, "LLAMA_LAYERS", 2)
    monkeypatch.setattr(measure, "FEWEST_ROUNDS", 3)
    monkeypatch.setattr(command, "write_plot", lambda path, results: None)
    tiny = {
        "layer_scores": [cases.layer_scores_case("tiny", 5, 2, 2, 6, 4, CPU)],
        "orthogonality_penalty": [cases.penalty_case("llama-2-7b", 2, 3, CPU)],
        "gated_lora": [cases.gated_case("tiny", 3, 2, 2, 8, 6, CPU)],
    }
    monkeypatch.setattr(command, "cases_for", lambda operation, device: tiny[operation])
    monkeypatch.setattr(
        command, "measure_roofs", lambda device: {"copy_gb_s": 1.0, "matmul_float32_tflop_s": 1.0}
    )
    return tiny


def test_command_measures_every_variant_and_writes_its_files(tiny_cases, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "write_plot", report.write_plot)
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
    assert command.main([*options, "--shape", "modules=4"]) == 0
    assert operations() == ["gated_lora", "orthogonality_penalty"]
    assert command.main([*options, "--op", "gated_lora"]) == 0
    assert operations() == ["orthogonality_penalty", "gated_lora"]
    monkeypatch.setattr(command, "_git", lambda *arguments: "another commit")
    assert command.main([*options, "--op", "layer_scores"]) == 0
    assert operations() == ["orthogonality_penalty", "gated_lora", "layer_scores"]
    assert json.loads((tmp_path / name).read_text())["commit"] == "another commit"
    monkeypatch.setattr(command, "_code_digest", lambda: "another source")
    assert command.main([*options, "--op", "layer_scores"]) == 0
    assert operations() == ["layer_scores"]
    (aside,) = tmp_path.glob("*.json.0")  # what was measured is never dropped
    assert len(json.loads(aside.read_text())["cases"]) == 3


def test_nothing_is_written_without_a_folder(tiny_cases, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["--op", "gated_lora", "--seconds", "0", "--device", "cpu"]) == 0
    assert "gated_lora" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_wrong_or_failing_case_is_noted_and_the_others_are_measured(tiny_cases, tmp_path, capsys):
    case = tiny_cases["gated_lora"][0]
    wrong = {**case.variants, "ours": lambda y, *_: y + 1}
    failing = {**case.variants, "ours": lambda *_: 1 / 0}
    tiny_cases["gated_lora"] = [
        dataclasses.replace(case, variants=wrong),
        dataclasses.replace(case, name="broken", variants=failing),
    ]
    assert measure_case(tiny_cases["gated_lora"][0], CPU, 0, compile_too=False)["median_ms"] == {}
    options = ["--out", str(tmp_path), "--seconds", "0", "--device", "cpu"]
    assert command.main(["--op", "gated_lora", "--op", "layer_scores", *options]) == command.WRONG
    error = capsys.readouterr().err
    assert "failed: gated_lora tiny" in error
    assert "ZeroDivisionError" in error
    (file,) = tmp_path.glob("*.json")
    measured = [bool(case["median_ms"]) for case in json.loads(file.read_text())["cases"]]
    assert measured == [False, False, True]


def test_a_competitor_that_fails_is_left_out(tiny_cases):
    case = tiny_cases["gated_lora"][0]
    failing = {**case.variants, "eager": lambda *_: 1 / 0}
    result = measure_case(dataclasses.replace(case, variants=failing), CPU, 0, compile_too=False)
    assert set(result["median_ms"]) == set(result["relative_error"]) == {"ours", "official"}
    ours_fails = dataclasses.replace(case, variants={"ours": failing["eager"]})
    with pytest.raises(ZeroDivisionError):
        measure_case(ours_fails, CPU, 0, compile_too=False)


@pytest.fixture
def everything(tiny_cases, monkeypatch, tmp_path):
    """Runs the command with --everything as if the CPU were a GPU; its tests end with what `tests` holds."""
    calls = SimpleNamespace(tests=[0], tested=0, tuned=[], command=None)

    def run_tests(arguments, **_):
        assert arguments[arguments.index("-m", 3) + 1] == "gpu"
        calls.tested += 1
        return SimpleNamespace(returncode=calls.tests.pop())

    read = command.read_options

    def options(arguments):
        return SimpleNamespace(**{**vars(read(arguments)), "everything": True, "tune": True})

    monkeypatch.setattr(command, "read_options", options)
    monkeypatch.setattr(command, "_git", lambda *arguments: "")
    monkeypatch.setattr(command, "subprocess", SimpleNamespace(run=run_tests))
    monkeypatch.setattr(command, "tune_cases", lambda cases, *_, **named: calls.tuned.append(len(cases)))
    monkeypatch.setattr(command.tuning, "TABLES", tmp_path)
    arguments = ["--resume", str(tmp_path), "--seconds", "0", "--device", "cpu"]
    calls.command = lambda *more: command.main([*arguments, *more])
    calls.results = lambda: json.loads(next(tmp_path.glob("*.json")).read_text())
    return calls


def test_everything_measures_after_a_failing_test(everything):
    everything.tests = [1]
    assert everything.command() == command.WRONG
    assert everything.results()["tests"] == "failed"
    assert len(everything.results()["cases"]) == 6  # by the rule, then tuned


def test_everything_goes_on_where_it_was_and_tunes_last(everything, monkeypatch, capsys):
    assert everything.command("--minutes", "0") == command.UNFINISHED
    assert "3 shapes left" in capsys.readouterr().err
    assert everything.tuned == []
    assert everything.command("--op", "gated_lora") == command.DONE
    assert everything.tuned == [1]
    assert everything.command() == command.DONE
    assert everything.tested == 1
    assert everything.tuned == [1, 1, 1, 1]  # by operation
    assert len(everything.results()["cases"]) == 6
    assert sum(bool(case.get("tuned")) for case in everything.results()["cases"]) == 3
    monkeypatch.setattr(command, "measure_case", lambda *_: pytest.fail("it was measured before"))
    assert everything.command() == command.DONE


def test_row_by_row_loop_equals_the_loop_over_requests():
    torch.manual_seed(0)
    inputs = torch.randn(4, 2, 5), torch.randn(3, 2, 5), torch.randn(3, 2, 5, 5), torch.randn(3, 2, 6, 5)
    torch.testing.assert_close(loops.layer_scores_official(*inputs), loops.layer_scores_loop(*inputs))


def shrink_as_sglang(x, weights, info, num_slices):
    """What SGLang's kernel is documented to compute, chunk by chunk; tokens of rank 0 are not written."""
    out = torch.full((len(x), weights.shape[1]), torch.nan)
    for start, end, owner in zip(info.seg_indptr, info.seg_indptr[1:], info.weight_indices, strict=False):
        assert 0 < end - start <= info.max_len
        rows = info.permutation[start:end]
        if info.lora_ranks[owner]:
            out[rows] = x[rows] @ weights[owner].T
    return out


def expand_as_sglang(x, weights, info, slice_offsets, max_slice_size, base_output):
    assert slice_offsets.tolist() == [0, max_slice_size]
    for start, end, owner in zip(info.seg_indptr, info.seg_indptr[1:], info.weight_indices, strict=False):
        rows = info.permutation[start:end]
        if info.lora_ranks[owner]:
            base_output[rows] += info.scalings[owner] * (x[rows] @ weights[owner].T)
    return base_output


def test_sglang_is_called_as_it_is_documented(monkeypatch):
    kernels = SimpleNamespace(
        chunked_sgmv_lora_shrink_forward=shrink_as_sglang, chunked_sgmv_lora_expand_forward=expand_as_sglang
    )
    monkeypatch.setitem(sys.modules, "sglang.srt.lora.triton_ops", kernels)
    monkeypatch.setitem(sys.modules, "sglang.srt.lora.utils", SimpleNamespace(LoRABatchInfo=SimpleNamespace))
    monkeypatch.setattr(others, "find_spec", lambda name: name if name == "sglang" else None)
    (run,) = others.lora_variants(8).values()
    case = cases.gated_case("tiny", 5, 20, 3, 12, 10, CPU)  # chunks of 16 and 4 tokens
    for inputs in (case.make(0), case.make(1)):
        torch.testing.assert_close(run(*inputs), case.truth(*inputs[:5]).float(), rtol=1e-4, atol=1e-4)


def test_every_case_agrees_with_its_truth_and_names_a_caller_that_exists():
    case = cases.fusion_case(5, 3, 2, 6, 4, 3, CPU)
    assert set(measure_case(case, CPU, 0, compile_too=False)["median_ms"]) == {"ours", "eager"}
    for operation in cases.OPERATIONS:
        for case in cases.cases_for(operation, CPU):
            module, *names = re.split(r"\.(?=[A-Z]|\w+$)", case.caller)
            source = (readme.ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
            assert all(re.search(rf"^ *(def|class) {name}\b", source, re.M) for name in names), case.caller


def test_decoder_layer_adds_to_its_base(monkeypatch):
    module = "benchmarks.kernels.decoder_layer"
    monkeypatch.setattr(f"{module}.INPUT_WIDTHS", (16, 16, 16, 24))
    monkeypatch.setattr(f"{module}.OUTPUT_WIDTHS", ((16, 8, 8), (16,), (24, 24), (16,)))
    assert INPUT_WIDTHS[0] == 4096
    result = measure_case(decoder_layer_case(4, 2, 2, CPU), CPU, 0, compile_too=False)
    assert set(result["median_ms"]) == {"ours", "eager", "base"}
    assert "base" not in result["relative_error"]


DURATIONS = {"rule": 1.0, "same": 0.99, "fast": 0.5, "wrong": 0.1}


class Plan(NamedTuple):
    name: str


@pytest.fixture
def tunable(monkeypatch):
    """Makes what the tuner sees of plans that are right or wrong and take as long as their name says."""
    pytest.importorskip("triton")
    clock = [0.0]

    def run(plan):
        clock[0] = DURATIONS[plan.name]
        return torch.tensor(2.0 if plan.name == "wrong" else 1.0)

    def fake_time(run, device):
        run()
        return clock[0]

    monkeypatch.setattr(tune, "time_ms", fake_time)
    one = torch.tensor(1.0, dtype=torch.float64)
    return lambda *plans, size=1: tune.Tunable((size,), [Plan(name) for name in plans], run, lambda: one)


def test_tuner_keeps_the_rule_unless_another_right_plan_is_clearly_faster(tunable):
    def best(*plans):
        return tune.tune_case(tunable(*plans), 1e-5, CPU, rounds=1).name

    assert best("rule", "same", "wrong") == "rule"
    assert best("rule", "same", "fast") == "fast"
    assert best("wrong", "same") == "same"
    with pytest.raises(tune.WrongResultError, match="wrong under every plan, by 1"):
        best("wrong")


def test_table_is_written_entry_by_entry_and_gone_on_with(tunable, tiny_cases, monkeypatch, tmp_path):
    seen = []
    made = {
        "layer_scores": ("rule", "fast"),
        "orthogonality_penalty": ("rule", "same"),
        "gated_lora": ("wrong",),
    }

    def of_case(case, inputs):
        seen.append(case.operation)
        return [tunable(*made[case.operation], size=len(case.operation))]

    monkeypatch.setattr(tune, "TUNABLE", dict.fromkeys(tiny_cases, of_case))
    monkeypatch.setattr(tune.torch.cuda, "get_device_name", lambda device: "Some GPU")
    cases = [case for group in tiny_cases.values() for case in group]
    tune.tune_cases(cases[:1], CPU, tmp_path)
    tune.tune_cases(cases, CPU, tmp_path, late=lambda: True)
    path = tune.tune_cases(cases, CPU, tmp_path, again=False)
    assert seen[-3:] == [case.operation for case in sorted(cases, key=lambda case: -case.bytes)]
    assert json.loads(path.read_text()) == {
        "layer_scores 16": {"name": "fast"},
        "orthogonality_penalty 32": {},
        "gated_lora 16": {},  # where no plan is right, the rule stays
    }


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
    assert readme.is_shown({"B": 8, "K": 16})
    assert not readme.is_shown({"B": 8, "K": 64})
    text = readme.with_tables(f"a\n{readme.BEGIN}\nold\n{readme.END}\nb\n", table)
    assert text == f"a\n{readme.BEGIN}\n{table}{readme.END}\nb\n"
    with pytest.raises(ValueError, match="has no lines"):
        readme.with_tables("no marks", table)


def test_the_page_shows_the_committed_results():
    text = (readme.ROOT / readme.PAGE).read_text()
    assert readme.with_all_tables(text) == text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tune", "--device", "cpu"],
        ["--everything"],
        ["--everything", "--device", "cuda"],
        ["--op", "no_such_operation"],
    ],
    ids=" ".join,
)
def test_command_refuses_what_it_cannot_do(arguments, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "error:" in message
    assert message.count("\n") == 1 or arguments[0] == "--op"
    assert "CUDA" in message or arguments[0] == "--op"


def test_command_does_not_call_pytorch_ours(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("O3_KERNELS", "torch")
    with pytest.raises(SystemExit) as ended:
        command.main(["--everything"])
    assert ended.value.code == 2
    assert "left out by O3_KERNELS" in capsys.readouterr().err


def test_share_of_the_penalty_in_a_training_step(tmp_path, capsys):
    sizes = ["--layers", "1", "--width", "64", "--tokens", "3", "--requests", "2", "--rounds", "1"]
    assert training_step.main(["--device", "cpu", *sizes, "--out", str(tmp_path / "new" / "step.json")]) == 0
    results = json.loads((tmp_path / "new" / "step.json").read_text())
    assert results == json.loads(capsys.readouterr().out)
    assert results["median_ms"].keys() == {"with_penalty", "without_penalty"}
    assert results["penalty_share"] < 1


def test_training_step_without_a_gpu_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        training_step.main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
