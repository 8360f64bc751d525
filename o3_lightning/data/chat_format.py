"""Renders chats with a tokenizer's chat template: fixed date, fixed options, optional system prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from o3_lightning.common.errors import InputError
from o3_lightning.data.prompts import plain_messages

DATE = "%d %b %Y"  # as Llama 3 writes it
DATES = (DATE, "%d %B %Y", "%Y-%m-%d")
CLOCK = "strftime_now"  # the function by which chat templates ask Transformers for the date
DIRECTIVES = ("a", "A", "b", "B", "d", "-d", "m", "-m", "y", "Y", "j", "H", "I", "M", "S", "p")
OTHER_DAY = datetime(1999, 12, 31)


@dataclass(frozen=True)
class ChatFormat:
    """How the chats of one base model are rendered.

    Args:
        tokenizer: its `chat_template` is rendered.
        options: variables of the template, such as {"enable_thinking": False}.
        system_prompt: opens every chat that has no system message of its own; empty for none.
        date: what the template takes for today; the day on which this object was made unless given.
    """

    tokenizer: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str = ""
    date: datetime = field(default_factory=lambda: datetime.combine(datetime.now(), time()))

    @cached_property
    def added_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer reads as one token each, special ones included."""
        return tuple(str(token) for token in getattr(self.tokenizer, "added_tokens_decoder", {}).values())

    @cached_property
    def writes_date(self) -> bool:
        """Whether the template writes today's date."""
        chat = [{"role": "user", "content": "?"}]
        return self.render(chat) != self.render(chat, date=OTHER_DAY)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, open_answer: bool = True, date: datetime | None = None
    ) -> str:
        """Returns the text of a chat.

        Args:
            messages: see `data.prompts.read_prompt`.
            open_answer: whether the text ends where the assistant speaks next.
            date: another day than `date`.

        Raises:
            InputError: the template rejects the messages; the message gives its reason.
        """
        said = plain_messages(messages)
        if self.system_prompt and said and said[0].get("role") not in ("system", "developer"):
            said = [{"role": "system", "content": self.system_prompt}, *said]
        options = {"tokenize": False, "add_generation_prompt": open_answer, **self.options}
        try:
            template = with_date(self.tokenizer.get_chat_template(), date or self.date)
            return str(self.tokenizer.apply_chat_template(said, chat_template=template, **options))
        except (TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            raise InputError(f"the chat template rejects it: {error}", field="prompts") from error


def with_date(template: str, date: datetime) -> str:
    """Returns a template whose clock stands at a date: a macro replaces that of Transformers."""
    if CLOCK not in template:
        return template
    written = "".join(f"|replace('%{each}', '{date.strftime('%' + each)}')" for each in DIRECTIVES)
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{written} }}}}{{% endmacro %}}{{{{ '' }}}}{template}"


def write_date(date: datetime) -> str:
    """Returns a day as `read_date` reads it.

    Example:
        >>> write_date(read_date("2024-07-26"))
        '26 Jul 2024'
    """
    return date.strftime(DATE)


def read_date(text: str) -> datetime:
    """Returns the day that a text names, such as "26 Jul 2024" or "2024-07-26".

    Raises:
        InputError: the text is no date.
    """
    for form in DATES:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise InputError(
        f"expected a date such as 26 Jul 2024 or 2024-07-26, got {text!r}", field="base.date_string"
    )
