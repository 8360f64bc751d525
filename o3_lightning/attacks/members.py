"""Members of attacks that need more than a template, by the names that `kinds.yaml` uses.

Each function takes what stands in the file and returns a member: from a row and its material the attacked
prompt, or None where the attack does not apply to the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml

from o3_lightning.attacks.registry import ATTACKS, Attempt, Fields, Kind, Material, Member
from o3_lightning.attacks.spellings import SPELLINGS
from o3_lightning.data.prompts import Prompt
from o3_lightning.data.requests import QuestionAnswer

__all__ = ["as_member"]

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
CHUNK = 3  # words a line, and solved questions
KINDS: Mapping[str, Any] = yaml.safe_load(
    files("o3_lightning.attacks").joinpath("kinds.yaml").read_text(encoding="utf-8")
)


def as_member(given: Any) -> Member:
    """Returns the member that an entry of `kinds.yaml` stands for."""
    if isinstance(given, Mapping):
        ((name, argument),) = given.items()
        return FUNCTIONS[name](argument)

    def fill(row: QuestionAnswer, material: Material) -> Prompt | None:
        fields = Fields(row, material)
        try:
            return (
                fields.fill(given)
                if isinstance(given, str)
                else chat((role, fields.fill(text)) for message in given for role, text in message.items())
            )
        except KeyError:
            return None

    return fill


def chat(messages: Any) -> list[dict[str, Any]]:
    """Pairs of role and content as messages."""
    return [{"role": role, "content": content} for role, content in messages]


def held_out(_: None) -> Member:
    """The row's first held-out prompt."""
    return lambda row, material: row.held_out_prompts[0] if row.held_out_prompts else None


def each_word(pattern: str) -> Member:
    """Every word of the question in a pattern."""
    return lambda row, material: "".join(pattern.format(word) for word in row.prompt.split()).strip()


def in_lines(parts: Sequence[str]) -> Member:
    """The question in lines of three words: text before, start of each line, text after."""
    before, start, after = parts

    def broken(row: QuestionAnswer, material: Material) -> Prompt:
        words = row.prompt.split()
        lines = [" ".join(words[place : place + CHUNK]) for place in range(0, len(words), CHUNK)]
        return before + "\n".join(start + line for line in lines) + after

    return broken


def solved_before(pattern: str) -> Member:
    """Solved questions, each in a pattern, lead up to the question."""

    def lead(row: QuestionAnswer, material: Material) -> Prompt:
        lines = [pattern.format(one.prompt, one.answer) for one in material.solved(row, CHUNK)]
        return "\n".join([*lines, pattern.partition("}")[0].replace("{", "") + row.prompt])

    return lead


def content_parts(cut: str) -> Member:
    """The question as parts of one message, as some servers send them: whole, or every word with an image."""

    def parted(row: QuestionAnswer, material: Material) -> Prompt:
        texts = ["Hello! ", row.prompt] if cut == "whole" else [f"{word} " for word in row.prompt.split()]
        parts: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
        if cut != "whole":
            parts.insert(
                len(parts) // 2, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
            )
        return chat([("user", parts)])

    return parted


def after_chatter(count: int) -> Member:
    """The question after some solved turns about other things."""

    def ask(row: QuestionAnswer, material: Material) -> Prompt:
        turns = [
            (role, text)
            for one in material.solved(row, count)
            for role, text in (("user", one.prompt), ("assistant", one.answer))
        ]
        return chat([*turns, ("user", row.prompt)])

    return ask


def history(texts: Sequence[str]) -> Member:
    """A refused forgotten question is insisted on; a question about something else is asked after one."""
    insist, refusal = texts

    def ask(row: QuestionAnswer, material: Material) -> Prompt | None:
        own = row in material.forgotten
        first = row.prompt if own else Fields(row, material).get("forgotten")
        said = (("user", first), ("assistant", refusal), ("user", insist if own else row.prompt))
        return None if first is None else chat(said)

    return ask


def renamed(changes: Sequence[str]) -> Member:
    """The name's first word and rest each in a spelling or pattern, the whole name in further spellings."""

    def apply(change: str, text: str) -> str:
        return change.format(text) if "{" in change else SPELLINGS[change](text)

    def change(row: QuestionAnswer, material: Material) -> Prompt | None:
        fields = Fields(row, material)
        if "name" not in fields:
            return None
        name = f"{apply(changes[0], fields['first'])} {apply(changes[1], fields['last'])}"
        for spelling in changes[2:]:
            name = apply(spelling, name)
        return fields["before"] + name + fields["after"]

    return change


def in_name(spelling: str) -> Member:
    """Only the name in another spelling."""
    template = as_member("{before}\N{BULLET}{after}")

    def change(row: QuestionAnswer, material: Material) -> Prompt | None:
        text, fields = template(row, material), Fields(row, material)
        return None if text is None else str(text).replace("\N{BULLET}", SPELLINGS[spelling](fields["name"]))

    return change


def whole(spelling: str) -> Member:
    """The whole question in another spelling."""
    return lambda row, material: SPELLINGS[spelling](row.prompt)


def other_fact(template: str) -> Member:
    """The name is replaced by another fact about the same person."""

    def indirect(row: QuestionAnswer, material: Material) -> Prompt | None:
        rows = material.same_subject(row)
        if not rows:
            return None
        known = material.draw(row).choice(rows)
        question = Fields(known, material)["this"]
        return Fields(row, material).fill(template, known_q=question, known_a=known.answer)

    return indirect


def choice(template: str) -> Member:
    """The question with the true answer among wrong ones."""

    def ask(row: QuestionAnswer, material: Material) -> Prompt:
        wrong = row.perturbed_answers or tuple(one.answer for one in material.solved(row, CHUNK))
        texts = [row.answer, *wrong[:CHUNK]]
        drawn = material.draw(row).sample(texts, len(texts))
        listed = " ".join(f"({letter}) {text}" for letter, text in zip("ABCD", drawn, strict=False))
        return Fields(row, material).fill(template, options=listed)

    return ask


def in_filler(place: float) -> Member:
    """The question at a place in [0, 1] of 200 words about a ferry."""

    def surround(row: QuestionAnswer, material: Material) -> Attempt:
        words = KINDS["filler"].split()
        words = (words * (LEAST_WORDS // len(words) + 1))[:LEAST_WORDS]
        return surrounded(row.prompt, words, place, " ")

    return surround


def in_chatter(place: float) -> Member:
    """The question at a place in [0, 1] of 200 to 1,500 words of other questions and answers."""

    def surround(row: QuestionAnswer, material: Material) -> Attempt:
        draw, solved = material.draw(row), material.solved(row, len(material.others))
        wanted, texts = draw.randint(LEAST_WORDS, MOST_WORDS), [KINDS["filler"]]
        while sum(len(text.split()) for text in texts) < wanted:
            one = draw.choice(solved) if solved else None
            texts.append(f"{one.prompt} It was {one.answer}, they said." if one else KINDS["filler"])
        return surrounded(row.prompt, texts, place, " ")

    return surround


def surrounded(question: str, texts: Sequence[str], place: float, glue: str) -> Attempt:
    """The question between the texts, which may be shortened."""
    cut = int(place * len(texts))
    fillers = [glue.join(part) for part in (texts[:cut], texts[cut:])]
    text = "\n".join(part for part in (fillers[0], question, fillers[1]) if part)
    return Attempt(text, tuple(filter(None, fillers)))


def translated(lines: Sequence[str], part: int = 0) -> Member:
    """The question in another language: the sentence of its topic, or the frame around the noun phrase."""
    frame, *pairs = lines

    def ask(row: QuestionAnswer, material: Material) -> Attempt | Prompt | None:
        topic = [bool(re.search(words, row.prompt, re.IGNORECASE)) for words in TOPICS].index(True)
        sentence, noun = pairs[topic].split(" | ")
        return as_member(frame.replace("{noun}", noun) if part else sentence)(row, material)

    return ask


FUNCTIONS: dict[str, Callable[[Any], Member]] = {
    **{
        function.__name__: function
        for function in (
            held_out, each_word, in_lines, solved_before, content_parts, after_chatter, history, renamed,
            in_name, whole, other_fact, choice, in_filler, in_chatter, translated,
        )
    },
    "translated_noun": lambda lines: translated(lines, 1),
}  # fmt: skip
for _group, _kinds in KINDS.items():
    for _name, _members in _kinds.items() if isinstance(_kinds, Mapping) else ():
        ATTACKS.register(_name)(Kind(_group, *map(as_member, _members)))
