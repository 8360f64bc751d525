"""An encoder whose linear layers compute in bfloat16."""

import pytest
import torch

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder

NAME = "minilm:bfloat16"


@pytest.fixture(scope="module")
def half():
    return load_encoder(NAME)


@pytest.fixture(scope="module")
def detector(half, people):
    return fit_detector(half, people["forget"], DetectorConfig(encoder=NAME), seed=0)


def test_features_are_near_those_of_float32_and_independent_of_batch_mates(half, encoder, people):
    texts = people["forget"][:6] + people["far"]
    features, exact = half.encode(texts), encoder.encode(texts)
    assert features.dtype == torch.float32
    assert not torch.equal(features, exact)
    assert ((features - exact).norm(dim=-1) / exact.norm(dim=-1)).max() < 0.02
    alone = torch.cat([half.encode([text]) for text in texts])
    assert ((features - alone).norm(dim=-1) / alone.norm(dim=-1)).max() < 0.02


def test_weights_tell_the_request_from_others(half, detector, people):
    gate = MultiDetector(half, {"people": detector})
    assert gate.weights(people["held_out"]).min() > 0.9
    assert gate.weights(people["retained"] + people["far"]).max() < 0.05


def test_it_is_another_encoder_than_in_float32(half, encoder, detector):
    assert half.id == NAME
    assert half.digest != encoder.digest
    with pytest.raises(StoreError, match="fitted on encoder minilm:bfloat16"):
        MultiDetector(encoder, {"people": detector})


@pytest.mark.parametrize("fields", [{"pooling": "first"}, {"preset": "official"}, {"objective": "nt_xent"}])
def test_other_poolings_and_trained_encoders_are_refused(fields):
    with pytest.raises(InputError, match="objective 'none' and pooling 'mean'"):
        DetectorConfig(encoder=NAME, **fields)


def test_other_poolings_are_refused_on_loading():
    with pytest.raises(InputError, match="expected a BERT with mean pooling"):
        load_encoder(NAME, pooling="last")
