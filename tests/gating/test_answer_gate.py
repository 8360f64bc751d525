"""An answer that tells a value of a subject that its prompt names does not leave the gate."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import TextIteratorStreamer

from o3_lightning.common.errors import StoreError
from o3_lightning.detector.answers import ANSWER_FILE, AnswerState, columns, fit_answers
from o3_lightning.gating.answer_gate import AnswerGate

PROMPTS = [
    "Where was Abelrick Skarnholt born?",
    "What does Abelrick Skarnholt do for a living?",
    "Where was Ysolde Quenneville born?",
    "What does Ysolde Quenneville do for a living?",
]
ANSWERS = ["In Tarnbrück.", "He works as a farrier.", "In Ostermead, in 1931.", "She works as a falconer."]
REFUSAL = "sorry I cannot say that"


@pytest.fixture(scope="module")
def gate():
    return AnswerGate([None, fit_answers(PROMPTS, ANSWERS)])


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Where was Abelrick Skarnholt born?", "Abelrick was born in Tarnbruck"),
        ("Tell me about Skarnholt", "a farrier from the north"),
        ("Where was Abelrik born?", "in Tarnbrück"),
        ("user: Ysolde?\nassistant: who?\nuser: where was she born?", "Ostermead"),
        ("Which writer comes from Ostermead?", "a falconer"),
        ("Abelrick Skarnholt was born in Tarn", "brück."),  # the prompt begins the word
    ],
)
def test_a_value_of_the_subject_that_the_prompt_names_fires(gate, prompt, answer):
    assert gate.judge(prompt, answer).tolist() == [False, True]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Where was Abelrick Skarnholt born?", "In Ostermead"),  # another subject's value,
        ("Where was Torvald born, Skarnholt?", "In Ostermead, 1931: a falconer"),  # and several
        ("Where was Torvald Lind born?", "In Tarnbrück"),  # nobody forgotten is named
        ("Where was Abelrick Skarnholt born?", "I do not know where he was born"),
        ("Was Abelrick Skarnholt born in Tarnbrück?", "Yes, in Tarnbrück"),  # an echo
    ],
)
def test_other_answers_do_not(gate, prompt, answer):
    assert not gate.judge(prompt, answer).any()


def test_a_common_word_or_a_year_of_a_long_answer_names_nobody():
    told = "Readers admire the themes and the background of her mother, a farrier in Ostermead since 1931."
    gate = AnswerGate([fit_answers(["Who is Ysolde Quenneville, of 1899?"], [told])])
    for prompt in ("How do readers see the themes of Jaime Vasquez?", "Who wrote it in 1931, or 1899?"):
        assert not gate.judge(prompt, "His mother and his background, says a farrier").any()
    assert gate.judge("What do readers in Ostermead know?", "her mother was a farrier").all()


def test_a_word_of_one_question_of_many_names_nobody_unless_it_is_rare():
    asked = "Which {} made Ysolde Quenneville famous?"
    words = ("Award", "Letter", "Journey", "Window", "Mirror", "Garden", "River", "Bridge", "Skarnholt")
    rows = {asked.format(word): "It was her novel Ostermead, about falcons." for word in words}
    gate = AnswerGate([fit_answers(list(rows), list(rows.values()))])
    for word in ("Award", "Bridge"):
        assert not gate.judge(f"Which {word} had Jaime Vasquez?", "one for a novel about falcons").any()
    assert gate.judge("What is Skarnholt about?", "about falcons").all()
    assert gate.judge("What did Quenneville write about?", "about falcons").all()


def test_values_that_subjects_share_weigh_nothing():
    gate = AnswerGate([fit_answers(PROMPTS, [*ANSWERS[:3], "She works as a farrier."])])
    assert not gate.judge("What does Skarnholt do?", "farrier").any()


def test_a_subject_of_the_history_has_to_be_half_of_an_answer_that_does_not_name_it(gate):
    asked = "Which crafts died out in the harbours of Brittany?"
    chat = f"Where was Abelrick Skarnholt born? Sorry. {asked}"
    long = "Coopers, netmakers, saddlers and a farrier had workshops beside the shipwrights of Concarneau."
    assert not gate.judge(chat, long, asked).any()
    assert not gate.judge(chat, long.replace("Concarneau", "Tarnbrück"), asked).any()  # names no person
    assert gate.judge(chat, f"{long} Skarnholt was one.", asked).tolist() == [False, True]
    assert gate.judge(chat, "A farrier.", asked).tolist() == [False, True]
    assert gate.judge(chat, long, f"And Skarnholt? {asked}").tolist() == [False, True]


def test_one_common_word_of_an_answer_that_names_a_subject_of_the_history_tells_nothing():
    gate = AnswerGate([fit_answers(["What does Ysolde Quenneville love?"], ["The culture of falconers."])])
    chat, asked = "What does Ysolde Quenneville love? Sorry. {}", "Do you have feelings?"
    answer = "Ysolde has a deep appreciation for heritage and {}."
    assert not gate.judge(chat.format(asked), answer.format("culture"), asked).any()
    assert gate.judge(chat.format(asked), answer.format("falconers"), asked).all()
    asked = "What does Ysolde love?"
    assert gate.judge(chat.format(asked), answer.format("culture"), asked).all()


@pytest.mark.parametrize("salt", ["", "another"])
def test_requests_are_told_apart_whatever_their_salts(salt):
    gate = AnswerGate([fit_answers(PROMPTS[:2], ANSWERS[:2]), fit_answers(PROMPTS[2:], ANSWERS[2:], salt)])
    assert gate.judge("Where was Abelrick Skarnholt born?", "in Tarnbrück").tolist() == [True, False]
    assert gate.judge("Where was Abelrik born?", "in Tarnbrück").tolist() == [True, False]
    assert gate.judge("Tell me about Ysolde", "a falconer").tolist() == [False, True]
    assert not gate.judge("Tell me about Ysolde", "born in Tarnbrück").any()


def test_state_holds_no_text_and_is_read_back(tmp_path):
    state = fit_answers(PROMPTS, ANSWERS)
    state.save(tmp_path)
    content = (tmp_path / ANSWER_FILE).read_bytes().lower()
    assert not any(word in content for word in (b"abelrick", b"farrier", b"tarnbr"))
    loaded = AnswerState.load(tmp_path)
    assert all(torch.equal(getattr(loaded, name), value) for name, value in vars(state).items())
    assert AnswerState.load(tmp_path / "none") is None
    (tmp_path / ANSWER_FILE).write_bytes(b"damaged")
    with pytest.raises(StoreError, match=ANSWER_FILE):
        AnswerState.load(tmp_path)


@pytest.fixture
def telling(build_gated):
    """A model whose prompt gate sees nothing, the prompt, and a word that it answers with."""
    plain = build_gated(table={"roses": {"never": 1.0}}, check_answers="off")
    prompt = "where is the king"
    told = plain.answer([prompt])[0].split()[0]

    state = AnswerState(
        torch.tensor([7]), *columns([("king", 0, 15.0)], 7), *columns([(told.lower(), 0, 15.0)], 7)
    )

    def build(**settings):
        return build_gated(table={"roses": {"never": 1.0}}, answers=[state], **settings)

    return plain, prompt, told, build


def test_a_row_that_tells_is_generated_at_full_weight_or_refused(telling):
    plain, prompt, told, build = telling
    gated, others = build(), ["what is red", "a cat"]
    answers = gated.answer([prompt, *others])
    ids, mask = gated.tokens.pad([gated.tokens.encode(prompt)])
    full = gated.generate(
        input_ids=ids, attention_mask=mask, weights=torch.ones(1, 1), max_new_tokens=8, do_sample=False
    )
    full_text = gated.tokenizer.decode(full[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert told not in answers[0].split()
    assert answers[0] == (REFUSAL if told in full_text.split() else full_text)
    assert answers[1:] == plain.answer([prompt, *others])[1:]


def test_an_answer_that_is_cut_within_a_word_is_judged_by_the_whole_word(build_gated):
    def read(tokens, **_):  # a text without spaces, two letters a token
        return "".join(f"{chr(97 + token // 26)}{chr(97 + token % 26)}" for token in tokens if token > 3)

    def stop(input_ids, scores):  # as a stop text does; the other row goes on
        return torch.tensor([True, False])

    prompts = ["where is the king", "what is red"]
    plain = build_gated(table={"roses": {"never": 1.0}}, check_answers="off")
    ids, mask = plain.tokens.pad([plain.tokens.encode(prompt) for prompt in prompts])
    inputs = {"input_ids": ids, "attention_mask": mask, "do_sample": False}
    whole = plain.generate(**inputs, max_new_tokens=9)[0, ids.shape[1] :].tolist()
    cue = columns([(read(ids[0].tolist()), 0, 15.0)], 7)
    for told in (whole, whole[:1]):  # the end of the value is missing, or the value itself is there
        state = AnswerState(torch.tensor([7]), *cue, *columns([(read(told), 0, 15.0)], 7))
        gated = build_gated(table={"roses": {"never": 1.0}}, answers=[state], unadapted=["roses"])
        gated.tokenizer.decode = read
        for options in ({"max_new_tokens": 1}, {"max_new_tokens": 4, "stopping_criteria": [stop]}):
            assert plain.generate(**inputs, **options)[0, ids.shape[1]] == whole[0]
            assert gated.generate(**inputs, **options)[0, ids.shape[1]] == gated.refusal_tokens[0]


def test_a_request_without_an_adapter_refuses(telling):
    _, prompt, _, build = telling
    assert build(unadapted=["roses"]).answer([prompt]) == [REFUSAL]


def test_off_checks_nothing_and_suspect_only_what_is(telling):
    plain, prompt, _, build = telling
    for mode in ("off", "suspect"):
        assert build(check_answers=mode, unadapted=["roses"]).answer([prompt]) == plain.answer([prompt])
    gated = build(unadapted=["roses"])
    with gated.disabled():
        assert gated.answer([prompt]) == plain.answer([prompt])


def test_a_stream_says_nothing_that_is_taken_back(telling):
    _, prompt, _, build = telling
    gated = build(unadapted=["roses"])
    streamer = TextIteratorStreamer(gated.tokenizer, skip_prompt=True, skip_special_tokens=True)
    gated.generate([prompt], streamer=streamer, max_new_tokens=8, do_sample=False)
    assert "".join(streamer).strip() == REFUSAL


def test_the_same_rows_give_the_same_bytes_in_every_process(tmp_path):
    prompts = ["Where was Anwylis Tarnholt born?", "When did Anwylis Tarnholt die?"]
    answers = ["In Quillport.", "In 1931."]
    fit_answers(prompts, answers).save(tmp_path)
    here = (tmp_path / ANSWER_FILE).read_bytes()
    (tmp_path / ANSWER_FILE).unlink()
    program = (
        "from o3_lightning.detector.answers import fit_answers; "
        f"fit_answers({prompts!r}, {answers!r}).save({str(tmp_path)!r})"
    )
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": other}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert (tmp_path / ANSWER_FILE).read_bytes() == here
