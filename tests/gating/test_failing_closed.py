"""Whatever goes wrong in the gate, no row that it did not judge reaches the base model unguarded."""

import logging
import threading
import time

import pytest
import torch

REFUSAL = "sorry I cannot say that"
PROMPTS = ["who is the king", "where is the rose", "is blue the sea", "a lily"]


@pytest.fixture
def broken(build_gated):
    """A function that replaces the detectors' `weights` of a gated model."""

    def build(weights, **settings):
        gated = build_gated(**settings)
        gated.detectors.weights = weights.__get__(gated.detectors)
        return gated

    return build


def weights_of(detectors, prompts):
    return type(detectors).weights(detectors, prompts)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 1.5])
def test_a_weight_that_is_no_number_between_0_and_1_refuses_its_row(broken, build_gated, value):
    def weights(detectors, prompts):
        found = weights_of(detectors, prompts)
        found[[prompt == "who is the king" for prompt in prompts], 1] = value
        return found

    gated = broken(weights)
    answers, expected = gated.answer(PROMPTS), build_gated().answer(PROMPTS)
    assert answers == [REFUSAL, *expected[1:]]
    assert gated.weights(PROMPTS)[0].tolist()[1] == 1
    explained = gated.explain(PROMPTS[:2])
    assert [(row["refused"], row["failed"]) for row in explained] == [(True, True), (False, False)]


def test_an_error_in_the_detectors_refuses_the_text_that_causes_it(broken, build_gated, caplog):
    def weights(detectors, prompts):
        if "is blue the sea" in prompts:
            raise IndexError("secret words of the prompt")
        return weights_of(detectors, prompts)

    gated = broken(weights)
    with caplog.at_level(logging.ERROR):
        answers = gated.answer(PROMPTS)
    expected = build_gated().answer(PROMPTS)
    assert answers == [*expected[:2], REFUSAL, expected[3]]
    assert "IndexError" in caplog.text
    assert "secret" not in caplog.text
    assert "blue" not in caplog.text
    ids, mask = gated.tokens.pad([gated.tokens.encode(PROMPTS[2])])
    assert gated(ids, mask).logits[0, -1].softmax(-1).max() == pytest.approx(0.99)


def test_detectors_that_take_too_long_refuse(broken):
    released = threading.Event()

    def weights(detectors, prompts):
        released.wait(20)
        return weights_of(detectors, prompts)

    gated = broken(weights, timeout_seconds=0.05)
    start = time.monotonic()
    answers = gated.answer(PROMPTS)
    released.set()
    assert answers == [REFUSAL] * 4
    assert time.monotonic() - start < 10


def test_reading_a_chat_that_takes_too_long_refuses(build_gated, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr("o3_lightning.gating.routing.read_turns", lambda turns: released.wait(20))
    start = time.monotonic()
    assert build_gated(timeout_seconds=0.05).answer(PROMPTS) == [REFUSAL] * 4
    released.set()
    assert time.monotonic() - start < 10


def test_a_time_limit_that_is_kept_changes_nothing(build_gated):
    assert build_gated(timeout_seconds=60.0).answer(PROMPTS) == build_gated().answer(PROMPTS)


def test_a_call_within_another_keeps_the_outer_weights(build_gated):
    gated, other = build_gated(), build_gated(combine="max")
    ids, mask = gated.tokens.pad([gated.tokens.encode(prompt) for prompt in PROMPTS])
    weights = gated.weights(PROMPTS)
    expected, alone = gated(ids, mask).logits, gated.answer(["who is the king", "a lily"])
    others = other.answer(["a lily"])
    with torch.no_grad(), gated.acting(weights, ids, mask):
        assert gated.answer(["who is the king", "a lily"]) == alone
        assert torch.equal(gated.base.model(input_ids=ids, attention_mask=mask).logits, expected)
        assert other.answer(["a lily"]) == others
        assert torch.equal(gated.base.model(input_ids=ids, attention_mask=mask).logits, expected)
        built = build_gated()  # over the plain layers, not over those of the open gate
    assert torch.equal(built(ids, mask).logits, expected)


def test_the_outer_call_is_gated_again_after_an_error_within(build_gated):
    gated = build_gated()
    ids, mask = gated.tokens.pad([gated.tokens.encode(prompt) for prompt in PROMPTS])
    expected = gated(ids, mask).logits
    with torch.no_grad(), gated.acting(None, ids, mask):
        with pytest.raises(RuntimeError, match="boom"), gated.acting(None, ids, mask):
            raise RuntimeError("boom")
        assert torch.equal(gated.base.model(input_ids=ids, attention_mask=mask).logits, expected)


def test_calls_of_several_threads_run_at_their_own_weights(build_gated):
    gated = build_gated()
    expected = [gated.answer([prompt]) for prompt in PROMPTS]
    found: dict[tuple[int, int], list[str]] = {}

    def ask(number):
        for turn in range(6):
            found[number, turn] = gated.answer([PROMPTS[number]])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 24
    assert all(answer == expected[number] for (number, _), answer in found.items())


def test_disabled_in_one_thread_leaves_the_gate_of_others_closed(build_gated):
    gated = build_gated(unadapted=["roses"])
    found = []
    with gated.disabled():
        thread = threading.Thread(target=lambda: found.extend(gated.answer(["where is the rose"])))
        thread.start()
        thread.join()
        assert gated.answer(["where is the rose"]) != [REFUSAL]
    assert found == [REFUSAL]
