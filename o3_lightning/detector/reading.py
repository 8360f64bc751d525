"""A text in every form that the evidences judge, each computed once whoever asks for it."""

from functools import cached_property

from o3_lightning.detector.text.normalise import normalise_text, visible_text
from o3_lightning.detector.text.reading import clean_text, read_text
from o3_lightning.detector.text.respelling import respell_text
from o3_lightning.detector.text.spans import cut_spans

LONG_WORDS = 16
LONGEST_WHOLE = 8_000  # characters; an encoder reads less, and spans see the rest


class Reading:
    """One text as the evidences read it.

    Args:
        text: as it was given.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def forms(self) -> list[str]:
        """The text as given, without marks, decoded and respelt; case is kept."""
        return list(dict.fromkeys([*read_text(self.text, self.cleaned), *respell_text(self.text)]))

    @cached_property
    def wholes(self) -> dict[str, str]:
        """The forms by what an encoder reads of them, normalised."""
        cut = [form[:LONGEST_WHOLE] for form in self.forms]
        return {normalise_text(form): form for form in reversed(cut)}

    @cached_property
    def cleaned(self) -> str:
        """The text without marks; spans are cut from it."""
        return clean_text(visible_text(self.text))

    @property
    def is_long(self) -> bool:
        """Whether a low score of the whole does not exclude a close span."""
        return len(self.cleaned.split()) > LONG_WORDS

    @cached_property
    def spans(self) -> dict[str, str]:
        """The spans of the text by what an encoder reads of them; none of them is a whole form."""
        spans = {normalise_text(span): span for span in cut_spans(self.cleaned)}
        return {read: span for read, span in spans.items() if read and read not in self.wholes}
