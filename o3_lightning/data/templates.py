"""Writes prompts in a model's template, and reads the turns of a chat back from a templated text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.prompts import Turn

__all__ = ["TEMPLATES", "PromptTemplate", "template_for"]

MARKS = ("\u2460one\u2460", "\u2461two\u2461", "\u2462three\u2462")


@dataclass(frozen=True)
class PromptTemplate:
    """The text before and after a user's prompt, and what stands before the answer.

    Args:
        name: "question_answer", "chat", "plain", "llama2" or "alpaca".
        before: text before the prompt.
        after: text between the prompt and the answer.
        answer_before: text that opens the answer, usually one space; it belongs to the answer's tokens.
        opening: what opens a user turn anywhere in a text; empty where nothing does.
        closing: what closes it.
        adds_special_tokens: whether the tokenizer still has to add its start token; a chat template has
            written it already.
        special_tokens: texts of special tokens, removed when turns are read back.
    """

    name: str
    before: str
    after: str
    answer_before: str = " "
    opening: str = ""
    closing: str = ""
    adds_special_tokens: bool = True
    special_tokens: tuple[str, ...] = ()

    def format(self, prompt: str) -> str:
        r"""Returns the text the model sees for a prompt, up to where its answer begins.

        Example:
            >>> TEMPLATES["question_answer"].format("Who wrote it?")
            'Question: Who wrote it?\nAnswer:'
        """
        return f"{self.before}{prompt}{self.after}"

    def join(self, prompt: str, answer: str) -> tuple[str, str]:
        r"""Returns the text up to the answer and the answer's text; together they are the whole row.

        Example:
            >>> TEMPLATES["question_answer"].join("Who wrote it?", "Nobody")
            ('Question: Who wrote it?\nAnswer:', ' Nobody')
        """
        return self.format(prompt), f"{self.answer_before}{answer}"

    def turns(self, text: str) -> list[Turn]:
        r"""Returns who said what in a templated text; the user's turns are the inverse of `format`.

        Args:
            text: one prompt in this template, a dialogue of several turns, few-shot examples, or any
                other text. Special tokens around it are ignored.

        Returns:
            At least one turn; without a turn of the user the whole text is one. Text before the first turn
            of the user has the role "system", text after the closing marker of one "assistant", also where
            a user wrote that marker or another role spoke.

        Example:
            >>> TEMPLATES["question_answer"].turns("Question: A?\nAnswer: b\nQuestion: C?\nAnswer:")
            [Turn(role='user', text='A?'), Turn(role='assistant', text='b'), Turn(role='user', text='C?')]
        """
        if not self.opening:
            return [Turn("user", self.clean(text))]
        head, *parts = text.split(self.opening)
        turns = [] if head.strip() and self.before.endswith(head + self.opening) else [("system", head)]
        generation = self.after.removeprefix(self.closing).strip()
        for part in parts:
            said, _, reply = part.partition(self.closing)
            turns += [("user", said), ("assistant", "" if reply.strip() == generation else reply)]
        found = [Turn(role, cleaned) for role, each in turns if (cleaned := self.clean(each))]
        if any(turn.role == "user" for turn in found):
            return found
        return [Turn("user", self.clean(text))]

    def clean(self, text: str) -> str:
        """Returns a text without special tokens and outer white space."""
        for token in self.special_tokens:
            text = text.replace(token, "")
        return text.strip()


ALPACA_HEAD = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
TEMPLATES: dict[str, PromptTemplate] = {
    template.name: template
    for template in (
        PromptTemplate("question_answer", "Question: ", "\nAnswer:", " ", "Question: ", "\nAnswer:"),
        PromptTemplate("plain", "", "", " "),
        PromptTemplate("llama2", "[INST] ", " [/INST]", "", "[INST] ", " [/INST]"),
        PromptTemplate(
            "alpaca", ALPACA_HEAD, "\n\n### Response:\n", "", "### Instruction:\n", "\n\n### Response:"
        ),
    )
}


def template_for(tokenizer: Any, name: str = "auto") -> PromptTemplate:
    """Returns a template made for a tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer.
        name: "auto" takes "chat" where the tokenizer has a chat template and "question_answer" elsewhere;
            "llama2" is TOFU's form for Llama-2, "alpaca" O3's for ScienceQA.

    Raises:
        InputError: an unknown name, or "chat" for a tokenizer without a usable chat template.
    """
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if name == "auto":
        name = "chat" if has_chat else "question_answer"
    special = tuple(dict.fromkeys(str(token) for token in getattr(tokenizer, "all_special_tokens", ())))
    if name == "chat":
        if not has_chat:
            raise InputError("the tokenizer has no chat template", field="base.template")
        return chat_template(tokenizer, special)
    if name not in TEMPLATES:
        known = ", ".join(["auto", "chat", *TEMPLATES])
        raise InputError(f"expected one of {known}, got {name!r}", field="base.template")
    template = TEMPLATES[name]
    return PromptTemplate(**{**vars(template), "special_tokens": special})


def chat_template(tokenizer: Any, special: tuple[str, ...]) -> PromptTemplate:
    """Reads the pieces of a tokenizer's chat template off two rendered dialogues."""
    first, reply, second = MARKS
    one = render(tokenizer, [("user", first)])
    two = render(tokenizer, [("user", first), ("assistant", reply), ("user", second)])
    before, _, after = one.partition(first)
    opened, _, rest = two.partition(first)
    closing_first, _, rest = rest.partition(reply)
    middle, _, closing_second = rest.partition(second)
    if not (one.count(first) == two.count(first) == two.count(reply) == two.count(second) == 1):
        raise InputError("the chat template changes what the user said", field="base.template")
    opening = common_start(opened[::-1], middle[::-1])[::-1]
    closing = common_start(closing_first, closing_second, after)
    for token in special:  # the end of the turn before is no part of how this one opens
        if token and opening.startswith(token) and closing.startswith(token):
            opening = opening.removeprefix(token)
    return PromptTemplate(
        "chat",
        before,
        after,
        answer_before="",
        opening=opening.lstrip(),
        closing=closing.rstrip(),
        adds_special_tokens=False,
        special_tokens=special,
    )


def common_start(first: str, *others: str) -> str:
    """Returns the longest text with which all of several texts start."""
    length = 0
    while length < len(first) and all(other[length : length + 1] == first[length] for other in others):
        length += 1
    return first[:length]


def render(tokenizer: Any, turns: list[tuple[str, str]]) -> str:
    """Returns the text of a dialogue up to where the assistant speaks next."""
    messages = [{"role": role, "content": content} for role, content in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text)
