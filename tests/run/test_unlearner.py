"""What the unlearner commits to the store."""

from types import SimpleNamespace

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.encoder import load_encoder
from o3_lightning.gating.config import GateConfig
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


def test_weights_that_refuse_nothing_may_still_let_an_adapter_act(tiny_base, tmp_path):
    """O3's soft weight with a small zeta, an ablation of its paper, stays below a half on every prompt."""
    rows = tuple(QuestionAnswer(f"Where did Torvald Ekmansgard spend winter {n}?", "Oslo") for n in range(6))
    for floor in (0.01, 0.4):
        config = RunConfig(
            detector=DetectorConfig(preset="official", objective="none", zeta=1.0),
            gate=GateConfig(floor=floor),
        )
        encoder = load_encoder("minilm", pooling="padded_mean")
        made = unlearner.Unlearner(
            tiny_base, tmp_path / f"{floor}", config, {"accelerator": "cpu"}, encoder=encoder
        )
        request = UnlearningRequest("torvald", rows)
        if floor > 0.3:
            with pytest.raises(
                InputError, match=r"recognises none of its 6 prompts \(largest weight 0\.2\d, 0\.4 needed"
            ):
                made.protect(request)
        else:
            report = made.protect(request)["report"]
            assert report["warnings"][-1] == "6 of 6 forget prompts are not recognised themselves"
