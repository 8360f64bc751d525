"""The names of a request as evidence: no encoder, all requests of one salt in one table."""

import codecs
import re
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from typing import Any, Self

import torch
from torch import Tensor

from o3_lightning.detector.base import (
    DETECTORS,
    EvidenceGroup,
    FitTask,
    Fitted,
    GroupedEvidence,
    Saved,
    load_state,
)  # fmt: skip
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.name_table import NameHit, NameTable
from o3_lightning.detector.names import NameState, find_names, hash_names
from o3_lightning.detector.reading import Reading
from o3_lightning.detector.text.frequencies import is_listed
from o3_lightning.detector.text.normalise import LEET
from o3_lightning.detector.text.reading import find_fragment

SALT_BYTES = 16
MOST_RESPELT, LONGEST_RESPELT = 4, 2_000  # readings, and characters of each, whose words are also respelt
WORD = re.compile(r"[^\W_]+")
DIGITS = re.compile(r"[0-9@$!|]")


@DETECTORS.register("names")
class NameEvidence(GroupedEvidence):
    """Weight 1 for a prompt that holds a name of the request, else 0.

    Args:
        state: hashed names.
    """

    needs_encoder = False

    def __init__(self, state: NameState) -> None:
        self.state = state

    @classmethod
    def fit(cls, task: FitTask) -> Fitted:
        """Finds and hashes the names; warns of those that a single word of theirs does not show."""
        names = find_names([prompt for prompt in task.prompts if prompt.strip()])
        salt = blake2b(f"{task.encoder.digest}{task.config.salt}".encode(), digest_size=SALT_BYTES).digest()
        report = {"names": len(names.subjects), "single_names": len(names.singles)}
        warnings = []
        if names.common_last:
            warnings.append(
                f"{names.common_last} of {len(names.subjects)} names are not recognised by their last word "
                "alone, which is a common word: add rows that say only that word, and check answers too "
                "(gate.check_answers) if that must not leak"
            )
        if names.common_alone:
            warnings.append(
                f"{names.common_alone} names of a single word are not recognised by it, which is a common "
                "word: a short question about one can be missed; put them into a request of their own, and "
                "check answers too (gate.check_answers)"
            )
        return Fitted(cls(hash_names(names, salt)), report, warnings)

    def weight(self, scores: Tensor) -> Tensor:
        """Returns the scores."""
        return scores

    def save(self) -> Saved:
        """Returns the hashes."""
        return Saved(vars(self.state), {})

    @classmethod
    def load(cls, saved: Saved, config: DetectorConfig) -> Self:
        """Returns the evidence of these hashes."""
        return cls(load_state(NameState, saved.tensors))

    def group_key(self) -> Hashable:
        """Returns the salt."""
        return bytes(self.state.salt.tolist())

    @classmethod
    def group(cls, members: Sequence[Any]) -> EvidenceGroup:
        """Returns a group that looks all names up in one table."""
        return NameGroup(members)


class NameGroup(EvidenceGroup):
    """Names of several requests with one salt, in one table.

    Args:
        members: K evidences.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__(members)
        self.table = NameTable([member.state for member in members], range(len(members)))

    def score(self, encoder: Encoder, readings: Sequence[Reading], decided: Tensor | None = None) -> Tensor:
        """Returns 1 where a text holds a name of a request, else 0 [B, K]."""
        scores = torch.zeros(len(readings), len(self.members))
        for row, hits in enumerate(self.find(readings)):
            for _, hit in hits:
                scores[row, hit.column] = 1
        return scores

    def weight(self, scores: Tensor) -> Tensor:
        """Returns the scores."""
        return scores

    def explain(self, encoder: Encoder, readings: Sequence[Reading]) -> list[list[dict[str, Any]]]:
        """Returns for each member the kind and place of the first hit in every text."""
        rows: list[list[dict[str, Any]]] = [[{} for _ in readings] for _ in self.members]
        for row, hits in enumerate(self.find(readings)):
            for text, hit in reversed(hits):
                place = find_fragment(readings[row].text, text[hit.start : hit.end])
                rows[hit.column][row] = {"evidence": hit.kind, "place": place}
        return rows

    def find(self, readings: Sequence[Reading]) -> list[list[tuple[str, NameHit]]]:
        """Returns the hits in each text with the form of it that they stand in."""
        forms = [searched_forms(reading) for reading in readings]
        found = iter(self.table.find([text for texts in forms for text in texts]))
        return [[(text, hit) for text in texts for hit in next(found)] for texts in forms]


def searched_forms(reading: Reading) -> list[str]:
    """Returns the forms of a text in which names are looked up."""
    respelt = (part for form in reading.forms[:MOST_RESPELT] for part in respelt_words(form))
    return list(dict.fromkeys([*reading.forms, *respelt]))


def respelt_words(text: str) -> list[str]:
    """Returns a text with its letters in other orders and keys, where it holds a word that no list has."""
    text = text[:LONGEST_RESPELT]
    if all(is_listed(word) for word in WORD.findall(text.lower())):
        return []
    found = [text[::-1], " ".join(word[::-1] for word in text.split()), codecs.encode(text, "rot13")]
    if DIGITS.search(text):
        found += [text.lower().translate(LEET), text.lower().replace("1", "i").translate(LEET)]
    return found
