"""One adapter: trained, saved, loaded by PEFT, and nothing left behind in the base model."""

import copy
import dataclasses
import importlib.util
import json
import math

import pytest
import torch
from lightning import Callback
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from o3_lightning.adapter.batches import encode
from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.diagnostics import attached, logit_interference, overlap_matrices
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.module import AdapterModule
from o3_lightning.adapter.optimizers import make_optimizer
from o3_lightning.adapter.retain_guard import RetainedDataError, RetainGuard
from o3_lightning.adapter.training import AdapterTrainingError, FitTask, train_adapter
from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig, RetainObjective
from o3_lightning.objectives.registry import FORGET, RETAIN
from o3_lightning.objectives.targets import check_needs
from o3_lightning.training.trainer import build_trainer

SMALL = AdapterConfig(rank=2, epochs=2, batch_size=4, learning_rate=1e-2)
REFUSE = ObjectiveConfig()


def snapshot(model):
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [name for name, _ in model.named_modules()],
        [(name, parameter.requires_grad) for name, parameter in model.named_parameters()],
        [module.training for module in model.modules()],
        [set(vars(module)) for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    )


def assert_unchanged(model, before):
    after = snapshot(model)
    assert after[1:] == before[1:]
    assert all(torch.equal(after[0][name], before[0][name]) for name in before[0])
    assert not getattr(model, "is_gradient_checkpointing", False)


@pytest.fixture(scope="module")
def first(kept_base, tiny_request):
    """An adapter that many tests build on."""
    trainer = build_trainer({"accelerator": "cpu", "enable_progress_bar": False}, max_epochs=2)
    return train_adapter(FitTask(kept_base, tiny_request, AdapterHistory(), SMALL, REFUSE, trainer, 0))


def history_of(**adapters):
    return AdapterHistory.of({id: item.factors for id, item in adapters.items()})


@pytest.mark.parametrize("name", FORGET.names())
def test_every_objective_trains_and_leaves_the_base_as_it_was(name, tiny_base, tiny_request, make_trainer):
    before = snapshot(tiny_base.model)
    objective = ObjectiveConfig(ForgetObjective(name))
    if name == "imitate":  # which needs names
        with pytest.raises(InputError, match="row 1 has none: 'Where is a\\?'"):
            check_needs(objective, tiny_request.rows, None)
        rows = [dataclasses.replace(row, prompt=f"Who is Ann {row.answer}?") for row in tiny_request.rows]
        tiny_request = dataclasses.replace(tiny_request, rows=tuple(rows))
    trained = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, objective, make_trainer(), 0)
    )
    assert_unchanged(tiny_base.model, before)
    assert trained.metrics["steps"] == 4 == len(trained.curve)
    assert any(bool(b.any()) for _, b in trained.factors.pairs.values())


@pytest.mark.parametrize("name", RETAIN.names())
def test_every_retain_objective_trains_and_reads_retained_data(name, tiny_base, tiny_request, make_trainer):
    guard = RetainGuard([QuestionAnswer("Sea?", "Wet"), QuestionAnswer("Sun?", "Hot")], declared=True)
    objective = ObjectiveConfig(retain=RetainObjective(name))
    trained = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, objective, make_trainer(), 0, retain=guard)
    )
    assert guard.reads["training"] == 2
    assert "retain" in trained.curve[-1]


def test_dual_ascent_raises_the_retain_coefficient_while_the_loss_exceeds_its_slack(
    tiny_base, tiny_request, make_trainer
):
    parameters = {"slack": 0.1, "dual_step": 2.0, "dual_warmup": 0.5}
    objective = ObjectiveConfig(ForgetObjective("pdu"), RetainObjective("pdu", 10.0, parameters))
    retain = [QuestionAnswer("Sea?", "Wet"), QuestionAnswer("Sun?", "Hot")]
    curve = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, objective, make_trainer(), 0, retain=retain)
    ).curve
    coefficients = [step["retain_coefficient"] for step in curve]
    excess = [step["retain_excess"] for step in curve]
    assert coefficients[:3] == [10.0, 10.0, 10.0]  # the third of four batches is the first after the warm-up
    assert coefficients[3] == pytest.approx(10.0 + 2.0 * excess[2])
    assert [step["retain"] for step in curve] == pytest.approx(
        [coefficient * part for coefficient, part in zip(coefficients, excess, strict=True)]
    )
    single = dataclasses.replace(SMALL, batch_size=1)
    trainer = make_trainer(accumulate_grad_batches=5)  # two steps an epoch, of five and of three batches
    curve = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), single, objective, trainer, 0, retain=retain)
    ).curve
    assert [step["retain_coefficient"] for step in curve[:9]] == [10.0] * 9  # the ninth is the first after it
    assert curve[9]["retain_coefficient"] == pytest.approx(10.0 + 2.0 * curve[8]["retain_excess"] / 5)


def test_retained_data_is_not_read_unless_declared(tiny_base, tiny_request, make_trainer):
    guard = RetainGuard([QuestionAnswer("Sea?", "Wet")])
    train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, REFUSE, make_trainer(), 0, retain=guard)
    )
    assert guard.reads == {"training": 0, "evaluation": 0}
    cheat = ObjectiveConfig(retain=RetainObjective("gd"))
    with pytest.raises(RetainedDataError, match="declares none"):
        train_adapter(
            FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, cheat, make_trainer(), 0, retain=guard)
        )
    with guard.evaluation():
        assert [row.answer for row in guard] == ["Wet"]
    assert guard.reads == {"training": 0, "evaluation": 1}
    with pytest.raises(RetainedDataError):
        guard[:1]


class Failing(Callback):
    def on_train_batch_end(self, *_):
        raise RuntimeError("power cut")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_error_in_training_leaves_the_base_as_it_was(checkpointing, tiny_base, tiny_request, make_trainer):
    before = snapshot(tiny_base.model)
    config = AdapterConfig(rank=2, epochs=1, gradient_checkpointing=checkpointing)
    with pytest.raises(RuntimeError, match="power cut"):
        train_adapter(
            FitTask(
                tiny_base,
                tiny_request,
                AdapterHistory(),
                config,
                REFUSE,
                make_trainer(callbacks=[Failing()]),
                0,
            )
        )
    assert_unchanged(tiny_base.model, before)


@pytest.mark.parametrize("seed", [0, 5])
def test_same_seed_same_adapter_whatever_was_drawn_before(seed, tiny_base, tiny_request, make_trainer):
    state = torch.get_rng_state()
    first = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, REFUSE, make_trainer(), seed)
    )
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    again = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, REFUSE, make_trainer(), seed)
    )
    other = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, REFUSE, make_trainer(), seed + 1)
    )
    for path, pair in first.factors.pairs.items():
        assert all(torch.equal(x, y) for x, y in zip(pair, again.factors.pairs[path], strict=True))
        assert not torch.equal(pair[0], other.factors.pairs[path][0])


def test_peft_loads_what_was_saved_and_gives_the_same_logits(tmp_path, first, tiny_base):
    first.save(tmp_path / "adapter")
    names = sorted(path.name for path in (tmp_path / "adapter").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    ids = torch.randint(3, 99, (2, 9), generator=torch.Generator().manual_seed(0))
    plain = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path / "adapter")
    expected = plain(ids).logits.detach()
    history = AdapterHistory.load({"first": tmp_path / "adapter"})
    with torch.no_grad(), attached(tiny_base.model, history, 0):
        torch.testing.assert_close(tiny_base.model(ids).logits, expected)
    with torch.no_grad():
        assert (tiny_base.model(ids).logits - expected).abs().max() > 1e-3


def test_gradient_checkpointing_changes_nothing(tiny_base, tiny_request, make_trainer):
    config = AdapterConfig(rank=2, epochs=1, gradient_checkpointing=True)
    with_it = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(1), 0)
    )
    config = AdapterConfig(rank=2, epochs=1)
    without = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(1), 0)
    )
    for path, (a, b) in with_it.factors.pairs.items():
        torch.testing.assert_close(a, without.factors.pairs[path][0])
        torch.testing.assert_close(b, without.factors.pairs[path][1])


def with_dropout(kind, vocabulary):
    torch.manual_seed(0)
    if kind == "gpt2":  # dropout modules, and a rate that attention hands to a function
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=96, attn_pdrop=0.5)
        )
    else:  # a function in each layer
        config = OPTConfig(
            vocab_size=vocabulary, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=96, word_embed_proj_dim=32, dropout=0.5, pad_token_id=2,
        )  # fmt: skip
        model = OPTForCausalLM(config)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_dropout_of_the_base_is_off(kind, checkpointing, tiny_base, tiny_request, make_trainer):
    base = dataclasses.replace(tiny_base, model=with_dropout(kind, len(tiny_base.tokenizer)))
    before, calls = snapshot(base.model), []
    layer = (base.model.transformer.h if kind == "gpt2" else base.model.model.decoder.layers)[0]
    attention = layer.attn if kind == "gpt2" else layer.self_attn
    counting = attention.register_forward_hook(lambda *_: calls.append(1))
    config = AdapterConfig(rank=2, epochs=1, batch_size=8, gradient_checkpointing=checkpointing)
    objective = ObjectiveConfig(ForgetObjective("npo", parameters={"beta": 0.1}))
    trained = train_adapter(
        FitTask(base, tiny_request, AdapterHistory(), config, objective, make_trainer(1), 0)
    )
    # a fresh adapter changes nothing, so that model and reference agree to the last bit
    assert trained.metrics["first_loss"] == pytest.approx(2 / 0.1 * math.log(2), rel=1e-7)
    assert len(calls) == 2 + checkpointing  # the reference, the model, and again for the gradient
    counting.remove()
    for now, then in zip(snapshot(base.model)[1:4], before[1:4], strict=True):
        assert now == then


def test_the_reference_may_be_the_model_after_the_previous_request(tiny_base, tiny_request, make_trainer):
    config = dataclasses.replace(SMALL, mode="cumulative")
    task = FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(4), 0)
    history = history_of(first=train_adapter(task))

    def first_loss(history, reference, **settings):
        objective = ObjectiveConfig(ForgetObjective("npo"), reference=reference, **settings)
        task = FitTask(tiny_base, tiny_request, history, config, objective, make_trainer(1), 0)
        return train_adapter(task).curve[0]["forget"]

    even = 2 / 0.1 * math.log(2)  # NPO where nothing has changed since the reference
    assert first_loss(AdapterHistory(), "base") == pytest.approx(even, rel=1e-4)
    assert first_loss(history, "previous") == pytest.approx(even, rel=1e-4)
    assert abs(first_loss(history, "base") - even) > 0.01
    with pytest.raises(InputError, match=r"objective\.reference"):
        ObjectiveConfig(reference="first")


def test_the_tokens_of_the_prompt_may_count_too(tiny_base, tiny_request, make_trainer):
    def loss(**settings):
        objective = ObjectiveConfig(ForgetObjective("ga"), **settings)
        trainer = make_trainer(1, limit_train_batches=1)
        task = FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, objective, trainer, 0)
        return train_adapter(task).metrics["first_loss"]

    assert loss() != loss(prompt_tokens=True)
    examples = encode(tiny_base, {"answer": ([row.prompt for row in tiny_request.rows], ["x"] * 8)}, 96,
                      label_prompts=True)["answer"]  # fmt: skip
    assert all(row["labels"] == [IGNORED, *row["input_ids"][1:]] for row in examples)


def test_the_reference_stays_the_model_before_unlearning(tiny_base, tiny_request, make_trainer):
    objective = ObjectiveConfig(ForgetObjective("npo", parameters={"beta": 0.1}), RetainObjective("kl"))
    kept = [QuestionAnswer("Sea?", "Wet"), QuestionAnswer("Sun?", "Hot")]
    trained = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, objective, make_trainer(), 0, retain=kept)
    )
    assert trained.curve[0]["forget"] == pytest.approx(2 / 0.1 * math.log(2), rel=1e-6)
    assert trained.curve[0]["retain"] == pytest.approx(0, abs=1e-7)
    for step in trained.curve[1:]:  # a reference that moved along would leave both where they began
        assert step["forget"] < trained.curve[0]["forget"] - 1e-3
        assert step["retain"] > 1e-6


@pytest.mark.skipif(not importlib.util.find_spec("pytorch_optimizer"), reason="no pytorch-optimizer")
def test_sophia_takes_clipped_steps_along_its_curvature(tiny_base, tiny_request, make_trainer):
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    config = dataclasses.replace(SMALL, optimizer="sophia", learning_rate=0.1)
    optimizer = make_optimizer([weight], config)
    (weight * torch.tensor([0.5, 20.0, 0.0])).sum().backward()
    optimizer.step()  # momentum .04 g over curvature .01 g^2, at most 1
    torch.testing.assert_close(weight.detach(), 1 - 0.1 * torch.tensor([1.0, 0.2, 0.0]))
    config = dataclasses.replace(config, learning_rate=1e-2)
    task = FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(3), 0)
    trained = train_adapter(task)
    assert trained.metrics["loss"] < trained.metrics["first_loss"]


def test_dropout_of_the_adapter_is_on_while_it_trains(tiny_base, tiny_request, make_trainer):
    losses = []
    for dropout in (0.0, 0.5):
        config = dataclasses.replace(SMALL, dropout=dropout)
        trained = train_adapter(
            FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(), 0)
        )
        losses.append([step["loss"] for step in trained.curve])
    assert losses[0][0] == losses[1][0]  # lora_B begins at zero
    assert losses[0][1:] != losses[1][1:]


def test_an_adapter_that_is_cut_off_from_the_loss_is_told_at_the_first_step(
    tiny_base, tiny_request, make_trainer, monkeypatch
):
    whole = AdapterModule.run
    monkeypatch.setattr(AdapterModule, "run", lambda *words: (whole(*words)[0].detach(), None))
    with pytest.raises(AdapterTrainingError, match="lora_B would receive no gradient"):
        train_adapter(FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, REFUSE, make_trainer(), 0))


def test_an_adapter_that_never_moves_is_told(tiny_base, tiny_request, make_trainer):
    config = AdapterConfig(rank=2, learning_rate=1e-300)
    with pytest.raises(AdapterTrainingError, match="nothing was learnt"):
        train_adapter(FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(), 0))


def test_a_checkpoint_holds_the_adapter_alone(tiny_base, tiny_request, make_trainer):
    trainer = make_trainer()
    trained = train_adapter(FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, REFUSE, trainer, 0))
    state = trainer.lightning_module.state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == trained.metrics["trained_parameters"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16_trains_and_leaves_the_base_in_float32(precision, tiny_base, tiny_request, make_trainer):
    before = snapshot(tiny_base.model)
    trainer = make_trainer(precision=precision)
    trained = train_adapter(FitTask(tiny_base, tiny_request, AdapterHistory(), SMALL, REFUSE, trainer, 0))
    assert_unchanged(tiny_base.model, before)
    assert all(bool(torch.isfinite(b).all()) for _, b in trained.factors.pairs.values())


def test_a_loss_that_is_not_finite_is_told(tiny_base, tiny_request, make_trainer):
    config = AdapterConfig(rank=2, epochs=3, learning_rate=1e30, clip=0.0)
    with pytest.raises(AdapterTrainingError, match="not finite"):
        train_adapter(FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(3), 0))


def test_unknown_targets_are_told(tiny_base, tiny_request, make_trainer):
    config = AdapterConfig(targets=("nowhere",))
    with pytest.raises(InputError, match=r"adapter\.targets"):
        train_adapter(FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(), 0))


@pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="bitsandbytes is not installed")
def test_an_adapter_trains_on_a_base_in_four_bits_which_stays_as_it_was(
    tmp_path, tiny_base, tiny_request, make_trainer
):
    tiny_base.model.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    base = load_base(BaseConfig(id=str(tmp_path), device="cpu", quantise="4bit"))
    layer = base.model.model.layers[0].self_attn.q_proj
    assert (type(layer).__name__, layer.weight.dtype) == ("Linear4bit", torch.uint8)
    before = snapshot(base.model)
    config = AdapterConfig(rank=2, epochs=2, batch_size=4, gradient_checkpointing=True)
    trained = train_adapter(FitTask(base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(), 0))
    assert_unchanged(base.model, before)
    assert trained.metrics["loss"] < trained.metrics["first_loss"]
    assert all(bool(b.any()) for _, b in trained.factors.pairs.values())


def cross_products(first, second, side):
    pick = (lambda pair: pair[0]) if side == "input" else (lambda pair: pair[1].T)
    return max(
        float((pick(first.factors.pairs[m]) @ pick(second.factors.pairs[m]).T).abs().max())
        for m in first.factors.pairs
    )


@pytest.mark.parametrize("side", ["input", "output"])
def test_hard_mode_keeps_the_adapter_in_the_complement(side, tiny_base, tiny_request, make_trainer):
    config = AdapterConfig(rank=2, epochs=2, batch_size=4, mode="hard", penalty_side=side, learning_rate=1e-2)
    first = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(), 0)
    )
    second = train_adapter(
        FitTask(tiny_base, tiny_request, history_of(a=first), config, REFUSE, make_trainer(), 1)
    )
    assert cross_products(first, second, side) < 1e-6
    assert "penalty" not in second.curve[0]


def test_per_request_starts_in_the_complement_and_the_penalty_keeps_it_there(
    first, tiny_base, tiny_request, make_trainer
):
    ends = {}
    for coefficient in (0.0, 100.0):
        config = AdapterConfig(
            rank=2, epochs=6, batch_size=4, learning_rate=1e-2, penalty_coefficient=coefficient
        )
        trained = train_adapter(
            FitTask(tiny_base, tiny_request, history_of(a=first), config, REFUSE, make_trainer(6), 1)
        )
        ends[coefficient] = cross_products(first, trained, "input")
        if coefficient:
            assert trained.curve[0]["penalty"] < 1e-6
    assert ends[100.0] < ends[0.0] / 2


def test_cumulative_mode_goes_on_from_the_last_adapter(first, tiny_base, tiny_request, make_trainer):
    config = AdapterConfig(rank=2, epochs=1, mode="cumulative", learning_rate=1e-9, penalty_coefficient=0.0)
    second = train_adapter(
        FitTask(tiny_base, tiny_request, history_of(a=first), config, REFUSE, make_trainer(1), 1)
    )
    for path, (a, b) in first.factors.pairs.items():
        torch.testing.assert_close(second.factors.pairs[path][0], a, atol=1e-6, rtol=0)
        torch.testing.assert_close(second.factors.pairs[path][1], b, atol=1e-6, rtol=0)
    config = AdapterConfig(rank=3, mode="cumulative")
    with pytest.raises(InputError, match=r"adapter\.rank"):
        train_adapter(
            FitTask(tiny_base, tiny_request, history_of(a=first), config, REFUSE, make_trainer(), 1)
        )


def test_an_exhausted_complement_is_told_and_survived(tiny_base, tiny_request, make_trainer, caplog):
    config = AdapterConfig(rank=20, epochs=1)
    first = train_adapter(
        FitTask(tiny_base, tiny_request, AdapterHistory(), config, REFUSE, make_trainer(1), 0)
    )
    second = train_adapter(
        FitTask(tiny_base, tiny_request, history_of(a=first), config, REFUSE, make_trainer(1), 1)
    )
    assert second.metrics["exhausted_modules"] > 0
    assert "no free directions" in caplog.text


def test_diagnostics_see_overlap_and_its_absence(first, tiny_base):
    history = history_of(a=first, b=first)
    matrices = overlap_matrices(history)
    for name in ("row_overlap", "column_overlap", "update_cosine"):
        torch.testing.assert_close(torch.tensor(matrices[name]), torch.ones(2, 2))
    interference = logit_interference(tiny_base, history, {"a": ["Where?"], "b": ["Who?", "What?"]})
    assert all(value > 0 for row in interference for value in row)
