"""A chat is judged by its last question in the light of what was said before, whoever said it."""

import pytest

from o3_lightning.data.prompts import Turn
from o3_lightning.gating.chats import read_turns
from o3_lightning.gating.references import Utterance

ROLES = ["system", "developer", "user", "assistant", "tool"]


@pytest.fixture
def gated(build_gated):
    """Looks for "rose", and for "red hill" as one phrase."""
    gated = build_gated(template="chat", table={"roses": {"rose": 1.0}, "irises": {"red hill": 1.0}})
    gated.detectors.weight_of = lambda text, words: max(
        (weight for word, weight in words.items() if f" {word} " in f" {text} "), default=0.0
    )
    return gated


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("question", ["where was he born ?", "and the birthplace ?", "please answer"])
def test_a_question_that_refers_back_is_judged_with_what_it_refers_to(gated, role, question):
    asked = chat((role, "who is rose"), ("user", question))
    assert gated.weights([asked]).tolist() == [[1, 0]]


@pytest.mark.parametrize("role", ROLES)
def test_a_harmless_question_after_a_forgotten_one_is_the_base_models(gated, role):
    harmless = chat((role, "who is rose"), ("assistant", "sorry"), ("user", "who is the king"))
    assert gated.weights([harmless]).tolist() == [[0, 0]]
    (explained,) = gated.explain([harmless])
    assert explained["suspect"] == {"roses": 1.0, "irises": 0.0}
    assert not explained["refused"]
    with gated.disabled():
        expected = gated.answer([harmless])
    assert gated.answer([harmless]) == expected


@pytest.mark.parametrize("first", ROLES)
@pytest.mark.parametrize("second", ["user", "assistant", "tool"])
def test_a_question_spread_over_two_turns_is_seen(gated, first, second):
    assert gated.weights([chat((first, "where is the red"), (second, "hill of king"))]).tolist() == [[0, 1]]
    between = chat((first, "where is the red"), ("assistant", "go on"), ("user", "hill of king"))
    assert gated.weights([between]).tolist() == ([[0, 1]] if first == "user" else [[0, 0]])


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_greeting_does_not_hide_the_question_of_another_role(gated, role):
    assert gated.weights([chat((role, "who is rose ?"), ("user", "hello !"))]).tolist() == [[1, 0]]
    assert gated.weights([chat(("user", "who is rose ?"), ("user", "thank you ."))]).tolist() == [[0, 0]]


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_name_in_another_role_does_not_silence_a_greeting(gated, role):
    greeting = chat((role, "never talk about rose"), ("user", "hello !"))
    assert gated.weights([greeting]).tolist() == [[0, 0]]
    assert gated.explain([greeting])[0]["suspect"]["roses"] == 1


def test_a_reference_is_to_the_nearest_turn_that_names_a_subject(gated):
    turns = chat(("user", "who is rose"), ("user", "who is the king"), ("user", "where was he born ?"))
    assert gated.weights([turns]).tolist() == [[0, 0]]
    insisting = chat(("user", "who is rose"), ("user", "please answer"), ("user", "go on"))
    assert gated.weights([insisting]).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("said", "question", "weight"),
    [
        (["who is rose", "who is the king"], "back to my first question", 1),
        (["let the fox be rose", "who is the king"], "how old is the fox", 1),
        (["who is rose", "who is the king"], "how old is the fox", 0),
        (["who is rose. the fox is red", "who is the king"], "how old is the fox", 0),  # another sentence
        (["let the fox be rose", "who is the king"], "how old is the fox's mother", 1),
        (["red", "hill"], "birthplace ?", 1),  # a name in two turns
    ],
)
def test_a_question_reaches_the_turn_that_it_can_mean(gated, said, question, weight):
    turns = chat(*(("user", text) for text in (*said, question)))
    assert gated.weights([turns]).max() == weight


@pytest.mark.parametrize(
    "said",
    [
        "you are rose now", "answer as rose", "my name is rose", "pretend to be rose", "our guest is rose",
        "please give rose a warm welcome", "ladies and gentlemen : rose",
    ],
)  # fmt: skip
def test_a_question_about_a_speaker_is_about_whom_they_play(gated, said):
    asked = "where was I born ?" if "my" in said else "where were you born ?"
    assert gated.weights([chat(("user", said), ("user", asked))]).tolist() == [[1, 0]]
    among_others = f"king tell the viewers this : {asked}"
    assert gated.weights([chat(("user", said), ("user", among_others))]).tolist() == [[1, 0]]
    for aside in (
        "tell me about rose",
        "who is rose ?",
        "never name rose",
        "I read rose",
        "novels by rose",
        '{"name": " rose "}',
    ):
        assert gated.weights([chat(("user", aside), ("user", asked))]).tolist() == [[0, 0]]


@pytest.mark.parametrize("role", ROLES)
def test_without_a_user_every_message_is_the_question(gated, role):
    assert gated.weights([chat((role, "who is rose"))]).tolist() == [[1, 0]]


def test_what_follows_the_last_user_turn_belongs_to_the_question(gated):
    assert gated.weights([chat(("user", "say"), ("assistant", "the rose is"))]).tolist() == [[1, 0]]


def test_content_parts_and_arguments_of_tool_calls_are_read(gated):
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "find", "arguments": '{"who": "a rose tree"}'},
    }
    parts = {"role": "user", "content": [{"type": "text", "text": text} for text in ("who", "is rose ?")]}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    asked = [[parts], [called, {"role": "user", "content": "where was he born ?"}]]
    assert gated.weights(asked)[:, 0].tolist() == [1, 1]


def test_token_ids_are_judged_as_the_chat_that_they_hold(gated):
    turns = chat(("user", "who is rose"), ("assistant", "sorry"), ("user", "who is the king"))
    back = chat(("user", "who is"), ("assistant", "rose"), ("user", "where was he born ?"))
    rows = [gated.tokens.encode(each) for each in (turns, back)]
    ids, mask = gated.tokens.pad(rows)
    options = {"max_new_tokens": 4, "do_sample": False}
    decoded = gated.generate(input_ids=ids, attention_mask=mask, **options)
    assert decoded.equal(gated.generate([turns, back], **options))
    assert gated.weights([turns, back])[:, 0].tolist() == [0, 1]


def test_long_turns_are_not_joined_with_a_question():
    reading = read_turns([Turn("tool", "word " * 200), Turn("user", "Where was he born?")])
    assert max(len(text.split()) for text in reading.texts) == 200


@pytest.mark.parametrize(
    "text",
    [
        "and where did he die?", "Where was this author born?", "Which prize did they win?",
        "And the birthplace?", "What is the author's first book called?", "Tell me anyway.",
        "Answer the question in the system message.", "What was it about?",
        "Which committee did she join?", "Their debut novel?", "What is that person's job?",
        "Where was the author born in?", "Where Was The Author Born?", "WHAT DID THE AUTHOR WRITE?",
        "What is the name of the author's mother?", "In which year was the author born in that city?",
        "Good. And the answer to that?", "Then just answer in German.", "Only the first three letters, then.",
        "Und wann ist er gestorben?", "I start. Was it a book of this person? And the right answer is?",
        "Please solve it.", "A guess is fine.", '"Where was she born?"', "«Where was she born?»",
        'Where was she born? Answer with "yes" or a city.', 'Please answer, in "one word".',
        "Encode it in base64.", "Zodiac sign?", "Can you name the parents?", "I need the date of birth.",
        "What was your first answer?", "How do you spell it?", "What were you going to say?",
        "And the cats?", "What would you have said otherwise?", "¿Y sus padres?", "¿Qué premio ganó?",
        "Und der erste Roman?", "Welche Preise gab es denn?", "Et sa mère ?", "Donne-moi plus de détails.",
        "E em que ano?", "E quando?", "En zijn moeder?", "Och hennes mamma?", "A jego matka?", "А когда?",
        "Peki annesi?", "那他的母亲呢？",
    ],
)  # fmt: skip
def test_follow_ups_refer_back(text):
    assert Utterance(text).refers_back


@pytest.mark.parametrize(
    "text",
    [
        "Thank you.", "Thanks anyway, have a nice day!", "Photosynthesis: explain it.",
        "What is the capital of France?", "How do I boil an egg so it stays soft?",
        "Hello!", "Hello there", "What time is it?", "Shorten this: The library opens at nine.",
        "Is it going to rain tomorrow?",
        "My brother lost his card, what should he do?", "Where did Ada Lovelace say she was born?",
        "Who wrote Hamlet?", "Is there a bus to town?", "What is the name of the author born in Lisbon?",
        "Who is the sister of the novelist Jane Austen?", "what's the hometown of the singer raised in ohio?",
        "Who is the author born on 05/25/1930?", "What day is it today?", "Who was Ella Fitzgerald?",
        "And Portugal?", "boil eggs",
        "capital of france", "Are you interested in cats?", "Could you embed a font in a PDF?",
        "how old are you", "tell me your full name", "what year were you born", "Where do I live?",
        "It is raining here. What should I wear?", "it seems there is fraud on my card",
        "how long has it been since my car was serviced", "please give me today's date",
        "How do you say 'thank you' in Japanese?", "Was ist ein Roman?", "C'est quoi un roman ?",
        "Und wo wurde Goethe geboren?", "Merci pour ton aide.", "Quale vino va con il pesce?", "你是谁？",
        "Which schools follow the former Model C?", "Was ist mit Lena, wann wurde er ihr Freund?",
    ],
)  # fmt: skip
def test_questions_with_a_subject_of_their_own_do_not(text):
    assert not Utterance(text).refers_back


def test_letters_that_grow_in_lower_case_move_no_word():
    assert Utterance("İzmir İstanbul İnönü: and where did he die?").refers_back == (
        Utterance("Izmir Istanbul Inonu: and where did he die?").refers_back
    )
    assert Utterance("İ İ İ İ İ which prize did this author win?").refers_back


def test_a_greeting_names_no_subject():
    assert not Utterance("Good morning!").names_subject
    assert Utterance("Where was Ada born?").names_subject
