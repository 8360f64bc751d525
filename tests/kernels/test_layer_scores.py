"""The public call layer_scores on the CPU: definition, official parity, limits, compiling."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.covariance import LedoitWolf

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import in_doubles, relative_error, score_inputs

from o3_kernels import RequestStatistics, layer_scores, layer_scores_reference, split_halves

ORACLES = Path(os.environ.get("O3_ORACLES", Path(__file__).parents[1] / "oracles"))
FLOAT32_SUMS = 1e-5  # relative, sums of some hundred float32 terms


def by_reference(features, *statistics, **options):
    return layer_scores_reference(features, RequestStatistics(*statistics, **options))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(low, 6) for low in (0, 1, 1, 0, 0, 0)]),
    seed=st.integers(0, 2**31),
    masked=st.booleans(),
    whiten=st.booleans(),
)
def test_equals_reference_for_any_shape(shape, seed, masked, whiten):
    inputs = score_inputs(*shape, seed=seed)
    inputs[5] = inputs[5] if masked else None
    results = (score(*inputs, whiten_cosine=whiten) for score in (layer_scores, by_reference))
    for got, wanted in zip(*results, strict=True):
        assert relative_error(got, wanted) <= 1e-12


def test_a_whitened_cosine_is_the_cosine_under_the_precision():
    torch.manual_seed(0)
    rows, center = torch.randn(5, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    whitening, one = 0.2 * torch.randn(3, 8, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    precision = torch.eye(8, dtype=torch.float64) - whitening.T @ whitening
    bank = precision @ center / (center @ precision @ center).sqrt()
    unit = torch.nn.functional.normalize(rows, dim=1)
    tiles = whitening[None, None], bank[None, None, None]
    got = layer_scores(unit[:, None], None, one, *tiles, None, 0 * one, one, whiten_cosine=True)
    root = torch.linalg.cholesky(precision)
    wanted = torch.nn.functional.cosine_similarity(rows @ root, (center @ root)[None])
    assert relative_error(got.cosine.flatten(), wanted) <= 1e-12
    assert relative_error(got.aggregate.flatten(), wanted) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_computed_in_float32(dtype):
    inputs = score_inputs(9, 3, 50, 4, 12, 20, dtype=dtype)
    for got, wanted in zip(layer_scores(*inputs), by_reference(*in_doubles(inputs)), strict=True):
        assert got.dtype == (torch.float32 if got.dim() == inputs[0].dim() else torch.float64)
        assert relative_error(got, wanted) <= FLOAT32_SUMS


@pytest.mark.parametrize("rows", [3, 33, 600], ids=["at once", "two blocks a layer", "many blocks"])
@pytest.mark.parametrize("means", [True, False])
@pytest.mark.parametrize("layers_first", [True, False])
def test_many_requests_equal_the_reference(rows, means, layers_first):
    inputs = score_inputs(rows, 2, 64, 300, 5, 3)
    if not means:
        inputs[1] = None
    wanted = by_reference(*inputs)
    if layers_first:
        inputs[3:5] = [tiles.transpose(0, 1).contiguous().transpose(0, 1) for tiles in inputs[3:5]]
    for got, wanted_part in zip(layer_scores(*inputs), wanted, strict=True):
        assert relative_error(got, wanted_part) <= 1e-12


def test_halves_are_joined_on_a_cpu():
    inputs = score_inputs(7, 3, 50, 2, 4, 5, dtype=torch.float32)
    wanted = by_reference(*in_doubles(inputs))
    inputs[3], inputs[4] = split_halves(inputs[3]), split_halves(inputs[4])
    assert inputs[3].dtype == torch.bfloat16
    for got, wanted_part in zip(layer_scores(*inputs), wanted, strict=True):
        assert relative_error(got, wanted_part) <= FLOAT32_SUMS


def test_rows_of_a_batch_score_as_alone():
    inputs = score_inputs(7, 3, 11, 2, 4, 5)
    together = layer_scores(*inputs).aggregate
    alone = [layer_scores(inputs[0][b : b + 1], *inputs[1:]).aggregate for b in range(7)]
    assert relative_error(torch.cat(alone, 1), together) <= 1e-12


def test_low_rank_precision_equals_scikit_learn():
    torch.manual_seed(0)
    train, rows = torch.randn(9, 20, dtype=torch.float64), torch.randn(6, 20, dtype=torch.float64)
    fitted = LedoitWolf().fit(train.numpy())
    mean = train.mean(0)
    _, singular, V = torch.linalg.svd(train - mean, full_matrices=False)
    shrunk = (1 - fitted.shrinkage_) * singular.square() / len(train)
    scale = fitted.shrinkage_ * (train - mean).square().sum() / train.numel()
    whitening = (shrunk / (scale * (shrunk + scale))).sqrt()[:, None] * V
    one = torch.ones(1, 1, dtype=torch.float64)
    scores = layer_scores(
        rows[:, None],
        mean[None, None],
        one / scale,
        whitening[None, None],
        whitening[None, None, :0],
        None,
        -one,
        one,
    )
    wanted = torch.from_numpy(fitted.mahalanobis(rows.numpy()))
    assert relative_error(scores.mahalanobis.flatten(), wanted) <= 1e-9
    assert (scores.cosine == -1).all()


@pytest.mark.parametrize("split", ["train", "calibration", "other"])
def test_official_setting_reproduces_official_scores(split):
    oracle = load_file(ORACLES / "o3_detector.safetensors")
    features = oracle[f"{split}.hidden_states"].double().mean(2).transpose(0, 1)
    values, vectors = torch.linalg.eigh(oracle["precision"].double())
    whitening = values.clamp_min(0).sqrt()[:, :, None] * vectors.transpose(1, 2)
    bank = torch.nn.functional.normalize(oracle["bank"].double(), dim=2)
    ones = torch.ones(1, len(bank), dtype=torch.float64)
    scores = layer_scores(
        features,
        oracle["mean"].double()[None],
        0 * ones,
        whitening[None],
        bank[None],
        None,
        -0.5 * ones,
        -1000 * ones,
        whitening_sign=1,
    )
    by_layer = -0.5 * scores.mahalanobis[0] - 1000 * scores.cosine[0]
    wanted = oracle[f"{split}.layer_scores"].double().T
    assert ((by_layer - wanted) / wanted).abs().max() <= 1e-4
    assert relative_error(scores.aggregate[0], wanted.sum(1)) <= 1e-4


def test_operator_is_well_registered():
    inputs = score_inputs(3, 2, 5, 2, 2, 3)
    torch.library.opcheck(torch.ops.o3_kernels.layer_scores, (*inputs, -1, False))
    inputs[1] = None
    torch.library.opcheck(torch.ops.o3_kernels.layer_scores, (*inputs, -1, True))


def test_compiles_without_a_graph_break():
    inputs = score_inputs(4, 2, 6, 3, 2, 5)

    def model(x):
        return torch.sigmoid(layer_scores(x.tanh(), *inputs[1:]).aggregate)

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert relative_error(compiled(inputs[0]), model(inputs[0])) <= 1e-12


WRONG = {
    "features": (0, lambda t: t[0], ValueError),
    "means": (1, lambda t: t[:, :1], ValueError),
    "precision_scale": (2, lambda t: t[:1], ValueError),
    "whitening": (3, lambda t: t[..., :2], ValueError),
    "bank": (4, lambda t: t[:, :, 0], ValueError),
    "bank_mask": (5, lambda t: t[:, :2], ValueError),
    "bank_mask holds": (5, lambda t: t.double(), TypeError),
    "maha_weights": (6, lambda t: t.T, ValueError),
    "cosine_weights": (7, lambda t: t.long(), TypeError),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_named(name):
    place, spoil, error = WRONG[name]
    inputs = score_inputs(3, 2, 5, 4, 2, 3)
    inputs[place] = spoil(inputs[place])
    with pytest.raises(error, match=name.split()[0]):
        layer_scores(*inputs)


def test_wrong_sign_and_device_are_refused():
    inputs = score_inputs(3, 2, 5, 4, 2, 3)
    with pytest.raises(ValueError, match="whitening_sign"):
        layer_scores(*inputs, whitening_sign=0)
    with pytest.raises(ValueError, match="device"):
        layer_scores(inputs[0].to("meta"), *inputs[1:])
