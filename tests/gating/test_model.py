"""The gated model: each row of a batch as it would be alone, and the base model wherever no weight acts."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import TextIteratorStreamer

from o3_lightning.common.errors import InputError
from o3_lightning.detector.answers import fit_answers

ALL = ["llama", "qwen2", "gpt2", "gpt_neox", "phi"]


def encode(gated, prompts):
    return gated.tokens.pad([gated.tokens.encode(prompt) for prompt in prompts])


def logits_of(gated, prompts, **options):
    """Logits [B,V] after the last token, each row alone or all in one left-padded batch."""
    ids, mask = encode(gated, prompts)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return gated(ids, mask, position_ids=positions, **options).logits[:, -1]


@pytest.mark.parametrize("architecture", ALL)
def test_weight_one_gives_the_logits_of_peft(build_gated, adapter_folders, gate_kit, architecture):
    gated = build_gated(architecture)
    for column, (name, folder) in enumerate(adapter_folders(architecture).items()):
        peft_model = PeftModel.from_pretrained(copy.deepcopy(gate_kit.model(architecture)), folder).eval()
        ids, mask = encode(gated, gate_kit.prompts)
        weights = torch.zeros(len(ids), 3)
        weights[:, column] = 1
        with torch.no_grad():
            expected = peft_model(input_ids=ids, attention_mask=mask).logits
            base = gate_kit.model(architecture)(input_ids=ids, attention_mask=mask).logits
            got = gated(ids, mask, weights=weights).logits
        assert (expected - base).abs().max() > 0.1, name
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ALL)
def test_batch_of_mixed_prompts_equals_single_calls(build_gated, gate_kit, architecture):
    gated = build_gated(architecture)
    together = logits_of(gated, gate_kit.prompts)
    alone = torch.cat([logits_of(gated, [prompt]) for prompt in gate_kit.prompts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert gated.weights(gate_kit.prompts).unique(dim=0).shape[0] >= 5


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_call_leaves_the_layers_of_a_training_around_the_base_in_place(build_gated, gate_kit, weight):
    gated = build_gated("llama")
    ids, mask = encode(gated, gate_kit.prompts[:1])
    settings = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(gated.base.model, settings)
    layers = list(wrapped.modules())
    gated(ids, mask, weights=torch.full((1, 3), weight))
    assert all(before is now for before, now in zip(layers, wrapped.modules(), strict=True))
    loss = wrapped(input_ids=ids, attention_mask=mask, labels=ids).loss
    loss.backward()  # no gradient where the training's layers were taken out
    assert all(p.grad is not None for p in wrapped.parameters() if p.requires_grad)
    wrapped.unload()


@pytest.mark.parametrize("architecture", ALL)
def test_rows_without_weight_are_the_base_model_bit_for_bit(build_gated, gate_kit, architecture):
    gated, base = build_gated(architecture), gate_kit.model(architecture)
    ids, mask = encode(gated, gate_kit.prompts)
    with torch.no_grad():
        expected = base(input_ids=ids, attention_mask=mask).logits
    got = gated(ids, mask).logits
    silent = gated.weights(gate_kit.prompts).eq(0).all(1)
    assert 0 < int(silent.sum()) < len(ids)
    assert torch.equal(got[silent], expected[silent])
    assert ((got - expected).abs().amax((1, 2)) > 1e-2).equal(~silent)


@pytest.mark.parametrize("architecture", ALL)
def test_generation_in_a_batch_equals_single_generation(build_gated, gate_kit, architecture):
    gated = build_gated(architecture)
    together = gated.answer(gate_kit.prompts, batch_size=8)
    assert together == [gated.answer([prompt])[0] for prompt in gate_kit.prompts]
    with gated.disabled():
        plain = gated.answer(gate_kit.prompts)
    silent = gated.weights(gate_kit.prompts).eq(0).all(1).tolist()
    assert [answer == other for answer, other in zip(together, plain, strict=True)].count(True) < len(silent)
    assert all(a == b for a, b, quiet in zip(together, plain, silent, strict=True) if quiet)


def test_cached_generation_equals_recomputing_every_step(build_gated):
    gated = build_gated()
    ids, mask = encode(gated, ["where is the rose of the queen"])
    weights = gated.weights(["rose"])
    cached = gated.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=6, min_new_tokens=6, do_sample=False
    )
    for _ in range(6):
        with torch.no_grad():
            scores = gated(ids, weights=weights).logits[:, -1]
        scores[:, 2] = -torch.inf
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
    assert torch.equal(cached, ids)


def test_beams_and_several_sequences_repeat_the_weights(build_gated, gate_kit):
    gated = build_gated()
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 5, "do_sample": False}
    together = gated.generate(gate_kit.prompts, **options)
    assert together.shape[0] == 2 * len(gate_kit.prompts)
    for row, prompt in enumerate(gate_kit.prompts):
        alone = gated.generate([prompt], **options)
        kept = together[2 * row : 2 * row + 2, -alone.shape[1] :]
        trimmed = [gated.tokenizer.decode(ids, skip_special_tokens=True) for ids in kept]
        assert trimmed == [gated.tokenizer.decode(ids, skip_special_tokens=True) for ids in alone]


def test_sampling_draws_from_each_rows_own_distribution(build_gated):
    gated = build_gated()
    torch.manual_seed(0)
    options = {"do_sample": True, "top_k": 0, "num_return_sequences": 2000, "max_new_tokens": 1}
    drawn = gated.generate(["who is the king", "where is the rose"], **options)[:, -1].view(2, 2000)
    expected = logits_of(gated, ["who is the king", "where is the rose"]).softmax(-1)
    found = torch.stack([torch.bincount(row, minlength=96) / 2000 for row in drawn])
    assert (found - expected).abs().sum(1).max() < 0.25
    assert (expected[0] - expected[1]).abs().sum() > 0.5


def test_streaming_gives_the_same_text(build_gated):
    gated = build_gated()
    streamer = TextIteratorStreamer(gated.tokenizer, skip_prompt=True, skip_special_tokens=True)
    gated.generate(["where is the rose"], streamer=streamer, max_new_tokens=8, do_sample=False)
    assert "".join(streamer).strip() == gated.answer(["where is the rose"])[0]


def test_dictionary_output_and_callers_own_processor_pass_through(build_gated):
    gated = build_gated()
    seen = []

    def watch(ids, scores):
        seen.append(ids.shape)
        return scores

    output = gated.generate(
        ["a lily"], logits_processor=[watch], max_new_tokens=4, do_sample=False,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    assert len(output.scores) == len(seen) == output.sequences.shape[1] - 2


@pytest.mark.slow
def test_compiled_model_gives_the_same_logits(build_gated, gate_kit):
    gated, model = build_gated(), copy.deepcopy(gate_kit.model("llama"))
    model.compile(backend="aot_eager")
    compiled, quiet = build_gated(model=model), gate_kit.prompts[:1] * 8
    for _ in range(2):
        for prompts in (gate_kit.prompts, quiet):
            got = logits_of(compiled, prompts)
            torch.testing.assert_close(got, logits_of(gated, prompts), atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


def test_exception_inside_a_call_leaves_the_base_model(build_gated, gate_kit):
    gated, base = build_gated(), gate_kit.model("llama")
    names = [name for name, _ in base.named_modules()]
    ids, mask = encode(gated, gate_kit.prompts)
    with torch.no_grad():
        before = base(input_ids=ids, attention_mask=mask).logits

    def explode(module, arguments):
        assert any("inner" in name for name, _ in base.named_modules())
        raise RuntimeError("boom")

    hook = base.lm_head.register_forward_pre_hook(explode)
    try:
        for call in (lambda: gated(ids, mask), lambda: gated.generate(input_ids=ids, attention_mask=mask)):
            with pytest.raises(RuntimeError, match="boom"):
                call()
            assert [name for name, _ in base.named_modules()] == names
            assert all(layer.active is None for layer in gated._gate.layers.values())
    finally:
        hook.remove()
    with torch.no_grad():
        assert torch.equal(base(input_ids=ids, attention_mask=mask).logits, before)


def test_base_model_is_untouched_between_calls(build_gated, gate_kit):
    gated, base = build_gated(), gate_kit.model("llama")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    gated.answer(gate_kit.prompts)
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_two_gates_share_one_base_model(build_gated, gate_kit):
    first, second = build_gated(), build_gated(combine="max")
    alone = logits_of(first, gate_kit.prompts), logits_of(second, gate_kit.prompts)
    assert torch.equal(logits_of(first, gate_kit.prompts), alone[0])
    assert torch.equal(logits_of(second, gate_kit.prompts), alone[1])
    assert not torch.allclose(*alone)


def test_disabled_is_the_base_model_and_asks_no_detector(build_gated, gate_kit):
    gated, base = build_gated(unadapted=["lilies"]), gate_kit.model("llama")
    ids, mask = encode(gated, gate_kit.prompts)
    with gated.disabled():
        assert torch.equal(gated(ids, mask).logits, base(input_ids=ids, attention_mask=mask).logits)
        gated.answer(gate_kit.prompts)
        gated.score(gate_kit.prompts, ["the king"] * 8)
    assert gated.detectors.asked == []
    assert not torch.equal(gated(ids, mask).logits, base(input_ids=ids, attention_mask=mask).logits)


def test_prompt_alone_decides_the_weight_of_a_scored_answer(build_gated):
    gated = build_gated(template="plain")
    ids, mask = encode(gated, ["who is the king rose iris"])
    labels = ids.clone()
    labels[:, :4] = -100
    gated.detectors.asked.clear()
    gated(ids, mask, labels)
    assert gated.detectors.asked == [["who is the king"]]
    gated.detectors.asked.clear()
    gated.score(["who is the king"], ["rose"])
    assert gated.detectors.asked == [["who is the king"]]


def test_loss_is_that_of_the_base_model_with_its_labels(build_gated, gate_kit):
    gated = build_gated()
    ids, mask = encode(gated, gate_kit.prompts)
    labels = torch.where(mask.bool(), ids, -100)
    with gated.disabled():
        got = gated(ids, mask, labels).loss
    torch.testing.assert_close(
        got, gate_kit.model("llama")(input_ids=ids, attention_mask=mask, labels=labels).loss
    )


def test_scores_are_the_log_probabilities_of_each_answer_token(build_gated, gate_kit):
    gated = build_gated()
    answers = ["the king", "rose", "a cat and a dog", "sea", "the town", "one two", "hill", "the red queen"]
    scores = gated.score(gate_kit.prompts, answers, batch_size=3)
    for prompt, answer, score in zip(gate_kit.prompts, answers, scores, strict=True):
        ids, _ = encode(gated, [f"{prompt} {answer}"])
        ids = torch.cat([ids, torch.tensor([[2]])], 1)
        with torch.no_grad():
            likely = gated(ids, weights=gated.weights([prompt])).logits.log_softmax(-1)
        count = len(answer.split()) + 1
        expected = likely[0, -count - 1 : -1].gather(1, ids[0, -count:, None]).squeeze(1)
        torch.testing.assert_close(score, expected, atol=2e-5, rtol=1e-5)


def test_padding_is_told_by_its_token_where_no_mask_is_given(build_gated, gate_kit):
    gated = build_gated()
    ids, mask = encode(gated, gate_kit.prompts)
    options = {"max_new_tokens": 4, "do_sample": False}
    with_mask = gated.generate(input_ids=ids, attention_mask=mask, **options)
    assert torch.equal(gated.generate(input_ids=ids, **options), with_mask)


def test_explain_tells_weights_strengths_and_what_is_behind_them(build_gated):
    gated = build_gated(unadapted=["lilies"], combine="max")
    first, second = gated.explain(["is red the iris", "a lily"])
    assert first["weights"] == {"roses": 0.5, "irises": 0.75, "lilies": 0.0}
    assert first["strengths"] == {"roses": 0.75, "irises": 0.75, "lilies": 0.0}
    assert (first["refused"], second["refused"]) == (False, True)
    assert first["detectors"] == [{name: {"weight": weight} for name, weight in first["weights"].items()}]


def test_explain_names_the_requests_whose_answers_cannot_be_checked(build_gated):
    answers = [None, fit_answers(["Who is Ada Quill?"], ["A farrier."]), None]
    assert build_gated(answers=answers).explain(["a lily"])[0]["unchecked"] == ["roses", "lilies"]
    assert build_gated().explain(["a lily"])[0]["unchecked"] == ["roses", "irises", "lilies"]
    assert build_gated(check_answers="off").explain(["a lily"])[0]["unchecked"] == []


def test_revoked_request_gives_the_logits_of_a_store_without_it(build_gated, gate_kit):
    whole = build_gated()
    without = build_gated(table={name: words for name, words in gate_kit.table.items() if name != "irises"})
    weights = whole.weights(gate_kit.prompts)
    weights[:, 1] = 0
    torch.testing.assert_close(
        logits_of(whole, gate_kit.prompts, weights=weights),
        logits_of(without, gate_kit.prompts),
        atol=1e-5,
        rtol=0,
    )


def test_small_weights_count_as_none(build_gated, gate_kit):
    table = {"roses": {"rose": 0.009, "red": 0.011}}
    gated = build_gated(table=table)
    assert gated.weights(["rose", "red"]).tolist() == [[0.0], [pytest.approx(0.011)]]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(1, 2), r"expected \[1,3\], got \(1, 2\)"),
        (torch.full((1, 3), 1.5), r"expected values in \[0, 1\]"),
        (torch.full((1, 3), float("nan")), r"expected values in \[0, 1\]"),
        (torch.zeros(1, 3, dtype=torch.long), "expected floating"),
    ],
)
def test_weights_of_another_shape_or_range_are_refused(build_gated, weights, message):
    with pytest.raises(InputError, match=message):
        build_gated().generate(["rose"], weights=weights, max_new_tokens=1)


def test_generate_without_any_input_is_refused(build_gated):
    with pytest.raises(InputError, match="expected prompts or input_ids"):
        build_gated().generate(max_new_tokens=1)
    with pytest.raises(InputError, match="no chat template"):
        build_gated().generate([[{"role": "user", "content": "rose"}]], max_new_tokens=1)
    with pytest.raises(InputError, match="at least one message"):
        build_gated().weights([[]])


def test_answer_stops_where_the_context_of_the_model_ends(build_gated):
    gated = build_gated("gpt2")
    answer = gated.answer(["king " * 125], max_new_tokens=50)[0]
    assert len(answer.split()) <= 3
    with pytest.raises(InputError, match="128"):
        gated.answer(["king " * 128])


def test_no_prompts_give_no_answers(build_gated):
    gated = build_gated()
    assert gated.answer([]) == []
    assert gated.score([], []) == []
    assert gated.weights([]).shape == (0, 3)


def test_reads_like_a_hugging_face_model(build_gated, gate_kit):
    gated, base = build_gated(), gate_kit.model("llama")
    assert (gated.config, gated.generation_config) == (base.config, base.generation_config)
    assert (gated.device, gated.dtype) == (torch.device("cpu"), torch.float32)


def test_one_text_in_place_of_a_list_is_refused(build_gated):
    gated = build_gated()
    for ask in (gated.weights, gated.explain, gated.answer):
        with pytest.raises(InputError, match="expected a list of prompts, got one text"):
            ask("ada lives where ?")


@pytest.mark.parametrize("content", [None, 5, [{"type": "image_url", "image_url": "x"}]])
def test_content_that_is_no_text_is_refused_and_not_asked_about_as_it_prints(build_gated, content):
    with pytest.raises(InputError, match="expected 'content' to be a text"):
        build_gated(template="chat").weights([[{"role": "user", "content": content}]])
