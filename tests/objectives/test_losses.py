"""Every loss: against the authors' values, blind to prompt and padding, with a right gradient."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from o3_lightning.common.errors import InputError
from o3_lightning.objectives.batch_views import (
    ANSWER,
    IMITATED,
    REFUSAL,
    RETAIN_REFUSAL,
    STRANGER,
    WRONG,
    Settings,
    View,
)
from o3_lightning.objectives.batch_views import RETAIN as RETAIN_VIEW
from o3_lightning.objectives.config import ForgetObjective, RetainObjective
from o3_lightning.objectives.registry import FORGET, RETAIN
from o3_lightning.objectives.rmu import control_vector

ORACLES = Path(os.environ.get("O3_ORACLES", Path(__file__).parents[1] / "oracles"))
SOURCES = {
    ANSWER: "forget",
    REFUSAL: "forget_idk",
    WRONG: "forget_mismatch",
    RETAIN_VIEW: "retain",
    RETAIN_REFUSAL: "retain_idk",
}
ORACLE_NAMES = {
    "GA": "ga", "NPO": "npo", "DPO": "dpo", "ME": "me", "IDK": "refusal", "GD": "gd", "KL": "kl", "AP": "ap"
}  # fmt: skip
KEYS = [key for key in json.loads((ORACLES / "closer_look_losses.json").read_text()) if "@beta=" in key]
CASES = [*(("forget", name) for name in FORGET.names()), *(("retain", name) for name in RETAIN.names())]


@pytest.fixture(scope="module")
def oracle_views():
    tensors = load_file(ORACLES / "closer_look_losses.safetensors")
    return {
        view: View(
            tensors[f"{source}.logits"], tensors[f"{source}.labels"], tensors[f"{source}.reference_logits"]
        )
        for view, source in SOURCES.items()
    }


@pytest.fixture(scope="module")
def oracle_values():
    return json.loads((ORACLES / "closer_look_losses.json").read_text())


def find(kind, name):
    return FORGET[name] if kind == "forget" else RETAIN[name]


def settings_of(kind, name):
    return ForgetObjective(name).settings() if kind == "forget" else RetainObjective(name).settings()


def on_answers(name, view, **parameters):
    """The loss of a forget objective on true answers."""
    return FORGET[name]({ANSWER: view}, FORGET[name].settings(parameters))


def random_views(seed=0, rows=2, tokens=6, vocabulary=7, width=5):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    views = {}
    for view in (*SOURCES, IMITATED, STRANGER):
        labels = torch.randint(0, vocabulary, (rows, tokens), generator=generator)
        labels[:, :2], labels[0, -1] = -100, -100
        views[view] = View(
            draw(rows, tokens, vocabulary), labels, draw(rows, tokens, vocabulary),
            draw(rows, tokens, width), draw(rows, tokens, width),
        )  # fmt: skip
    return views


def test_the_reference_values_hold_every_published_loss():
    assert {key.split("@")[0] for key in KEYS} == set(ORACLE_NAMES)


@pytest.mark.parametrize("key", KEYS)
def test_loss_equals_the_authors_value(key, oracle_views, oracle_values):
    published, beta = key.split("@beta=")
    name = ORACLE_NAMES[published]
    objective = FORGET[name] if name in FORGET else RETAIN[name]
    given = {"beta": float(beta), "every_token": True}
    own = {parameter.name for parameter in objective.parameters}
    settings = objective.settings({key: number for key, number in given.items() if key in own})
    value = objective(oracle_views, settings)
    assert value.item() == pytest.approx(oracle_values[key], abs=1e-6)


def test_llmu_equals_the_authors_terms(oracle_views, oracle_values):
    regularisation = RETAIN["kl"](oracle_views, RETAIN["kl"].settings({"every_token": True}))
    total = FORGET["llmu"](oracle_views, FORGET["llmu"].settings({"beta": 1.0})) + regularisation
    expected = oracle_values["LLMU.forget"] + oracle_values["LLMU.regularization"]
    assert total.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_prompt_and_padding_change_nothing(kind, name):
    objective, settings = find(kind, name), settings_of(kind, name)
    views = random_views()
    before = objective(views, settings)
    noisy = {}
    for key, view in views.items():
        predicts = torch.zeros_like(view.labels, dtype=torch.bool)
        predicts[:, :-1] = view.labels[:, 1:] != -100
        labelled = (view.labels != -100)[..., None]
        noisy[key] = View(
            torch.where(predicts[..., None], view.logits, view.logits * 3 + 1),
            view.labels,
            torch.where(predicts[..., None], view.reference_logits, view.reference_logits * 3 - 1),
            torch.where(labelled, view.hidden, view.hidden * 5 + 2),
            torch.where(labelled, view.reference_hidden, view.reference_hidden * 5 - 2),
        )
    assert objective(noisy, settings).item() == pytest.approx(before.item(), abs=1e-12)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_labelled_token_does_change_it(kind, name):
    objective, settings = find(kind, name), settings_of(kind, name)
    views = random_views()
    before = objective(views, settings)
    view = views[objective.views[0]]
    view.logits[0, 2, 1] += 0.5
    view.hidden[0, 3, 1] += 0.5
    assert abs(objective(views, settings).item() / before.item() - 1) > 1e-5


SMOOTH = [case for case in CASES if case[1] not in ("wga", "satimp", "ceu")]


@pytest.mark.parametrize(("kind", "name"), SMOOTH)
def test_gradient_equals_finite_differences(kind, name):
    objective, settings = find(kind, name), settings_of(kind, name)
    views = random_views(rows=1, tokens=4, vocabulary=4, width=3)
    part = "hidden" if objective.hidden else "logits"

    def loss(*parts):
        changed = {
            key: View(**{**vars(views[key]), part: value})
            for key, value in zip(objective.views, parts, strict=True)
        }
        return objective(changed, settings)

    inputs = [getattr(views[key], part).clone().requires_grad_() for key in objective.views]
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize(("name", "weight"), [("wga", lambda p: p), ("satimp", lambda p: p**5 * (1 - p))])
def test_weights_carry_no_gradient(name, weight):
    view = random_views(rows=1)[ANSWER]
    logits = view.logits.clone().requires_grad_()
    FORGET[name]({ANSWER: View(logits, view.labels)}, ForgetObjective(name).settings()).backward()
    log_p = view.logits[:, :-1].log_softmax(-1)
    expected, mask = torch.zeros_like(view.logits), view.labels[:, 1:] != -100
    for row, place in mask.nonzero().tolist():
        target = view.labels[row, place + 1]
        p = log_p[row, place].exp()
        onehot = torch.nn.functional.one_hot(target, p.shape[0])
        expected[row, place] = -weight(p[target]) * (p - onehot) / mask.sum()  # d nll / dz = p - onehot
    torch.testing.assert_close(logits.grad, expected)


def test_ceu_gradient_moves_towards_the_rest_of_the_vocabulary():
    logits = torch.zeros(1, 2, 4, dtype=torch.float64, requires_grad=True)
    on_answers("ceu", View(logits, torch.tensor([[-100, 1]]))).backward()
    expected = torch.tensor([0.25 - 1 / 3, 0.25, 0.25 - 1 / 3, 0.25 - 1 / 3], dtype=torch.float64)
    torch.testing.assert_close(logits.grad[0, 0], expected)


def test_maximum_entropy_with_the_authors_floor_is_their_code():
    view = random_views()[ANSWER]
    view.logits.mul_(40)  # far from uniform: probabilities of 1e-30 and less
    keep = view.labels[:, 1:] != -100
    probabilities = view.logits[:, :-1][keep].softmax(-1)
    uniform = torch.full_like(probabilities, 1 / 7)
    theirs = torch.nn.functional.kl_div((probabilities + 1e-12).log(), uniform, reduction="batchmean")
    assert on_answers("me", view, floor=1e-12).item() == pytest.approx(theirs.item(), rel=1e-12)
    assert on_answers("me", view).item() > 1.5 * theirs.item()


@pytest.mark.parametrize("whole_step", [False, True])
def test_ceu_may_leave_out_the_first_token_of_each_answer(whole_step):
    view = random_views()[ANSWER]
    shorter = view.labels.clone()
    shorter[:, 2] = -100  # where both answers begin
    expected = on_answers("ceu", replace(view, labels=shorter))
    counts = torch.tensor([(view.labels != -100).sum(), 2.0]) if whole_step else None
    view = replace(view, counts=counts)
    assert on_answers("ceu", view, skip_first=True).item() == pytest.approx(expected.item(), rel=1e-12)
    assert on_answers("ceu", view).item() != pytest.approx(expected.item(), rel=1e-3)


def test_closed_forms_on_a_uniform_model():
    logits, labels = torch.zeros(1, 3, 4, dtype=torch.float64), torch.tensor([[-100, 2, 1]])
    view, nll = View(logits, labels, logits), math.log(4)
    assert on_answers("wga", view, beta=1.0).item() == pytest.approx(-nll / 4)
    satimp = on_answers("satimp", view, beta=2.0, second_beta=1.0)
    assert satimp.item() == pytest.approx(-nll / 16 * 0.75)
    assert on_answers("simnpo", view, beta=2.0).item() == pytest.approx(math.log(1 + math.exp(-2 * nll)))
    assert on_answers("undial", view, beta=1e6).item() == pytest.approx(nll)
    for direction in ("uniform_to_model", "model_to_uniform"):
        assert on_answers("me", view, direction=direction).item() == pytest.approx(0, abs=1e-12)


def test_both_directions_of_maximum_entropy_equal_torch_kl_div():
    view = random_views()[ANSWER]
    mask = view.labels[:, 1:] != -100
    log_p = view.logits[:, :-1].log_softmax(-1)[mask]
    log_u = torch.full_like(log_p, -math.log(log_p.shape[-1]))
    kl = torch.nn.functional.kl_div
    expected = kl(log_p, log_u, log_target=True, reduction="batchmean")
    assert on_answers("me", view, direction="uniform_to_model").item() == pytest.approx(expected.item())
    expected = kl(log_u, log_p, log_target=True, reduction="batchmean")
    assert on_answers("me", view, direction="model_to_uniform").item() == pytest.approx(expected.item())


def test_eul_is_the_selective_teacher_student_loss():
    views = random_views()
    found, kl, nll = [], [], []
    for name in (ANSWER, RETAIN_VIEW):
        view = views[name]
        mask = view.labels[:, 1:] != -100
        log_p, log_q = (
            logits[:, :-1].log_softmax(-1)[mask] for logits in (view.logits, view.reference_logits)
        )
        kl.append(torch.nn.functional.kl_div(log_p, log_q, log_target=True, reduction="batchmean").item())
        nll.append(torch.nn.functional.nll_loss(log_p, view.labels[:, 1:][mask]).item())
    found = FORGET["eul"](views, FORGET["eul"].settings({"alpha": 0.5, "gamma": 0.25})).item()
    assert found == pytest.approx(-0.5 * kl[0] - 0.25 * nll[0])
    assert RETAIN["eul"](views, RETAIN["eul"].settings({"task": 2.0})).item() == pytest.approx(
        kl[1] + 2 * nll[1]
    )


def test_answer_preservation_is_log_two_over_beta_where_nothing_is_preferred():
    view = random_views()[RETAIN_VIEW]
    views = {RETAIN_VIEW: view, RETAIN_REFUSAL: view}
    assert RETAIN["ap"](views, Settings(beta=0.1)).item() == pytest.approx(10 * math.log(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_half_precision_is_computed_in_float32(kind, name, dtype):
    def rounded(view, dtype):
        parts = ("logits", "reference_logits", "hidden", "reference_hidden")
        return replace(view, **{part: getattr(view, part).to(dtype) for part in parts})

    objective, settings = find(kind, name), settings_of(kind, name)
    half = {key: rounded(view, dtype) for key, view in random_views().items()}
    exact = {key: rounded(view, torch.float64) for key, view in half.items()}
    assert objective(half, settings).item() == pytest.approx(objective(exact, settings).item(), rel=1e-5)


def test_control_vector_has_its_length_and_depends_on_the_seed():
    assert control_vector(16, 3.0, 0).norm().item() == pytest.approx(3.0)
    assert not torch.equal(control_vector(16, 3.0, 0), control_vector(16, 3.0, 1))


@pytest.mark.parametrize("name", ["npo", "undial", "dpo"])
def test_a_missing_reference_is_told(name):
    views = {key: View(view.logits, view.labels) for key, view in random_views().items()}
    with pytest.raises(InputError, match="reference logits"):
        FORGET[name](views, FORGET[name].settings({}))


def test_a_missing_view_is_told():
    with pytest.raises(InputError, match="needs the view 'refusal'"):
        FORGET["refusal"]({}, Settings())


def test_imitation_is_the_divergence_from_the_answers_about_a_stranger():
    views = random_views()
    logits, goal = views[IMITATED].logits, views[STRANGER].reference_logits
    longer = replace(  # one token more before the answer
        views[STRANGER],
        logits=torch.cat([goal[:, :1], goal], 1),
        labels=torch.cat([torch.full((2, 1), -100), views[STRANGER].labels], 1),
        reference_logits=torch.cat([goal[:, :1], goal], 1),
    )
    mask = views[IMITATED].labels[:, 1:] != -100
    log_q, log_p = (part[:, :-1][mask].log_softmax(-1) for part in (goal, logits))
    expected = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    for stranger in (replace(views[STRANGER], logits=goal), longer):  # which keeps its answers
        loss = FORGET["imitate"]({**views, STRANGER: stranger}, FORGET["imitate"].settings({}))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)


def test_imitation_needs_answers_of_one_length():
    views = random_views()
    cut = replace(views[STRANGER], labels=views[STRANGER].labels.clone())
    cut.labels[1, -1] = -100
    with pytest.raises(InputError, match="as long after both prompts"):
        FORGET["imitate"]({**views, STRANGER: cut}, FORGET["imitate"].settings({}))


def test_pdu_flattens_the_logits_and_holds_the_retain_loss_below_its_slack():
    views = random_views()
    for unshifted in (False, True):  # the published code's mask is one token late
        logits, labels = views[ANSWER].logits, views[ANSWER].labels
        rows = logits[labels != -100] if unshifted else logits[:, :-1][labels[:, 1:] != -100]
        expected = ((rows.max(-1).values - rows.mean(-1)) ** 2).mean()
        assert on_answers("pdu", views[ANSWER], unshifted=unshifted).item() == pytest.approx(expected.item())
    excess = RETAIN["pdu"](views, RETAIN["pdu"].settings({"slack": 0.5}))
    assert excess.item() == pytest.approx(RETAIN["gd"](views, Settings()).item() - 0.5)
