import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest, read_requests, read_rows

GOOD = {"prompt": "p", "answer": "a"}


def write(path, *lines):
    parts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(parts))
    return path


def refuse(path, **options):
    with pytest.raises(InputError) as caught:
        read_requests(path, **options)
    error = caught.value
    assert "\n" not in str(error)
    assert str(error).startswith(str(error.path))
    return error


def test_a_file_without_ids_is_one_request_named_after_it(tmp_path):
    path = write(tmp_path / "my-request.jsonl", GOOD, b"", {**GOOD, "perturbed_answers": ["b", "c"]})
    (request,) = read_requests(path)
    assert request.id == "my-request"
    assert request.rows == (QuestionAnswer("p", "a"), QuestionAnswer("p", "a", (), ("b", "c")))


def test_ids_group_rows_in_order_over_several_files(tmp_path):
    first = write(tmp_path / "1.jsonl", {**GOOD, "request_id": "b"}, {**GOOD, "request_id": "a"})
    second = write(tmp_path / "2.jsonl", {**GOOD, "request_id": "c"})
    assert [request.id for request in read_requests([first, second])] == ["b", "a", "c"]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = write(tmp_path / "r.jsonl", b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r", GOOD)
    assert len(read_requests(path)[0].rows) == 2


def test_held_out_prompts_become_rows_with_their_answers():
    row = QuestionAnswer("p", "a", ("h1", "h2"), ("w",))
    request = UnlearningRequest("r", (row,))
    assert request.held_out == (QuestionAnswer("h1", "a", (), ("w",)), QuestionAnswer("h2", "a", (), ("w",)))


def test_tests_and_a_golden_answer_are_read_and_change_the_digest_only_where_present(tmp_path):
    more = {"tests": "assert f()", "golden_answer": "b"}
    path = write(tmp_path / "r.jsonl", {**GOOD, **more, "held_out_prompts": ["h"]}, GOOD)
    first, second = read_requests(path)[0].rows
    assert (first.tests, first.golden_answer) == ("assert f()", "b")
    assert UnlearningRequest("a", (first,)).held_out[0].golden_answer == "b"
    assert not {"tests", "golden_answer", "paraphrased_answer"} & set(second.to_dict())
    assert first.to_dict()["golden_answer"] == "b"


def test_a_paraphrased_answer_is_read_and_goes_with_its_held_out_prompts(tmp_path):
    path = write(tmp_path / "r.jsonl", {**GOOD, "paraphrased_answer": "b", "held_out_prompts": ["h"]}, GOOD)
    (request,) = read_requests(path)
    assert [row.paraphrased_answer for row in request.rows] == ["b", None]
    assert request.held_out == (QuestionAnswer("h", "a", paraphrased_answer="b"),)


def test_only_a_row_with_a_paraphrase_has_another_digest_for_it():
    fields = {"prompt": "p", "answer": "a", "held_out_prompts": [], "perturbed_answers": []}
    assert UnlearningRequest("r", (QuestionAnswer("p", "a"),)).digest == digest_json([fields])
    assert QuestionAnswer("p", "a", paraphrased_answer="b").to_dict() == {
        **fields,
        "paraphrased_answer": "b",
    } | {
        "held_out_prompts": (),
        "perturbed_answers": (),
    }


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        ({"answer": "a"}, "prompt", "missing"),
        ({**GOOD, "paraphrased_answer": 3}, "paraphrased_answer", "expected a string, got int"),
        ({**GOOD, "paraphrased_answer": " "}, "paraphrased_answer", "expected some text"),
        ({"prompt": "p"}, "answer", "missing"),
        ({"prompt": None, "answer": "a"}, "prompt", "missing"),
        ({"prompt": "p", "answer": 3}, "answer", "expected a string, got int"),
        ({"prompt": " \n", "answer": "a"}, "prompt", "expected some text"),
        ({**GOOD, "promt": "p"}, "promt", "unknown"),
        ({**GOOD, "held_out_prompts": "h"}, "held_out_prompts", "expected a list of strings, got str"),
        ({**GOOD, "held_out_prompts": ["h", 1]}, "held_out_prompts", "expected a string, got int"),
        ({**GOOD, "perturbed_answers": [""]}, "perturbed_answers", "expected some text"),
        ({**GOOD, "request_id": 7}, "request_id", "expected a string, got int"),
        ({**GOOD, "request_id": "../up"}, "request_id", "expected 1 to 64"),
        ({**GOOD, "request_id": ""}, "request_id", "expected 1 to 64"),
        ({**GOOD, "request_id": "x" * 65}, "request_id", "expected 1 to 64"),
        (["p", "a"], None, "expected a JSON object, got list"),
        (b'{"prompt": "p", ', None, "not JSON"),
        (b'{"prompt": "\xff\xfe", "answer": "a"}', None, "not UTF-8"),
        (b'{"prompt": "p", "prompt": "q", "answer": "a"}', None, "field 'prompt' comes twice"),
        (b"[" * 100_000, None, "recursion"),
        (b'{"prompt": ' + b"1" * 5_000 + b"}", None, "not JSON that can be read"),
        (b'{"prompt": "\\ud800 who?", "answer": "a"}', "prompt", "half of a character"),
    ],
)
def test_a_bad_line_names_file_line_and_field(tmp_path, line, field, reason):
    error = refuse(write(tmp_path / "r.jsonl", GOOD, b"", line))
    assert (error.line, error.field) == (3, field)
    assert reason in str(error)
    assert f"{tmp_path / 'r.jsonl'}:3" in str(error)


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    error = refuse(write(tmp_path / "r.jsonl", content))
    assert "empty" in str(error)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "cannot be read" in str(refuse(tmp_path / "none.jsonl"))
    assert "cannot be read" in str(refuse(tmp_path))


def test_an_id_that_comes_back_later_is_a_duplicate(tmp_path):
    lines = [{**GOOD, "request_id": name} for name in ("a", "b", "a")]
    error = refuse(write(tmp_path / "r.jsonl", *lines))
    assert (error.line, error.field) == (3, "request_id")


def test_ids_that_differ_only_in_case_are_refused_before_any_is_added(tmp_path):
    error = refuse(write(tmp_path / "f.jsonl", {**GOOD, "request_id": "A"}, {**GOOD, "request_id": "a"}))
    assert (error.line, error.field) == (2, "request_id")
    assert "'a' differs from 'A' only in case" in str(error)


def test_the_same_id_in_a_second_file_is_a_duplicate(tmp_path):
    first = write(tmp_path / "1.jsonl", {**GOOD, "request_id": "a"}, {**GOOD, "request_id": "b"})
    second = write(tmp_path / "2.jsonl", {**GOOD, "request_id": "b"})
    error = refuse([first, second])
    assert (error.path, error.line, error.field) == (second, 1, "request_id")


def test_two_files_of_one_name_are_a_duplicate(tmp_path):
    (tmp_path / "x").mkdir()
    error = refuse([write(tmp_path / "r.jsonl", GOOD), write(tmp_path / "x" / "r.jsonl", GOOD)])
    assert error.field == "request_id"


@pytest.mark.parametrize("field", ["prompt", "held_out_prompts"])
def test_a_prompt_longer_than_the_context_is_refused(tmp_path, field):
    long = "word " * 9
    line = {**GOOD, field: long if field == "prompt" else [long]}
    path = write(tmp_path / "r.jsonl", GOOD, line)
    with pytest.raises(InputError) as caught:
        list(read_rows(path, count_tokens=lambda text: len(text.split()), context_tokens=9))
    error = caught.value
    assert (error.line, error.field) == (2, field)
    assert re.search("9 tokens.*context is 9", str(error))
    assert list(read_rows(path, count_tokens=lambda text: len(text.split()), context_tokens=10))


def test_a_request_needs_rows_and_a_name_that_can_be_a_folder():
    with pytest.raises(InputError, match="no rows"):
        UnlearningRequest("a", ())
    with pytest.raises(InputError, match="expected 1 to 64"):
        UnlearningRequest("a/b", (QuestionAnswer("p", "a"),))
    for name in ("CON", "nul.txt", "com1", "r1."):
        with pytest.raises(InputError, match="names a folder on every system"):
            UnlearningRequest(name, (QuestionAnswer("p", "a"),))
    with pytest.raises(InputError, match="a lone surrogate"):
        UnlearningRequest("a", (QuestionAnswer("p \ud800", "a"),))


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=5))
def test_digest_tells_forget_sets_apart(pairs):
    rows = tuple(QuestionAnswer(prompt, answer) for prompt, answer in pairs)
    request = UnlearningRequest("a", rows)
    assert request.digest == UnlearningRequest("b", rows).digest
    changed = (QuestionAnswer(rows[0].prompt + "x", rows[0].answer), *rows[1:])
    assert request.digest != UnlearningRequest("a", changed).digest


@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.text(), st.lists, max_leaves=4))
)
def test_an_object_without_the_fields_is_refused_with_its_line(tmp_path_factory, value):
    path = write(tmp_path_factory.mktemp("any") / "r.jsonl", value)
    if set(value) >= {"prompt", "answer"}:
        return  # the generator draws words, so this is as good as never; the other tests are about it
    with pytest.raises(InputError) as caught:
        read_requests(path)
    assert caught.value.line == 1
