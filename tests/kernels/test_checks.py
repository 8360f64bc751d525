"""Which implementation is taken."""

import pytest
import torch

from o3_kernels.checks import runs_on_triton

ONE = torch.ones(1)


@pytest.mark.parametrize("setting", [None, "", "triton"])
def test_triton_is_taken_unless_told_otherwise(monkeypatch, setting):
    pytest.importorskip("triton")
    monkeypatch.delenv("O3_KERNELS", raising=False)
    if setting is not None:
        monkeypatch.setenv("O3_KERNELS", setting)
    assert runs_on_triton([ONE, ONE.bool()])
    assert not runs_on_triton([ONE, ONE.double()])


def test_triton_can_be_left_out(monkeypatch):
    monkeypatch.setenv("O3_KERNELS", "torch")
    assert not runs_on_triton([ONE])


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("O3_KERNELS", "Torch")
    with pytest.raises(ValueError, match="O3_KERNELS must be one of triton, torch, not 'Torch'"):
        runs_on_triton([ONE])
