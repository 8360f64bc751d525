"""Measures what each rule of the detector moves: switched off alone, on disguised and plain prompts.

    O3_DATA=FOLDER python -m benchmarks.gate.ablation RESULTS.json development|test [RULE ...]

A case is a prompt that should be refused (the forgotten, disguised by the attack registry, and its held-out
wordings) or one that should not (others in the same disguises, neighbours, namesakes). It is missed if its
weight is below a half, and stopped wrongly if it is at least that. A rule moves these shares by the
change when it is off; the deviation is that of a bootstrap over cases. Settings may be chosen by the
development members; the test members are the final measure. Rules already in the file are skipped. The file
that O3_FEATURES names keeps encoder outputs.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.gate.disguises import HALF, Task, as_rows, sample, tasks
from benchmarks.gate.neighbours import namesakes
from o3_lightning.attacks.registry import ATTACKS, Material
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.detector import Detector, DetectorConfig, MultiDetector, fit_detector, load_encoder
from o3_lightning.detector.calibration import tail_weights
from o3_lightning.detector.config import CHANNELS, PRESETS
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.names import NameKind
from o3_lightning.detector.reading import Reading

TASKS = ("demo", "people", "tofu", "clinc banking", "biology", "mars", "france")
ROWS, PLAIN, DRAWS, DIGITS, BATCH = 3, 30, 1000, 4, 32
ROOM = "o3_lightning.detector."
NEVER = re.compile(r"(?!)()")
WEIGHTS = dict(zip(CHANNELS, PRESETS["default"]["channel_weights"], strict=True))


@dataclass(frozen=True)
class Rule:
    """A rule, and how it is switched off.

    Args:
        patches: replacements by "module:attribute" below the detector's package.
        config: fields of `DetectorConfig`.
        scope: "fit" fits the detector again; "score" scores every case again, "reading" those that are read
            otherwise, "names" those in which a name was found.
    """

    patches: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "fit"

    @contextmanager
    def off(self) -> Iterator[DetectorConfig]:
        """Switches the rule off and yields the settings."""
        with ExitStack() as stack:
            for name, value in self.patches.items():
                module, _, attribute = name.partition(":")
                owner: Any = import_module(ROOM + module)
                *path, last = attribute.split(".")
                for step in path:
                    owner = getattr(owner, step)
                stack.enter_context(patch.object(owner, last, value))
            yield DetectorConfig(**self.config)


def without_channel(name: str) -> Rule:
    """A fusion without one channel."""
    kept = {channel: weight for channel, weight in WEIGHTS.items() if channel != name}
    return Rule(config={"channels": tuple(kept), "channel_weights": tuple(kept.values())})


def nothing(*_: Any, **__: Any) -> list[Any]:
    """Finds nothing."""
    return []


def same(text: str, *_: Any) -> str:
    """Leaves a text as it is."""
    return text


def linear(scores: Tensor, tail_quantile: float) -> Tensor:
    """Weights that fall evenly in the tail."""
    return tail_weights(scores, tail_quantile).sqrt()


def reads(**patches: Any) -> Rule:
    """Reading without some functions or patterns."""
    named = {name.replace("__", ":").replace("text_", "text."): value for name, value in patches.items()}
    return Rule(named, scope="reading")


def without(*patterns: str, module: str = "text.reading") -> Rule:
    """Reading without some patterns."""
    return Rule({f"{module}:{name}": NEVER for name in patterns}, scope="reading")


def names_without(*methods: str, kind: str = "", value: Any = nothing) -> Rule:
    """Names without some steps of the search, or one kind of entry."""
    patches = {f"name_table:Search.{method}": value for method in methods}
    if kind:
        kinds = {one.name: int(one) for one in NameKind}
        patches["name_table:NameKind"] = SimpleNamespace(**{**kinds, kind: 0})
    return Rule(patches, scope="names")


NO_NAMESAKES = {
    "fusion:FusionGroup.names_others": lambda self, _, texts: torch.zeros(len(texts), len(self.members)) > 0
}
RULES: dict[str, Rule] = {
    "as it is": Rule(),
    **{f"channel {name}": without_channel(name) for name in CHANNELS},
    "narrowing": Rule({"fitting:fit_narrowing": lambda *_, **__: 0.0}),
    "scale floor": Rule({"fitting:fit_scale_floor": lambda *_, **__: 1.0}),
    "slope: square": Rule(
        {f"{module}:tail_weights": linear for module in ("calibration", "fitting", "fusion")}
    ),
    "namesakes of a text": Rule(NO_NAMESAKES, scope="score"),
    "spans: penalty": Rule({"fusion:span_penalty": lambda _: 0.0}, scope="score"),
    "spans: least known": Rule({"fusion:LEAST_KNOWN": 0.0}, scope="score"),
    "spans: far wholes": Rule({"fusion:FAR": -1e9}, scope="score"),
    "spans": reads(reading__cut_spans=nothing),
    "spans: rests of sentences": reads(text_spans__rests=nothing),
    "spans: windows": reads(text_spans__windows=nothing),
    "spans: short windows": reads(text_spans__SHORT_TEXT_WORDS=0),
    "readings": reads(reading__read_text=lambda text, *_: [text]),
    "clean text": reads(text_reading__clean_text=same, reading__clean_text=same),
    "words of markup": reads(text_reading__is_marked=lambda _: False),
    "decoded runs": reads(text_reading__decoded_runs=nothing),
    "respelling": reads(reading__respell_text=nothing),
    "special tokens and tags": reads(text_reading__strip_marks=same),
    "repeated words": without("REPEATED"),
    "pictures": reads(text_reading__PICTURES=frozenset()),
    "tag names": without("TAG_WORDS"),
    "look-alikes": reads(text_normalise__latin_words=same, text_reading__latin_words=same),
    "leet in words": without("LEET_WORD", module="text.normalise"),
    "letters apart": without("SPACED_LETTERS", module="text.normalise"),
    "names": Rule({"name_evidence:NameGroup.find": lambda self, r: [[] for _ in r]}, scope="names"),
    "names: pairs": names_without("pairs"),
    "names: single words": names_without("singles"),
    "names: rare words": names_without(kind="SINGLE"),
    "names: unlisted words": names_without(kind="SURE"),
    "names: slips": names_without("slipped_parts", value=lambda _: {}),
    "names: joined": names_without("joined"),
    "names: consonants": names_without("without_vowels"),
    "names: respelt words": Rule({"name_evidence:respelt_words": nothing}, scope="names"),
    "names: other names beside": Rule({"name_table:Search.named_beside": lambda *_: False}, scope="score"),
}


@dataclass(frozen=True)
class CachedEncoder(Encoder):
    """An encoder that remembers the last layers of what it has read."""

    seen: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Returns the features of the last layers [B, 3, D]."""
        new = [list(row) for row in dict.fromkeys(map(tuple, tokens)) if row not in self.seen]
        if new:
            features = super().encode_tokens(new)[:, -3:]
            self.seen.update((tuple(row), own.clone()) for row, own in zip(new, features, strict=True))
        return torch.stack([self.seen[tuple(row)] for row in tokens])


def cached_encoder() -> CachedEncoder:
    """Returns MiniLM with what O3_FEATURES holds."""
    plain = load_encoder("minilm")
    path = Path(os.environ.get("O3_FEATURES", ""))
    seen = torch.load(path, weights_only=True) if path.is_file() else {}
    return CachedEncoder(**{name: getattr(plain, name) for name in Encoder.__dataclass_fields__}, seen=seen)


def chosen_tasks() -> dict[str, Task]:
    """Returns the requests of `TASKS`."""
    found = tasks()
    return {name: found[name] for name in TASKS}


@dataclass(frozen=True)
class Case:
    """A prompt, and whether it should be refused."""

    task: str
    kind: str
    text: str
    own: bool


def cases_of(name: str, task: Task, member: str) -> list[Case]:
    """Returns the cases of one request."""
    sides = as_rows(sample(task.forget, ROWS)), as_rows(sample(task.others, ROWS))
    material = Material(sides[1], sides[0])
    found = []
    for kind in ATTACKS.names():
        if ATTACKS[kind].group == "language" and not task.named:
            continue
        for own, rows in zip((True, False), sides, strict=True):
            made = (ATTACKS[kind].attempt(member, row, material) for row in rows)
            texts = [one.prompt for one in made if one and isinstance(one.prompt, str)]
            found += [Case(name, kind, text, own) for text in texts]
    found += [Case(name, "held-out", text, True) for text in sample(task.held_out, PLAIN)]
    found += [Case(name, "neighbours", text, False) for text in sample(task.others, PLAIN)]
    if task.named:
        for kind, texts in namesakes(task.forget, task.held_out).items():
            found += [Case(name, kind, text, kind == "the person") for text in sample(texts, PLAIN // 2)]
    return found


class Judge:
    """Judges cases under one rule after another.

    Args:
        encoder: of the detectors.
        chosen: the requests.
        cases: of all requests.
    """

    def __init__(self, encoder: Encoder, chosen: Mapping[str, Task], cases: Sequence[Case]) -> None:
        self.encoder, self.chosen, self.cases = encoder, chosen, cases
        self.fitted = self.fit(DetectorConfig())
        self.names = [name_weights(self.fitted[case.task], encoder, case.text) for case in cases]
        self.readings = [reading_of(case.text) for case in cases]
        self.before = self.weigh(self.fitted, range(len(cases)), np.zeros(len(cases)))

    def fit(self, config: DetectorConfig) -> dict[str, Detector]:
        """Returns a detector for each request."""
        return {
            name: fit_detector(self.encoder, task.forget, config, 0) for name, task in self.chosen.items()
        }

    def weigh(self, fitted: Mapping[str, Detector], places: Iterable[int], weights: np.ndarray) -> np.ndarray:
        """Returns the weights with those of some cases judged again."""
        found, places = weights.copy(), list(places)
        for name, detector in fitted.items():
            own = [place for place in places if self.cases[place].task == name]
            if own:
                multi = MultiDetector(self.encoder, {name: detector})
                for start in range(0, len(own), BATCH):
                    part = own[start : start + BATCH]
                    found[part] = multi.weights([self.cases[place].text for place in part])[:, 0].numpy()
        return found

    def without(self, rule: Rule) -> np.ndarray:
        """Returns the weights with a rule switched off."""
        with rule.off() as config:
            fitted = self.fit(config) if rule.scope == "fit" else self.fitted
            places = [
                place
                for place, case in enumerate(self.cases)
                if rule.scope in ("fit", "score")
                or (rule.scope == "names" and self.names[place])
                or (rule.scope == "reading" and reading_of(case.text) != self.readings[place])
            ]
            return self.weigh(fitted, places, self.before)


def reading_of(text: str) -> tuple[Any, ...]:
    """Returns everything that is read of a text."""
    reading = Reading(text)
    return tuple(reading.forms), tuple(reading.wholes), tuple(reading.spans)


def name_weights(detector: Detector, encoder: Encoder, text: str) -> float:
    """Returns the weight of the names alone."""
    return float(detector.parts["names"].score(encoder, [text])[0])


def moves(
    cases: Sequence[Case], named: Collection[str], before: np.ndarray, after: np.ndarray
) -> dict[str, Any]:
    """Returns what switching a rule off changes, with deviations, and the kinds that it changes most."""
    draw, found = np.random.default_rng(0), {}
    own_cases = np.array([case.own for case in cases])
    after = (after >= HALF) != own_cases
    change = after.astype(float) - ((before >= HALF) != own_cases)
    for side, own in (("missed", True), ("stopped", False)):
        for group, wanted in (("names", True), ("topics", False)):
            places = [n for n, case in enumerate(cases) if case.own == own and (case.task in named) == wanted]
            own_change = change[places]
            drawn = own_change[draw.integers(0, len(places), (DRAWS, len(places)))].mean(axis=1)
            found[f"{side}, {group}"] = {
                "cases": len(places),
                "rate": round(float(after[places].mean()), DIGITS),
                "change": round(float(own_change.mean()), DIGITS),
                "deviation": round(float(drawn.std()), DIGITS),
            }
    kinds: dict[str, int] = {}
    for case, delta in zip(cases, change.tolist(), strict=True):
        if delta:
            name = f"{'missed' if case.own else 'stopped'}: {case.kind}"
            kinds[name] = kinds.get(name, 0) + int(delta)
    most = sorted(kinds.items(), key=lambda item: -abs(item[1]))[:6]
    return {**found, "kinds": {name: count for name, count in most if count}}


def main(
    path: str, member: str, wanted: Sequence[str], show: Callable[[str], Any] = sys.stdout.write
) -> None:
    """Measures the rules that the file lacks, and writes it after each."""
    torch.set_num_threads(1)
    results = json.loads(Path(path).read_text()) if Path(path).is_file() else {}
    rules = results.setdefault(member, {})
    missing = [name for name in wanted or RULES if name not in rules]
    if not missing:
        return
    encoder, chosen = cached_encoder(), chosen_tasks()
    cases = [case for name, task in chosen.items() for case in cases_of(name, task, member)]
    judge = Judge(encoder, chosen, cases)
    named = {name for name, task in chosen.items() if task.named}
    save_features(encoder)
    for name in missing:
        start = time.time()
        after = judge.before if name == "as it is" else judge.without(RULES[name])
        rules[name] = moves(cases, named, judge.before, after)
        write_json(path, {**results, "environment": describe_environment()})
        show(f"{name}: {time.time() - start:.0f} s {json.dumps(rules[name])}\n")
        sys.stdout.flush()
    save_features(encoder)


def save_features(encoder: CachedEncoder) -> None:
    """Writes what the encoder has read."""
    if path := os.environ.get("O3_FEATURES"):
        torch.save(encoder.seen, path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
