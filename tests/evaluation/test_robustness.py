"""Robustness: what attacks get out of a gated model, on the wording, on the bits, and by training."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch

from o3_lightning.attacks import quantising
from o3_lightning.attacks.config import RobustnessConfig
from o3_lightning.attacks.quantising import choose_form, quantised
from o3_lightning.attacks.relearning import known_rows, relearning
from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import collate, encode_pairs
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.detector.answers import AnswerState, columns
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import EvaluationContext
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.evaluation.robustness import Robustness, chosen_kinds
from o3_lightning.evaluation.tables import as_table, attack_summary, pool_requests
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.config import FictitiousBaseConfig
from o3_lightning.models.fictitious import make_model
from o3_lightning.models.lora import LoraFactors

FACTS = {"born": "Arlo", "died": "Brim", "wrote": "Crane", "lived": "Dunmere"}
OTHERS = {"ate": "Eskdale", "slept": "Farrow", "swam": "Gorse", "sang": "Hythe"}
RATES = {"relearn_epochs": 12, "relearn_checks": 2, "relearn_learning_rates": (1e-3, 1e-2)}


def rows_about(name, facts):
    return tuple(
        QuestionAnswer(question.format(name=name, verb=verb), answer, (f"{name} {verb} where?",))
        for verb, answer in facts.items()
        for question in ("Where was it that {name} {verb}?", "{name}, where was it that he {verb}?")
    )


REQUEST = UnlearningRequest("a", rows_about("Quillan", FACTS))
KEPT = rows_about("Sunniva", OTHERS)
STREAM = RequestStream("test", (REQUEST,), {"kept": KEPT})


class NameDetector:
    """Weight 1 for texts that name Quillan."""

    ids = ("a",)

    def weights(self, prompts):
        return torch.tensor([[float("Quillan" in text)] for text in prompts])

    def explain(self, prompts):
        return [{} for _ in prompts]


@pytest.fixture(scope="module")
def taught(tiny_base):
    """The tiny base model after it has learned every row by heart."""
    torch.manual_seed(0)
    model = copy.deepcopy(tiny_base.model).train().requires_grad_(True)
    rows = [*REQUEST.rows, *KEPT]
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    examples = encode_pairs(tiny_base.tokenizer, tiny_base.template, prompts, answers, 64)
    batch = collate(examples, tiny_base.tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return replace(tiny_base, model=model.eval().requires_grad_(False))


def gated_over(base, scale=1.0):
    """A gate whose adapter pushes one layer's output somewhere else."""
    torch.manual_seed(1)
    wide = base.model.config.hidden_size
    factors = {
        "model.layers.1.mlp.up_proj": (
            scale * torch.randn(4, wide),
            torch.randn(base.model.config.intermediate_size, 4),
        )
    }
    return GatedModel(base, NameDetector(), {"a": LoraFactors.uniform(factors)})


@pytest.fixture
def gated(taught):
    return gated_over(taught)


def rows_of(model, stream=STREAM, **settings):
    chosen = {"rows": 0, "bits": (8,), "quantiser": "simulated", **RATES, **settings}
    config = EvaluationConfig(max_new_tokens=8, robustness=RobustnessConfig(**chosen))
    return Robustness(model, stream, config, EvaluationContext(), 0).run()


def attack(model, stream=STREAM, weights="relearn", **settings):
    rows = rows_of(model, stream, kinds=("plain",), weight_attacks=(weights,), **settings)
    return {row["attack"]: row for row in rows if row["group"] == "weights"}


def test_prompt_attacks_measure_leak_and_false_alarms_of_both_members(gated):
    kinds = ("plain", "letter_case", "turns", "content_parts")
    table = rows_of(gated, kinds=kinds, weight_attacks=())
    found = {(row["attack"], row["member"]): row for row in table}
    assert {name for name, _ in found} == set(chosen_kinds(kinds))
    assert {member for _, member in found} == {"development", "test"}
    plain = found["plain", "development"]
    assert (plain["base_leak"], plain["caught"], plain["false_alarm"]) == (1.0, 1.0, 0.0)
    assert plain["utility"] == plain["base_utility"] == 1.0
    assert plain["leak"] < 1.0
    assert plain["attempts"] == len(REQUEST.rows)
    assert plain["others"] == len(KEPT)
    assert found["letter_case", "development"]["caught"] == 0.0  # this detector reads case
    assert found["letter_case", "development"]["leak"] == found["letter_case", "development"]["base_leak"]
    assert all(row["request"] == "a" for row in table)
    assert table == rows_of(gated, kinds=kinds, weight_attacks=())


def test_attacks_on_weights_give_a_row_each(gated):
    found = {row["attack"]: row for row in rows_of(gated, kinds=("plain",), relearn_rows=(2,))}
    named = {"quantise_8_bits_simulated", "quantise_merged_8_bits_simulated", "relearn_2_rows"}
    assert set(found) == named | {"plain", "adapter_off", "adapter_always_on"}
    assert found["adapter_off"]["leak"] == 1.0
    assert found["adapter_always_on"]["leak"] < 1.0
    assert found["adapter_off"]["utility"] == 1.0 > found["adapter_always_on"]["utility"]


def test_attacks_compare_with_the_golden_answer_as_metrics_do(gated):
    rows = [
        replace(row, answer=f"In a town, {row.answer}", golden_answer=row.answer)
        for row in (*REQUEST.rows, *KEPT)
    ]
    stream = RequestStream("test", (UnlearningRequest("a", tuple(rows[:8])),), {"kept": tuple(rows[8:])})
    for row in rows_of(gated, stream, kinds=("plain",), weight_attacks=("adapter_off",)):
        assert row["base_leak"] == row["base_utility"] == 1.0


def test_the_table_pools_requests_and_sets_the_largest_leak_first():
    shared = {"group": "junk", "member": "test", "false_alarm": 0.5, "utility": 1.0, "base_utility": 1.0}
    rows = [
        {"attack": "hashes", "request": "a", "leak": 0.0, "base_leak": 0.0, "attempts": 4, **shared},
        {"attack": "urls", "request": "a", "leak": 0.5, "base_leak": 1.0, "attempts": 2, **shared},
        {"attack": "urls", "request": "b", "leak": 0.25, "base_leak": 1.0, "attempts": 6, **shared},
    ]
    first, second = pool_requests(rows)
    assert (first["attack"], first["leak"], first["worst_request"]) == ("urls", 2.5 / 8, "a")
    assert (first["proves"], second["proves"]) == (True, False)
    found = attack_summary(rows)["test"]
    assert found["leak_of_base"] == 2.5 / 8
    assert (found["kinds"], found["proving"], found["worst"], found["false_alarm"]) == (2, 1, "urls", 0.5)
    lines = as_table(rows)
    assert "junk: urls" in lines[2]
    assert "proves nothing" in lines[3]


def test_kinds_are_chosen_by_name_or_group():
    assert list(chosen_kinds(("urls", "turns")))[:2] == ["urls", "split_question"]
    with pytest.raises(InputError, match="did you mean 'urls'"):
        chosen_kinds(("url",))


def test_relearning_tells_the_look_that_leaked_most_and_what_it_cost(gated, monkeypatch):
    found = attack(gated, weights="relearn", relearn_rows=(4,), relearn_other_rows=4)["relearn_4_rows"]
    assert found["learnt"] == 1.0  # the attacker did learn what he trained on
    assert found["trained_rows"] == 4
    assert found["attempts"] == len(REQUEST.rows) - 4
    assert found["learning_rate"] in RATES["relearn_learning_rates"]
    assert found["epochs"] in (6, 12)
    assert 0 <= found["utility"] <= found["base_utility"] == 1.0


def test_relearning_brings_back_what_an_adapter_hardly_hid(taught):
    found = attack(gated_over(taught, 0.0), weights="relearn", relearn_rows=(4,), relearn_epochs=2)
    assert found["relearn_4_rows"]["leak"] == 1.0


def test_who_has_the_weights_has_no_check_of_answers(taught):
    told = [(answer.lower(), 0, 15.0) for answer in FACTS.values()]
    state = AnswerState(torch.tensor([7]), *columns([("quillan", 0, 15.0)], 7), *columns(told, 7))
    gated = GatedModel(taught, NameDetector(), {"a": None}, answers=[state])
    assert attack(gated, weights="quantise")["quantise_8_bits_simulated"]["leak"] == 0.0  # through the gate
    found = attack(gated, weights="adapter_off")["adapter_off"]
    assert (found["leak"], found["base_leak"]) == (1.0, 1.0)


def test_relearning_leaves_the_model_as_it_was(gated):
    ids = torch.tensor([[5, 6, 7]])
    before = gated.base.model(ids).logits
    state = {name: value.clone() for name, value in gated.base.model.state_dict().items()}
    with relearning(gated, "a", REQUEST.rows[:2], RobustnessConfig(), 1e-2, 0) as attacker:
        first, last = attacker.train(1), attacker.train(8)
        assert last < first
        assert not torch.equal(gated.base.model(ids).logits, before)
        assert attacker.epochs == 9
    assert torch.equal(gated.base.model(ids).logits, before)
    assert all(torch.equal(value, state[name]) for name, value in gated.base.model.state_dict().items())


def test_an_attacker_knows_whole_facts_in_a_drawn_order():
    known = known_rows(REQUEST, 4, 0)
    assert len(known) == 4
    assert len({row.answer for row in known}) == 2
    assert known == known_rows(REQUEST, 4, 0)
    assert any(known_rows(REQUEST, 4, seed) != known for seed in range(1, 5))
    assert len(known_rows(REQUEST, 99, 0)) == len(REQUEST.rows)


def test_a_request_whose_facts_are_all_told_has_no_row(gated):
    assert attack(gated, weights="relearn", relearn_rows=(99,)) == {}


@pytest.mark.parametrize("bits", [8, 3])
def test_fewer_bits_reach_gated_rows_too_and_leave_no_trace(gated, bits):
    ids, on = torch.tensor([[5, 6, 7]]), torch.ones(1, 1)
    before = [gated(ids, weights=weights).logits for weights in (on, 0 * on)]
    with quantised(gated, bits, "simulated"):
        within = [gated(ids, weights=weights).logits for weights in (on, 0 * on, on)]
    for place in (0, 1):
        assert not torch.equal(within[place], before[place])
        assert torch.equal(gated(ids, weights=on if place == 0 else 0 * on).logits, before[place])
    assert torch.equal(within[0], within[2])


def test_fewer_bits_are_closer_to_the_model_the_more_they_are(gated):
    ids = torch.tensor([[5, 6, 7]])
    exact = gated.base.model(ids).logits
    errors = []
    for bits in (3, 6, 12):
        with quantised(gated, bits, "simulated"):
            errors.append(float((gated.base.model(ids).logits - exact).norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * float(exact.norm())


def test_bitsandbytes_is_taken_where_it_is_and_the_name_tells_where_it_is_not(gated, monkeypatch):
    monkeypatch.setattr(quantising, "stored", partial(quantising.rounded, form="simulated"))
    for found, names in (
        (None, ["quantise_8_bits_simulated", "quantise_5_bits_simulated"]),
        (object(), ["quantise_8_bits", "quantise_5_bits_simulated"]),
    ):
        monkeypatch.setattr(quantising.importlib.util, "find_spec", lambda package, found=found: found)
        assert list(attack(gated, weights="quantise", bits=(8, 5), quantiser="auto")) == names
        assert choose_form(gated, 4, "auto") == "simulated"  # rows of 32 weights are no whole block


@pytest.mark.parametrize(("bits", "error"), [(4, 0.2), (8, 0.02)])
@pytest.mark.parametrize("package", ["bitsandbytes", "gguf"])
def test_a_package_stores_the_weights(tiny_base, package, bits, error):
    pytest.importorskip(package)
    config = FictitiousBaseConfig(layers=1, width=64, feed_forward=128, heads=2)
    torch.manual_seed(0)
    model = make_model(tiny_base.tokenizer, config).eval().requires_grad_(False)
    gated = plain_model(replace(tiny_base, model=model))
    assert choose_form(gated, bits, "gguf" if package == "gguf" else "auto") == package
    ids, layer = torch.tensor([[5, 6, 7]]), model.model.layers[0].mlp.down_proj
    x = torch.randn(3, 128)
    logits, exact = model(ids).logits, layer(x)
    with quantised(gated, bits, package):
        found = layer(x)
    assert 0 < float((found - exact).norm() / exact.norm()) < error
    assert torch.equal(model(ids).logits, logits)


def test_there_must_be_a_request_and_something_to_keep(gated, taught):
    with pytest.raises(InputError, match="the store holds no request"):
        attack(plain_model(taught))
    with pytest.raises(InputError, match="need a utility split"):
        attack(gated, RequestStream("bare", (REQUEST,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": ("training",)}, "members': expected some of development, test, got training"),
        ({"weight_attacks": ("melt",)}, "weight_attacks': expected some of adapter_off"),
        ({"relearn_checks": 11}, "relearn_checks': expected no more than the epochs"),
        ({"relearn_learning_rates": ()}, "relearn_learning_rates': expected numbers above 0"),
        ({"relearn_other_rows": -1}, "relearn_other_rows': expected 0 or more"),
        ({"quantiser": "gptq"}, "expected some of auto, gguf, simulated"),
    ],
)
def test_a_wrong_setting_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        RobustnessConfig(**changes)
