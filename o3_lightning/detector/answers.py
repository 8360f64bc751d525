"""What a request's answers give away, as salted hashes: which words tell a value of which subject.

A subject is what some forget prompts name together, such as a person; its cues are those names, its values
the informative words of the answers. No text is stored; whoever holds the file can test a guessed word.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from o3_lightning.common.errors import StoreError
from o3_lightning.common.files import digest_json, write_atomically
from o3_lightning.detector.text.frequencies import information
from o3_lightning.detector.text.normalise import normalise_text
from o3_lightning.detector.text.people import is_proper

ANSWER_FILE = "answers.safetensors"
WORD = re.compile(r"[^\W\d_]+|\d+")
CUE_NATS, JOINING_NATS = 9.0, 12.0  # of a word that names a subject; of one that only one subject has
VALUE_NATS, NUMBER_NATS, MOST_NATS = 8.0, 5.0, 15.0
SLIP_LETTERS, SLIP_NATS = 5, 3.0  # shortest name that is recognised with one slip; what the slip costs
COMMON_SHARE = 0.5  # a cue in more prompts than this belongs to the question unless it is a capitalised name
RECURS = 0.15  # share of the prompts with a subject's most frequent cue below which another cue names nobody,
SINGULAR_NATS = 14.0  # unless it is this rare
TENSORS = ("salt", "cues", "cue_subjects", "cue_nats", "values", "value_subjects", "value_nats")


@dataclass(frozen=True)
class AnswerState:
    """Hashed words of a request's subjects and answers.

    Args:
        salt: [1] int64, hashed with every word.
        cues: [C] int64 hashes of names, and of names with one letter missing.
        cue_subjects: [C] int64 number of the subject.
        cue_nats: [C] float32 information of the word.
        values: [V] int64 hashes of answer words that one subject alone has.
        value_subjects: [V] int64.
        value_nats: [V] float32.
    """

    salt: Tensor
    cues: Tensor
    cue_subjects: Tensor
    cue_nats: Tensor
    values: Tensor
    value_subjects: Tensor
    value_nats: Tensor

    def save(self, folder: str | Path) -> None:
        """Writes answers.safetensors atomically."""
        write_atomically(Path(folder) / ANSWER_FILE, save({name: getattr(self, name) for name in TENSORS}))

    @classmethod
    def load(cls, folder: str | Path) -> Self | None:
        """Reads what `save` wrote; None where the request has no such file.

        Raises:
            StoreError: the file is damaged.
        """
        path = Path(folder) / ANSWER_FILE
        if not path.exists():
            return None
        try:
            tensors = load(path.read_bytes())
            state = cls(**{name: tensors[name] for name in TENSORS})
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        for name in TENSORS:
            dtype = torch.float32 if name.endswith("nats") else torch.int64
            if tensors[name].dim() != 1 or tensors[name].dtype != dtype:
                raise StoreError(f"{path}: tensor '{name}': expected a row of {dtype}")
        if len(state.salt) != 1 or int(state.salt) < 0:
            raise StoreError(f"{path}: tensor 'salt': expected one number of 0 or more")
        for kind in ("cue", "value"):
            sizes = {len(getattr(state, f"{kind}{end}")) for end in ("s", "_subjects", "_nats")}
            if len(sizes) != 1 or not bool(torch.isfinite(getattr(state, f"{kind}_nats")).all()):
                raise StoreError(f"{path}: damaged: the {kind}s are not one finite row each")
        return state


def fit_answers(prompts: Sequence[str], answers: Sequence[str], salt_text: str = "") -> AnswerState:
    """Returns the state of a request's answers.

    Args:
        prompts: forget prompts.
        answers: one a prompt.
        salt_text: mixed into the hashes, `detector.salt`; the words of an answer are hashed once for all
            requests with an equal one.
    """
    salt = int(digest_json(["answers", salt_text])[:15], 16)
    holders = Counter(word for prompt in prompts for word in split_words(prompt))
    common = {word for word, count in holders.items() if count > COMMON_SHARE * len(prompts)}
    cues = [cue_words(prompt, common) for prompt in prompts]
    subjects = number_subjects(cues)
    held: dict[int, Counter[str]] = defaultdict(Counter)
    values: dict[str, set[int]] = defaultdict(set)
    for prompt, answer, words, subject in zip(prompts, answers, cues, subjects, strict=True):
        held[subject].update(words)
        for word in split_words(answer) - split_words(prompt):
            if value_nats(word):
                values[word].add(subject)
    told = [
        (word, min(owners), value_nats(word)) for word, owners in sorted(values.items()) if len(owners) == 1
    ]
    named = [
        (key, subject, nats)
        for subject, counts in sorted(held.items())
        for key, nats in cue_keys(recurring(counts))
    ]
    return AnswerState(torch.tensor([salt]), *columns(named, salt), *columns(told, salt))


def columns(entries: Sequence[tuple[str, int, float]], salt: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns hashes, subjects and nats of some words."""
    hashes = torch.tensor([hash_word(word, salt) for word, _, _ in entries], dtype=torch.int64)
    subjects = torch.tensor([subject for _, subject, _ in entries], dtype=torch.int64)
    return hashes, subjects, torch.tensor([nats for _, _, nats in entries], dtype=torch.float32)


def split_words(text: str) -> set[str]:
    """Returns the distinct words and numbers of a text, normalised."""
    return set(WORD.findall(normalise_text(text)))


def hash_word(word: str, salt: int) -> int:
    """Returns a number of 63 bits."""
    digest = blake2b(word.encode(), digest_size=8, salt=salt.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") >> 1


def slips_of(word: str) -> Iterable[str]:
    """Returns the distinct keys that a name shares with its misspellings by one letter, in order."""
    if len(word) < SLIP_LETTERS:
        return ()
    return dict.fromkeys([f"~{word}", *(f"~{word[:cut]}{word[cut + 1 :]}" for cut in range(len(word)))])


def cue_words(prompt: str, common: set[str]) -> set[str]:
    """Returns the words that name a prompt's subject: rare names, and capitalised words inside sentences.

    Args:
        prompt: a forget prompt.
        common: words of most prompts, which belong to the question unless they are capitalised.
    """
    inside = {part.lower() for part in re.findall(r"(?<=[^.!?\s] )[A-Z][^\W\d_]+", prompt)}
    capital = {word for part in inside for word in split_words(part)}
    words = {word for word in split_words(prompt) if len(word) > 2 and word.isalpha() and is_proper(word)}
    rare = {word for word in words if information(word) >= JOINING_NATS}
    named = {word for word in capital if information(word) >= CUE_NATS and len(word) > 2}
    return named | (rare - (common - capital))


def recurring(counts: Counter[str]) -> set[str]:
    """Returns the cues that recur with a subject: "Award" in one question of twenty names nobody."""
    most = max(counts.values(), default=0)
    return {
        word for word, count in counts.items() if count >= RECURS * most or information(word) >= SINGULAR_NATS
    }


def number_subjects(cues: Sequence[set[str]]) -> list[int]:
    """Returns the subject of each row; rows that share a distinctive cue have the same."""
    subjects = list(range(len(cues)))
    first: dict[str, int] = {}
    for row, words in enumerate(cues):
        for word in sorted(words):
            if information(word) < JOINING_NATS:
                continue
            if word in first and subjects[first[word]] != subjects[row]:
                old, new = subjects[row], subjects[first[word]]
                subjects = [new if subject == old else subject for subject in subjects]
            first.setdefault(word, row)
    return subjects


def cue_keys(words: set[str]) -> list[tuple[str, float]]:
    """Returns the keys under which a subject's names are found, with their information."""
    keys = {word: min(information(word), MOST_NATS) for word in sorted(words)}
    for word in sorted(words):
        for slip in slips_of(word):
            keys.setdefault(slip, keys[word] - SLIP_NATS)
    return list(keys.items())


def value_nats(word: str) -> float:
    """Returns the information of an answer word, 0 where it is too common to tell anything."""
    if word.isdigit():
        return NUMBER_NATS if len(word) > 1 else 0.0
    nats = information(word)
    return min(nats, MOST_NATS) if nats >= VALUE_NATS and len(word) > 2 else 0.0
