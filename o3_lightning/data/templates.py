"""Writes prompts in a model's template, and reads the turns of a chat back from a templated text."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from o3_lightning.common.checks import check_among
from o3_lightning.common.errors import InputError
from o3_lightning.data.chat_format import ChatFormat
from o3_lightning.data.prompts import Turn

MARKS = ("\u2460one\u2460", "\u2461two\u2461", "\u2462three\u2462")
logger = logging.getLogger(__name__)


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
        end: text that ends the assistant's turn; empty for the tokenizer's end token.
        chat: renders chats; None where the tokenizer has no chat template.
    """

    name: str
    before: str
    after: str
    answer_before: str = " "
    opening: str = ""
    closing: str = ""
    adds_special_tokens: bool = True
    special_tokens: tuple[str, ...] = ()
    end: str = ""
    chat: ChatFormat | None = field(default=None, repr=False, compare=False)

    def format(self, prompt: str) -> str:
        r"""Returns the text the model sees for a prompt, up to where its answer begins.

        Example:
            >>> TEMPLATES["question_answer"].format("Who wrote it?")
            'Question: Who wrote it?\nAnswer:'
        """
        if self.chat is not None and self.name == "chat":
            return self.chat.render([{"role": "user", "content": prompt}])
        return f"{self.before}{prompt}{self.after}"

    @property
    def ends_in_token(self) -> bool:
        """Whether `end` closes with a token of its own, at which generation can stop."""
        return self.chat is not None and any(
            token and self.end.endswith(token) for token in self.chat.added_tokens
        )

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


def template_for(tokenizer: Any, name: str = "auto", chat: ChatFormat | None = None) -> PromptTemplate:
    """Returns a template made for a tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer.
        name: "auto" takes "chat" where the tokenizer has a chat template and "question_answer" elsewhere;
            "llama2" is TOFU's form for Llama-2, "alpaca" O3's for ScienceQA.
        chat: how the tokenizer's chat template is rendered; None renders it without options.

    Raises:
        InputError: an unknown name, "chat" for a tokenizer without a usable chat template, or a system prompt
            without one.
    """
    chat = chat or ChatFormat(tokenizer)
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if name == "auto":
        name = "chat" if has_chat else "question_answer"
    special = tuple(dict.fromkeys(str(token) for token in getattr(tokenizer, "all_special_tokens", ())))
    if name == "chat":
        if not has_chat:
            raise InputError("the tokenizer has no chat template", field="base.template")
        return chat_template(chat, special)
    check_among(name, ("auto", "chat", *TEMPLATES), "base.template")
    if chat.system_prompt:
        raise InputError(f"needs a chat template, got the template {name!r}", field="base.system_prompt")
    return replace(TEMPLATES[name], special_tokens=special, chat=chat if has_chat else None)


def chat_template(chat: ChatFormat, special: tuple[str, ...]) -> PromptTemplate:
    """Derives the parts of a chat template from three rendered dialogues.

    Raises:
        InputError: the template rejects a plain dialogue, or changes its texts.
    """
    first, reply, second = MARKS
    asked = {"role": "user", "content": first}
    answered = [asked, {"role": "assistant", "content": reply}]
    one, whole = chat.render([asked]), chat.render(answered, open_answer=False)
    two = chat.render([*answered, {"role": "user", "content": second}])
    before, _, after = one.partition(first)
    opened, _, rest = two.partition(first)
    closing_first, _, rest = rest.partition(reply)
    middle, _, closing_second = rest.partition(second)
    head, _, closing_answer = whole.partition(reply)
    counts = (one.count(first), two.count(first), two.count(reply), two.count(second), whole.count(reply))
    if set(counts) != {1}:
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
        answer_before=answer_opening(head, one),
        opening=opening.lstrip(),
        closing=closing.rstrip(),
        adds_special_tokens=False,
        special_tokens=special,
        end=end_of_turn(closing_answer, chat.added_tokens),
        chat=chat,
    )


def answer_opening(head: str, prompt: str) -> str:
    """Returns the white space between a prompt and the assistant's words; a thought is left to the model.

    Args:
        head: rendered text of a finished dialogue, up to the answer.
        prompt: rendered text of its prompt.
    """
    between = head.removeprefix(prompt) if head.startswith(prompt) else ""
    if between.strip():
        logger.warning(
            "the chat template opens an answer with %r, which prompts leave to the model; "
            "base.chat_template_kwargs may turn it off, e.g. {enable_thinking: false}",
            between,
        )
        return ""
    return between


def end_of_turn(closing: str, added_tokens: Collection[str]) -> str:
    r"""Returns what ends the assistant's turn: the text up to the first added token, or all but white space.

    Args:
        closing: rendered text after the assistant's words.
        added_tokens: texts that are one token each.

    Example:
        >>> end_of_turn("<|end|>\\n<|endoftext|>", ["<|endoftext|>", "<|end|>"])
        '<|end|>'
    """
    found = [(closing.index(token), token) for token in added_tokens if token and token in closing]
    if not found:
        return closing.rstrip()
    place, token = min(found, key=lambda each: (each[0], -len(each[1])))
    return closing[:place] + token


def common_start(first: str, *others: str) -> str:
    """Returns the longest text with which all of several texts start."""
    length = 0
    while length < len(first) and all(other[length : length + 1] == first[length] for other in others):
        length += 1
    return first[:length]
