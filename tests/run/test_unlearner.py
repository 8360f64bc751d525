"""What the unlearner commits to the store."""

from types import SimpleNamespace

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.models.lora import LoraFactors
from o3_lightning.run import unlearner
from o3_lightning.run.config import RunConfig


def test_an_adapter_that_the_gate_cannot_load_is_never_committed(
    tiny_base, remembering_encoder, tmp_path, monkeypatch
):
    """Such as one of fused experts, which train but have no linear layer to gate."""
    factors = LoraFactors.uniform(
        {"model.layers.0.mlp.experts.down_proj": (torch.ones(1, 64), torch.ones(32, 1))}
    )
    trained = SimpleNamespace(save=factors.save, metrics={}, curve=())
    monkeypatch.setattr(unlearner, "train_request", lambda *_, **__: trained)
    request = UnlearningRequest("torvald", (QuestionAnswer("Where was Torvald Ekmansgard born?", "Oslo"),))
    protecting = unlearner.Unlearner(
        tiny_base, tmp_path / "store", RunConfig(), {"accelerator": "cpu"}, encoder=remembering_encoder
    )
    protecting.protect(request)
    with pytest.raises(InputError, match=r"experts\.down_proj"):
        protecting.unlearn(request)
    assert [record.status for record in protecting.store.records()] == ["protected"]
    assert list(protecting.gated_model().ids) == ["torvald"]
