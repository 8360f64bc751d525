"""Spaces, angles and histories against plain linear algebra."""

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.diagnostics import overlap_matrices, principal_cosines, row_basis, update_cosines
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.initialisation import project_out, protected_spaces
from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.models.lora import LoraFactors


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_history(count=3, rank=2):
    return AdapterHistory.of(
        {
            f"r{i}": LoraFactors.uniform(
                {m: (draw(i, rank, 7), draw(9 + i, 5, rank)) for m in ("x.q", "x.v")}, 0.5 + i
            )
            for i in range(count)
        }
    )


def test_principal_cosines_equal_scipy():
    first, second = draw(0, 3, 9), draw(1, 2, 9)
    expected = np.cos(scipy.linalg.subspace_angles(first.numpy().T, second.numpy().T))
    cosines = principal_cosines(row_basis(first), row_basis(second))
    np.testing.assert_allclose(cosines.numpy(), np.sort(expected)[::-1], atol=1e-6)


def test_zero_and_dependent_rows_span_nothing():
    rows = draw(0, 2, 6)
    padded = torch.cat([rows, rows[:1] * 2, torch.zeros(1, 6)])
    assert principal_cosines(row_basis(padded), row_basis(rows)).tolist() == pytest.approx([1, 1])
    assert len(principal_cosines(row_basis(torch.zeros(2, 6)), row_basis(rows))) == 0


def test_update_cosines_equal_those_of_the_full_matrices():
    history = make_history()
    updates = torch.stack(
        [
            torch.cat([(history.outputs[m][i].T @ history.inputs[m][i]).flatten() for m in history.inputs])
            for i in range(3)
        ]
    )
    unit = updates / updates.norm(dim=1, keepdim=True)
    torch.testing.assert_close(update_cosines(history).float(), unit @ unit.T)


def test_projection_takes_out_the_earlier_rows():
    earlier, rows = draw(0, 2, 3, 10), draw(5, 4, 10)
    space = protected_spaces({"m": earlier}, rank=4)["m"]
    assert not space.exhausted
    assert (project_out(rows, space.basis) @ earlier.flatten(0, 1).T).abs().max() < 1e-5


def test_room_is_always_left_and_the_weakest_directions_are_given_up():
    earlier = torch.diag(torch.tensor([5.0, 4.0, 3.0, 2.0]))[None]
    space = protected_spaces({"m": earlier}, rank=1)["m"]
    assert space.exhausted
    torch.testing.assert_close(
        project_out(torch.eye(4), space.basis), torch.diag(torch.tensor([0.0, 0, 0, 1]))
    )


def test_an_empty_history_protects_nothing():
    assert protected_spaces({"m": torch.zeros(0, 2, 5)}, rank=2)["m"].basis.shape == (5, 0)


def test_adapters_of_other_ranks_and_modules_share_a_history():
    history = AdapterHistory.of(
        {
            "a": LoraFactors.uniform({"m": (draw(0, 2, 6), draw(1, 5, 2))}),
            "b": LoraFactors.uniform({"n": (draw(2, 3, 6), draw(3, 5, 3))}),
        }
    )
    assert history.inputs["m"].shape == (2, 2, 6)
    assert history.inputs["n"].shape == (2, 3, 6)
    assert not history.inputs["m"][1].any()


def test_last_is_the_last():
    history = make_history()
    assert history.against("last").ids == ("r2",)
    torch.testing.assert_close(history.against("last").inputs["x.q"], history.inputs["x.q"][2:])
    assert history.against("all") is history


@pytest.mark.parametrize("damage", ["nothing", "config", "tensors", "half"])
def test_a_damaged_adapter_is_told(damage, tmp_path):
    if damage != "nothing":
        (tmp_path / "adapter_config.json").write_text(
            "{" if damage == "config" else '{"lora_alpha": 16, "r": 2}'
        )
        (tmp_path / "adapter_model.safetensors").write_bytes(b"short")
    if damage == "half":
        tensors = {"base_model.model.m.lora_A.weight": draw(0, 2, 6)}
        save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(StoreError, match=str(tmp_path)):
        AdapterHistory.load({"a": tmp_path})


@pytest.mark.parametrize(
    "values",
    [{"rank": 0}, {"alpha": 0.0}, {"mode": "soft"}, {"penalty_side": "up"}, {"penalty_against": "none"},
     {"penalty_coefficient": -1.0}, {"learning_rate": float("nan")}, {"epochs": 0}, {"dropout": 1.0},
     {"targets": ()}, {"warmup_fraction": -0.1}],
)  # fmt: skip
def test_bad_values_are_refused_with_their_field(values):
    with pytest.raises(InputError, match=rf"adapter\.{next(iter(values))}"):
        AdapterConfig(**values)


def test_overlaps_of_rows_and_columns_are_told_apart():
    same, other = torch.eye(7)[:2], torch.eye(7)[2:4]
    columns = draw(3, 5, 2)
    history = AdapterHistory.of(
        {"a": LoraFactors.uniform({"m": (same, columns)}), "b": LoraFactors.uniform({"m": (other, columns)})}
    )
    found = overlap_matrices(history)
    assert found["row_overlap"][0][1] == found["update_cosine"][0][1] == 0
    assert found["column_overlap"][0][1] == pytest.approx(1)
    assert found["row_angle"][0][1] == pytest.approx(90)
    assert found["column_angle"][0][1] == pytest.approx(0, abs=1e-4)
