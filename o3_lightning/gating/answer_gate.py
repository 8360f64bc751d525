"""The second look: whether an answer tells a value of a forgotten subject that its prompt or chat names.

Shapes: B rows, K requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from o3_lightning.detector.answers import AnswerState, hash_word, slips_of, split_words
from o3_lightning.detector.text.frequencies import is_listed

FIRES = 17.0  # nats of names and values together: half a rare name and one uncommon word
Index = dict[int, list[tuple[int, float]]]


class AnswerGate:
    """Judges answers by the hashed answers of every request.

    Args:
        states: of each request, in the order of the weights' columns; None for one without.
    """

    def __init__(self, states: Sequence[AnswerState | None]) -> None:
        self.count = len(states)
        self._tables = [
            (column, int(state.salt), index(state, "cue"), index(state, "value"))
            for column, state in enumerate(states)
            if state is not None
        ]

    @property
    def columns(self) -> set[int]:
        """The numbers of the requests that have hashed answers."""
        return {column for column, *_ in self._tables}

    def cues(self, prompt: str) -> list[dict[int, float]]:
        """Returns, for each request with answers, the nats by which a prompt or chat names each subject.

        Half a name counts, with one slip if no word list has the slipped form, and so does a known value.
        """
        words = split_words(prompt)
        found = []
        for _, salt, cues, values in self._tables:
            nats: dict[int, float] = defaultdict(float)
            for word in words:
                key = hash_word(word, salt)
                hits = [*cues.get(key, ()), *values.get(key, ())]
                if not hits and not is_listed(word):
                    hits = [hit for slip in slips_of(word) for hit in cues.get(hash_word(slip, salt), ())]
                for subject, weight in dict(hits).items():
                    nats[subject] += weight
            found.append(dict(nats))
        return found

    def judge(self, prompt: str, answer: str) -> Tensor:
        """Returns for each request [K] whether an answer tells what was forgotten.

        Words that the prompt holds already tell nothing.
        """
        fired = torch.zeros(self.count, dtype=torch.bool)
        named = self.cues(prompt)
        words = split_words(answer) - split_words(prompt) if any(named) else set()
        for (column, salt, _, values), cues in zip(self._tables, named, strict=True):
            told: dict[int, float] = defaultdict(float)
            for word in words if cues else ():
                for subject, nats in values.get(hash_word(word, salt), ()):
                    told[subject] += nats
            fired[column] = any(cues.get(subject, -FIRES) + nats >= FIRES for subject, nats in told.items())
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


def index(state: AnswerState, kind: str) -> Index:
    """Returns subject and nats by hash."""
    table: Index = defaultdict(list)
    columns = (getattr(state, f"{kind}{end}").tolist() for end in ("s", "_subjects", "_nats"))
    for key, subject, nats in zip(*columns, strict=True):
        table[key].append((subject, nats))
    return dict(table)
