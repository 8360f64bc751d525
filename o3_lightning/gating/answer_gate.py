"""The second look: whether an answer tells a value of a forgotten subject that its prompt or chat names.

Shapes: B rows, K requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from o3_lightning.detector.answers import (
    JOINING_NATS,
    AnswerState,
    hash_word,
    slips_of,
    split_words,
    value_nats,
)
from o3_lightning.detector.text.frequencies import information, is_listed
from o3_lightning.detector.text.people import is_proper

FIRES = 17.0  # nats of names and values together: half a rare name and one uncommon word
HELD = 0.5  # of the nats that an answer tells: the least share of values of a subject named long before,
TELLING = 10.0  # or, where the answer names the subject, the least nats: "nature" and "culture" tell nothing
Subject = tuple[int, int]  # number of the request, number of the subject within it
Index = dict[int, list[tuple[Subject, float]]]  # subjects and nats by hash


class AnswerGate:
    """Judges answers by the hashed answers of every request; requests with one salt share a table.

    Args:
        states: of each request, in the order of the weights' columns; None for one without.
    """

    def __init__(self, states: Sequence[AnswerState | None]) -> None:
        self.count = len(states)
        self.columns = {column for column, state in enumerate(states) if state is not None}
        self._tables: dict[int, tuple[Index, Index]] = {}
        for column, state in enumerate(states):
            if state is not None:
                cues, values = self._tables.setdefault(int(state.salt), ({}, {}))
                extend_index(cues, column, state.cues, state.cue_subjects, state.cue_nats)
                extend_index(values, column, state.values, state.value_subjects, state.value_nats)

    def cues(self, prompt: str) -> dict[Subject, float]:
        """Returns the nats by which a prompt or chat names each subject; empty if it names none.

        Half a name counts, with one slip if no word list has the slipped form, and so does a value that is
        itself a rare name: "readers" or "nature" in a long answer name nobody.
        """
        nats: dict[Subject, float] = defaultdict(float)
        for word in split_words(prompt):
            slipped = [] if is_listed(word) else list(slips_of(word))
            is_name = word.isalpha() and information(word) >= JOINING_NATS and is_proper(word)
            for salt, (cues, values) in self._tables.items():
                key = hash_word(word, salt)
                exact = dict([*cues.get(key, ()), *(values.get(key, ()) if is_name else ())])
                known = {column for column, _ in exact}
                hits = (hit for slip in slipped for hit in cues.get(hash_word(slip, salt), ()))
                close = {subject: weight for subject, weight in hits if subject[0] not in known}
                for subject, weight in (exact | close).items():
                    nats[subject] += weight
        return dict(nats)

    def judge(self, prompt: str, answer: str, asked: str | None = None) -> Tensor:
        """Returns for each request [K] whether an answer tells what was forgotten.

        Words that the prompt holds already tell nothing, but the answer may end one that the prompt begins. A
        long answer holds some value of anybody by chance: where the question does not name the subject,
        values have to be half of it or, where it names the subject itself, more than one common word.

        Args:
            prompt: all that was said before.
            answer: what is said next.
            asked: the question at the end of the prompt; None if it is nothing else.
        """
        fired = torch.zeros(self.count, dtype=torch.bool)
        if not (named := self.cues(prompt)):
            return fired
        said = split_words(prompt)
        new = split_words(answer) - said
        told: dict[Subject, float] = defaultdict(float)
        by_answer: set[Subject] = set()
        for word in split_words(answer) | split_words(prompt + answer) - said:
            for salt, (cues, values) in self._tables.items():
                key = hash_word(word, salt)
                by_answer.update(subject for subject, _ in cues.get(key, ()))
                for subject, nats in () if word in said else values.get(key, ()):
                    told[subject] += nats
        meant = named if asked is None else self.cues(asked) if told else {}
        half = HELD * sum(map(value_nats, new))
        for subject in told.keys() & named.keys():
            least = 0.0 if subject in meant else min(half, TELLING) if subject in by_answer else half
            fired[subject[0]] |= told[subject] >= max(least, FIRES - named[subject])
        return fired


class HeldStreamer:
    """Keeps a stream back until its answer is judged, then hands the tokens on.

    Args:
        streamer: of transformers; receives what `release` lets through.
    """

    def __init__(self, streamer: Any) -> None:
        self.streamer = streamer
        self.held: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        """Holds tokens back."""
        self.held.append(value)

    def end(self) -> None:
        """Does nothing; the stream ends with `release`."""

    def release(self) -> None:
        """Streams what the last generation held back, and ends the stream."""
        for value in self.held:
            self.streamer.put(value)
        self.streamer.end()


def extend_index(index: Index, column: int, keys: Tensor, subjects: Tensor, nats: Tensor) -> None:
    """Adds the subjects of a request to an index by hash."""
    for key, subject, weight in zip(keys.tolist(), subjects.tolist(), nats.tolist(), strict=True):
        index.setdefault(key, []).append(((column, subject), weight))
