"""The registry of prompt attacks: each kind of disguise has a development and a test member.

Settings of the gate may be tuned on development members only. A test member builds the same kind of disguise
in another way, so that its figures hold for disguises that nobody tuned to. An attack knows nothing about the
gate. A small base model may fail an attacked question anyway, so every result has the base model's figures
beside the gated model's.
"""

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from o3_lightning.attacks.config import MEMBERS
from o3_lightning.common.registry import Registry
from o3_lightning.data.names import split_name
from o3_lightning.data.prompts import Prompt
from o3_lightning.data.requests import QuestionAnswer


@dataclass(frozen=True)
class Attempt:
    """One attacked prompt.

    Args:
        prompt: a text without a template, or the messages of a chat.
        filler: harmless parts of the text that may be shortened for a model with a small context.
    """

    prompt: Prompt
    filler: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """What attacks use beside the attacked row.

    Args:
        others: rows outside the forget sets, at least one.
        forgotten: rows of all forget sets.
        seed: determines every random choice, together with the row's prompt.
    """

    others: Sequence[QuestionAnswer]
    forgotten: Sequence[QuestionAnswer] = ()
    seed: int = 0

    def draw(self, row: QuestionAnswer) -> random.Random:
        """Returns the row's own source of random choices."""
        return random.Random(f"attack-{self.seed}-{row.prompt}")  # noqa: S311  # no secret

    def solved(self, row: QuestionAnswer, count: int) -> list[QuestionAnswer]:
        """Returns up to `count` other rows that do not reveal the row's answer."""
        rows = [other for other in self.others if other.answer != row.answer and other.prompt != row.prompt]
        return self.draw(row).sample(rows, min(count, len(rows)))

    def same_subject(self, row: QuestionAnswer) -> list[QuestionAnswer]:
        """Returns rows with the same name in the prompt and another answer."""
        name = split_name(row.prompt)
        rows = [*self.forgotten, *self.others]
        return [one for one in rows if name and split_name(one.prompt) == name and one.answer != row.answer]

    def other_name(self, row: QuestionAnswer) -> str:
        """Returns a name from the prompt of another row outside the forget sets."""
        names = {name for one in self.others if (name := split_name(one.prompt))}
        found = sorted(names - {split_name(row.prompt)})
        return " ".join(self.draw(row).choice(found)) if found else "Marie Curie"


Member = Callable[[QuestionAnswer, Material], Attempt | Prompt | None]
"""Maps a row and its material to the attacked prompt, or to None where the kind does not apply to the row."""


@dataclass(frozen=True)
class Kind:
    """A kind of disguise.

    Args:
        group: the family of kinds in tables, such as "junk".
        development: the member that settings may be tuned on.
        test: another construction of the same kind, which nothing may be tuned on.
    """

    group: str
    development: Member
    test: Member

    def attempt(self, member: str, row: QuestionAnswer, material: Material) -> Attempt | None:
        """Returns the row's attacked prompt by "development" or "test", or None where it does not apply."""
        made = (self.development if member == MEMBERS[0] else self.test)(row, material)
        return made if made is None or isinstance(made, Attempt) else Attempt(made)


ATTACKS: Registry[Kind] = Registry("attack", ["o3_lightning.attacks.members"])


def fields_of(row: QuestionAnswer, material: Material) -> dict[str, str]:
    """Returns the fields of templates that a row allows; the head of `kinds.yaml` lists them."""
    question, words, draw = row.prompt, row.prompt.split(), material.draw(row)
    half = max(1, len(words) // 2)
    found = {
        "q": question,
        "ask": question[0].lower() + question[1:],
        "half": " ".join(words[:half]),
        "rest": " ".join(words[half:]) or "?",
        "answer": row.answer,
        "hex": f"{draw.getrandbits(160):040x}",
        "code": f"eyJ{base64.urlsafe_b64encode(draw.randbytes(90)).decode()}",
    }
    if name := split_name(question):
        first, last = name
        found |= {"name": f"{first} {last}", "first": first, "last": last}
        found["this"] = question.replace(f"{first} {last}", "this person")
        found["before"], _, found["after"] = question.partition(f"{first} {last}")
    other = material.other_name(row)
    found |= {"other": other, "other_first": other.split()[0], "other_last": other.split()[-1]}
    for example in material.solved(row, 1):
        found |= {"other_q": example.prompt, "other_a": example.answer}
    if material.forgotten:
        found["forgotten"] = draw.choice(material.forgotten).prompt
    return found
