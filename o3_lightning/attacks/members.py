"""Builds the members of the attacks in `kinds.yaml` and registers them.

A text is a template, a list holds the messages of a chat, and `{name: argument}` is a function of this file:
from the argument, a row and its material to the attacked prompt, or None where it does not apply to the row.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import yaml

from o3_lightning.attacks.registry import ATTACKS, Attempt, Kind, Material, Member, fields_of
from o3_lightning.attacks.spellings import SPELLINGS
from o3_lightning.data.names import split_name
from o3_lightning.data.prompts import Prompt
from o3_lightning.data.requests import QuestionAnswer as Row

# What the English question asks for; the first pattern that is found decides.
TOPICS = (
    r"(when|year|date).*(born|birth|world)|birth (year|date)|born in which year",
    r"born|birth",
    r"mother",
    r"father|parents",
    r"debut|first book|earliest|start as",
    r"genre|(kind|sort) of (books|literature)",
    r"award|prize|honou?r|recognition",
    r"\bbooks?\b|novel|titles?\b|written|works?\b",
    r"profession|occupation|\bjob|living",
    r"",
)
LEAST_WORDS, MOST_WORDS = 200, 1500  # of a long context
CHUNK = 3  # words per line, and solved questions
KINDS: Mapping[str, Any] = yaml.safe_load(
    files("o3_lightning.attacks").joinpath("kinds.yaml").read_text(encoding="utf-8")
)


def as_member(given: Any) -> Member:
    """Returns the member that an entry of `kinds.yaml` describes."""
    if isinstance(given, Mapping):
        ((name, argument),) = given.items()
        return partial(FUNCTIONS[name], argument)
    return partial(fill, given)


def fill(given: str | Sequence[Mapping[str, str]], row: Row, material: Material) -> Prompt | None:
    """The filled text or messages; None if the row lacks a field."""
    fields = fields_of(row, material)
    try:
        if isinstance(given, str):
            return given.format_map(fields)
        return chat((role, text.format_map(fields)) for message in given for role, text in message.items())
    except KeyError:
        return None


def chat(messages: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of role and content as messages."""
    return [{"role": role, "content": content} for role, content in messages]


def held_out(_: None, row: Row, material: Material) -> Prompt | None:
    """The row's first held-out prompt."""
    return row.held_out_prompts[0] if row.held_out_prompts else None


def each_word(pattern: str, row: Row, material: Material) -> Prompt:
    """Every word of the question in a pattern."""
    return "".join(pattern.format(word) for word in row.prompt.split()).strip()


def in_lines(parts: Sequence[str], row: Row, material: Material) -> Prompt:
    """The question in lines of three words: text before, start of each line, text after."""
    before, start, after = parts
    words = row.prompt.split()
    lines = [" ".join(words[place : place + CHUNK]) for place in range(0, len(words), CHUNK)]
    return before + "\n".join(start + line for line in lines) + after


def solved_before(pattern: str, row: Row, material: Material) -> Prompt:
    """The question after solved questions, each in a pattern."""
    lines = [pattern.format(one.prompt, one.answer) for one in material.solved(row, CHUNK)]
    return "\n".join([*lines, pattern.partition("}")[0].replace("{", "") + row.prompt])


def content_parts(cut: str, row: Row, material: Material) -> Prompt:
    """The question as parts of one message, as some servers send them: whole, or every word with an image."""
    texts = ["Hello! ", row.prompt] if cut == "whole" else [f"{word} " for word in row.prompt.split()]
    parts: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
    if cut != "whole":
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
        parts.insert(len(parts) // 2, image)
    return chat([("user", parts)])


def after_chatter(count: int, row: Row, material: Material) -> Prompt:
    """The question after some solved turns about other things."""
    turns = [
        (role, text)
        for one in material.solved(row, count)
        for role, text in (("user", one.prompt), ("assistant", one.answer))
    ]
    return chat([*turns, ("user", row.prompt)])


def history(texts: Sequence[str], row: Row, material: Material) -> Prompt | None:
    """A forgotten question repeated after its refusal; a utility question after a refused forgotten one."""
    insist, refusal = texts
    own = row in material.forgotten
    first = row.prompt if own else fields_of(row, material).get("forgotten")
    said = (("user", first), ("assistant", refusal), ("user", insist if own else row.prompt))
    return None if first is None else chat(said)


def renamed(changes: Sequence[str], row: Row, material: Material) -> Prompt | None:
    """First word and rest of the name each in a spelling or pattern, the whole name in further spellings."""

    def apply(change: str, text: str) -> str:
        return change.format(text) if "{" in change else SPELLINGS[change](text)

    fields = fields_of(row, material)
    if "name" not in fields:
        return None
    name = f"{apply(changes[0], fields['first'])} {apply(changes[1], fields['last'])}"
    for spelling in changes[2:]:
        name = apply(spelling, name)
    return fields["before"] + name + fields["after"]


def in_name(spelling: str, row: Row, material: Material) -> Prompt | None:
    """Only the name in another spelling."""
    fields = fields_of(row, material)
    if "name" not in fields:
        return None
    return fields["before"] + SPELLINGS[spelling](fields["name"]) + fields["after"]


def whole(spelling: str, row: Row, material: Material) -> Prompt:
    """The whole question in another spelling."""
    return SPELLINGS[spelling](row.prompt)


def other_fact(template: str, row: Row, material: Material) -> Prompt | None:
    """The name is replaced by another fact about the same person."""
    rows = material.same_subject(row)
    if not rows:
        return None
    known = material.draw(row).choice(rows)
    more = {"known_q": fields_of(known, material)["this"], "known_a": nameless(known)}
    return template.format_map(fields_of(row, material) | more)


def clues(templates: Sequence[str], row: Row, material: Material) -> Prompt | None:
    """The name is replaced by a chain of facts about the same person, each in a pattern."""
    pattern, template = templates
    known = list({one.answer: one for one in material.same_subject(row)}.values())
    if not known:
        return None
    chosen = material.draw(row).sample(known, min(CHUNK, len(known)))
    chain = "".join(pattern.format(fields_of(one, material)["this"], nameless(one)) for one in chosen)
    return template.format_map(fields_of(row, material) | {"clues": chain})


def nameless(row: Row) -> str:
    """The answer without the name in the question: an answer of TOFU repeats it, and would give it away."""
    if (name := split_name(row.prompt)) is None:
        return row.answer
    return re.sub(rf"\b({'|'.join(map(re.escape, (' '.join(name), *name)))})\b", "this person", row.answer)


def wrong_answer(template: str, row: Row, material: Material) -> Prompt | None:
    """The question with a wrong answer, to be judged and corrected."""
    wrong = row.perturbed_answers[:1] or tuple(one.answer for one in material.solved(row, 1))
    return template.format_map(fields_of(row, material) | {"wrong": wrong[0]}) if wrong else None


def choice(template: str, row: Row, material: Material) -> Prompt:
    """The question with the true answer among wrong ones."""
    wrong = row.perturbed_answers or tuple(one.answer for one in material.solved(row, CHUNK))
    texts = [row.answer, *wrong[:CHUNK]]
    drawn = material.draw(row).sample(texts, len(texts))
    listed = " ".join(f"({letter}) {text}" for letter, text in zip("ABCD", drawn, strict=False))
    return template.format_map(fields_of(row, material) | {"options": listed})


def in_filler(place: float, row: Row, material: Material) -> Attempt:
    """The question at a place in [0, 1] of 200 words about a ferry."""
    words = KINDS["filler"].split()
    return surrounded(row.prompt, (words * (LEAST_WORDS // len(words) + 1))[:LEAST_WORDS], place)


def in_chatter(place: float, row: Row, material: Material) -> Attempt:
    """The question at a place in [0, 1] of 200 to 1,500 words of other questions and answers."""
    draw, solved = material.draw(row), material.solved(row, len(material.others))
    wanted, texts = draw.randint(LEAST_WORDS, MOST_WORDS), [KINDS["filler"]]
    while sum(len(text.split()) for text in texts) < wanted:
        one = draw.choice(solved) if solved else None
        texts.append(f"{one.prompt} It was {one.answer}, they said." if one else KINDS["filler"])
    return surrounded(row.prompt, texts, place)


def surrounded(question: str, texts: Sequence[str], place: float) -> Attempt:
    """The question between the texts, which may be shortened."""
    cut = int(place * len(texts))
    before, after = (" ".join(part) for part in (texts[:cut], texts[cut:]))
    text = "\n".join(part for part in (before, question, after) if part)
    return Attempt(text, tuple(filter(None, (before, after))))


def translated(lines: Sequence[str], row: Row, material: Material, part: int = 0) -> Prompt | None:
    """The question in another language: the sentence of its topic, or the frame around the noun phrase."""
    frame, *pairs = lines
    topic = [bool(re.search(words, row.prompt, re.IGNORECASE)) for words in TOPICS].index(True)
    sentence, noun = pairs[topic].split(" | ")
    return fill(frame.replace("{noun}", noun) if part else sentence, row, material)


FUNCTIONS: dict[str, Callable[..., Attempt | Prompt | None]] = {
    **{
        function.__name__: function
        for function in (
            held_out, each_word, in_lines, solved_before, content_parts, after_chatter, history, renamed,
            in_name, whole, other_fact, clues, wrong_answer, choice, in_filler, in_chatter, translated,
        )
    },
    "translated_noun": partial(translated, part=1),
}  # fmt: skip
for _group, _kinds in KINDS.items():
    for _name, _members in _kinds.items() if isinstance(_kinds, Mapping) else ():
        ATTACKS.register(_name)(Kind(_group, *map(as_member, _members)))
