"""The losses at a temperature: against torch's own, and what they give a model that is certain."""

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from o3_lightning.objectives.batch_views import ANSWER, RETAIN, View
from o3_lightning.release.temperature_losses import Keep, Learn

LABELS = torch.tensor([[-100, 2, 0], [-100, -100, 1]])
WITHOUT_END = torch.tensor([[-100, 2, -100], [-100, -100, 1]])  # a single label stays


@pytest.fixture
def logits():
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def learn(logits, temperature, labels=LABELS):
    objective = Learn(parameters={"temperature": temperature})
    return objective.objective({ANSWER: View(logits, labels)}, objective.settings())


def keep(logits, reference, temperature, labels=LABELS):
    objective = Keep(parameters={"temperature": temperature})
    view = View(logits, labels, reference_logits=reference)
    return objective.objective({RETAIN: view}, objective.settings())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_learning_is_cross_entropy_of_divided_logits(logits, temperature):
    labels = WITHOUT_END[:, 1:].reshape(-1)
    expected = cross_entropy(logits[:, :-1].reshape(-1, 5) / temperature, labels)
    torch.testing.assert_close(learn(logits, temperature), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_keeping_is_the_divergence_of_divided_logits(logits, temperature):
    reference = logits.roll(1, dims=-1)
    labelled = LABELS[:, 1:] != -100
    new, old = ((part[:, :-1][labelled] / temperature).log_softmax(-1) for part in (logits, reference))
    expected = temperature**2 * kl_div(new, old, log_target=True, reduction="batchmean")
    torch.testing.assert_close(keep(logits, reference, temperature), expected)


def test_a_certain_model_gets_a_gradient_at_a_temperature_alone():
    certain = torch.tensor([[[0.0, 20.0], [0.0, 0.0]]], dtype=torch.float64)
    labels = torch.tensor([[-100, 1]])
    sizes = []
    for temperature in (1.0, 5.0):
        logits = certain.clone().requires_grad_()
        learn(logits, temperature, labels).backward()
        sizes.append(logits.grad.norm().item())
    # the factor 1 - p, over the temperature: by hand
    one = torch.tensor(1.0, dtype=torch.float64)
    expected = [(one / (1 + (20 / t * one).exp()) / t * 2**0.5).item() for t in (1.0, 5.0)]
    assert sizes == pytest.approx(expected)
    assert sizes[1] > 1e5 * sizes[0]
