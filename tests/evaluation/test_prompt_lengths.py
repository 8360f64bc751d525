"""Prompts that leave no room for an answer."""

import json
from dataclasses import replace

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.prompt_lengths import fit_prompts
from o3_lightning.evaluation.splits import check_prompts

LONG = "Where was she born, and why? " * 20
ROWS = (QuestionAnswer("Who?", "Ann", (LONG, "Who is it?")), QuestionAnswer(LONG, "Bo"))


@pytest.fixture
def stream():
    return RequestStream("rows", (UnlearningRequest("ann", ROWS),), {"retain": ROWS}, holdout=ROWS)


@pytest.fixture
def small(tiny_base):
    return replace(tiny_base, context_tokens=64)


def prompts_of(stream):
    rows = [*stream.requests[0].rows, *stream.utility["retain"], *stream.holdout]
    return [prompt for row in rows for prompt in (row.prompt, *row.held_out_prompts)]


def test_long_prompts_are_cut_to_leave_room_and_others_stay(stream, small):
    fitted = fit_prompts(stream, small, "cut", 48)
    assert all(small.count_tokens(prompt) <= 32 for prompt in prompts_of(fitted))
    assert fitted.requests[0].rows[1].prompt.startswith("Where was she born")
    assert fitted.requests[0].rows[0].prompt == "Who?"
    assert len(prompts_of(fitted)) == len(prompts_of(stream))


@pytest.mark.parametrize("too_long", ["cut", "skip"])
def test_the_files_of_fitted_rows_are_not_checked_again(stream, small, tmp_path, too_long):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": LONG, "answer": "Bo"}))
    own = replace(stream, files=(str(path),))
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        check_prompts(own, small)
    check_prompts(fit_prompts(own, small, too_long, 0), small)


def test_long_prompts_are_skipped(stream, small):
    assert prompts_of(fit_prompts(stream, small, "skip", 0)) == ["Who?", "Who is it?"] * 3


def test_long_prompts_are_refused_also_where_only_training_is_short(stream, small, tiny_base):
    with pytest.raises(InputError, match=r"ann/seen, row 2: .* tokens, the model's context is 64"):
        fit_prompts(stream, small, "refuse", 0)
    wide = replace(tiny_base, context_tokens=10**4)
    assert fit_prompts(stream, wide, "refuse", 0) is stream
    with pytest.raises(InputError, match=r"ann/seen, row 2: .* tokens, adapter.max_tokens is 48"):
        fit_prompts(stream, wide, "refuse", 48)
