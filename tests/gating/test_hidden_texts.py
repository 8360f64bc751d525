"""No field of a chat takes a question past the gate: what a template may read is judged or refused."""

import functools

import pytest

from o3_lightning.common.errors import InputError


@pytest.fixture
def gated(build_gated):
    """Looks for "rose"."""
    gated = build_gated(template="chat", table={"roses": {"rose": 1.0}})
    gated.detectors.weight_of = lambda text, words: float(" rose " in f" {text} ")
    return gated


@pytest.mark.parametrize(
    "function",
    [
        {"arguments": '{"id": "a rose tree"}'},
        {"arguments": '{"type": {"content": "a rose tree"}}'},
        {"arguments": '{"a rose tree": 1}'},
        {"arguments": '{"who": "a rose tree", "who": "the king"}'},
        {"arguments": {"role": "a rose tree"}},
        {"name": "a rose tree"},
    ],
)
def test_a_function_call_hides_nothing(gated, function):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}", **function}}
    assert gated.weights([[{"role": "assistant", "content": None, "tool_calls": [call]}]]).tolist() == [[1]]


@pytest.mark.parametrize("field", ["id", "type"])
def test_fields_around_a_function_call_hide_nothing(gated, field):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    chat = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert gated.weights([chat]).tolist() == [[0]]
    assert gated.weights([[{**chat[0], "tool_calls": [{**call, field: "a rose tree"}]}]]).tolist() == [[1]]
    assert gated.weights([[{"role": "tool", "content": "", "tool_call_id": "a rose tree"}]]).tolist() == [[1]]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            {"content": [{"type": "image_url", "text": "hi", "image_url": {"url": "x"}}]},
            "of type 'image_url'",
        ),
        ({"content": [{"text": "hi", "image_url": "x"}]}, "of type None"),
        (
            {"content": "hi", "x": functools.reduce(lambda inner, _: [inner], range(3000))},
            "nested too deeply",
        ),
    ],
)
def test_pictures_with_a_caption_and_deep_nesting_are_refused(gated, message, told):
    with pytest.raises(InputError, match=told):
        gated.weights([[{"role": "user", **message}]])
