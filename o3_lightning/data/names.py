"""Finds the name of a person in a question."""

import re

OPENERS = re.compile(  # capitalised words that begin a question and no name
    "A|An|Are|Can|Could|Describe|Did|Do|Does|For|From|Has|Have|How|In|Is|List|Name|On|Tell|The|To|Was|Were|What|"
    "When|Where|Which|Who|Whose|Why|With|Would"
)
PARTICLES = "(?:(?:al|bin|da|de|del|der|di|du|el|la|le|van|von) )"
NAME = re.compile(rf"[^\W\d_a-z][\w’'-]+(?: {PARTICLES}{{0,2}}[^\W\d_a-z][\w’'-]+)+")


def split_name(question: str) -> tuple[str, str] | None:
    """Returns the first word and the rest of the first name of several words in a question, or None.

    Example:
        >>> split_name("Where was Ada King Lovelace's mother born?"), split_name("What is rain?")
        (('Ada', 'King Lovelace'), None)
    """
    for found in NAME.finditer(question):
        words = found.group().removesuffix("'s").removesuffix("’s").split()
        while words and OPENERS.fullmatch(words[0]):
            words = words[1:]
        if len(words) > 1:
            return words[0], " ".join(words[1:])
    return None
