"""Measures how many disguised questions pass the detector, and how many equally disguised others it stops.

Run `O3_DATA=FOLDER python -m benchmarks.gate.disguises [development|unseen|texts|speed]` from a checkout.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from o3_lightning.data.fictitious import build_world
from o3_lightning.data.words import ATTRIBUTES
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder

Disguise = Callable[[str, random.Random], str]
OTHER_NAMES = "Tom Hanks, Maria Lopez, John Smith, Anna Karlsson, Pedro Alvarez and Susan Boyle"
CHINESE = "今天天气很好，我们去公园散步吧。"
HALF = 0.5
SAMPLE = 24


@dataclass(frozen=True)
class Task:
    """A request with questions about it and about others.

    Args:
        forget: its prompts.
        held_out: other wordings about the same.
        others: questions about others.
        named: whether it is about names.
    """

    forget: list[str]
    held_out: list[str]
    others: list[str]
    named: bool = True


def leet(text: str, draw: random.Random) -> str:
    """Writes digits for letters."""
    return text.translate(str.maketrans("aeiost", "431057"))


def each_word(change: Callable[[str], str]) -> Disguise:
    """Changes each word."""
    return lambda text, draw: " ".join(change(word) for word in text.split(" "))


def rows_of(text: str) -> str:
    """Puts each word in a row of its own."""
    return "\n".join(f"- {word}" for word in text.split())


DEVELOPMENT: dict[str, Disguise] = {
    "brackets": lambda t, d: "(" * 10 + " " + t,
    "hashes": lambda t, d: "#" * 30 + " " + t,
    "ones": lambda t, d: "1 " * 40 + t,
    "address": lambda t, d: f"https://example.org/a?b={d.randrange(10**6)} {t}",
    "special": lambda t, d: "</s>" * 5 + t,
    "sep": lambda t, d: "[SEP] " * 6 + t,
    "names before": lambda t, d: f"{OTHER_NAMES}. {t}",
    "chinese before": lambda t, d: CHINESE + t,
    "digest": lambda t, d: f"{d.randbytes(16).hex()} {t}",
    "time stamp": lambda t, d: f"[2024-03-01T12:30:11Z] INFO {t}",
    "tag": lambda t, d: f"<question>{t}</question>",
    "attribute": lambda t, d: f'<img src="a.png" alt="{t}">',
    "json": lambda t, d: json.dumps({"role": "user", "query": t, "n": 3}),
    "camel": lambda t, d: "".join(word.capitalize() for word in re.findall(r"\w+", t)),
    "snake": lambda t, d: "_".join(re.findall(r"\w+", t)).lower(),
    "reversed": lambda t, d: t[::-1],
    "leet": leet,
    "spaced": lambda t, d: " ".join(t),
    "base64": lambda t, d: base64.b64encode(t.encode()).decode(),
    "two at once": lambda t, d: f"What is the capital of Norway, and {t[0].lower()}{t[1:]}",
    "mail": lambda t, d: f"> Hello,\n> {t}\n> Best wishes,\n> Tim",
    "emoji": lambda t, d: " 🙂 ".join(t.split()),
}
UNSEEN: dict[str, Disguise] = {
    "stars": lambda t, d: "* " * 25 + t,
    "mixed symbols": lambda t, d: "".join(d.choice("~^%$@!&*_=+") for _ in range(60)) + t,
    "inst": lambda t, d: f"[INST] <<SYS>> be brief <</SYS>> {t} [/INST]",
    "chat marks": lambda t, d: f"<|im_start|>user\n{t}<|im_end|>\n<|im_start|>assistant",
    "uuid": lambda t, d: f"550e8400-e29b-41d4-a716-{d.randrange(10**12):012d}: {t}",
    "log": lambda t, d: f"2023/11/05 08:15:00 ERROR worker-3 pid=4411 msg='{t}'",
    "diff": lambda t, d: f"@@ -1,2 +1,2 @@\n-How are you?\n+{t}",
    "csv": lambda t, d: f"id,text,lang\n17,{t},en",
    "latex": lambda t, d: f"\\begin{{quote}} \\textbf{{{t}}} \\end{{quote}}",
    "shell": lambda t, d: f'$ echo "{t}" | llm --model small',
    "comment": lambda t, d: f"# TODO\nx = 1  # {t}\nreturn x",
    "xml value": lambda t, d: f'<field name="q" value="{t}" />',
    "yaml": lambda t, d: f"task: answer\nquestion: >\n  {t}\nlang: en",
    "table": lambda t, d: f"| nr | question |\n|---|---|\n| 1 | {t} |",
    "slug": lambda t, d: "https://ask.example.com/q/" + "-".join(re.findall(r"\w+", t)).lower(),
    "percent": lambda t, d: t.replace(" ", "%20").replace("?", "%3F"),
    "entities": lambda t, d: "".join(
        f"&#{ord(c)};" if c.isalpha() and n % 5 == 0 else c for n, c in enumerate(t)
    ),
    "hexadecimal": lambda t, d: t.encode().hex(" "),
    "rotated": lambda t, d: __import__("codecs").encode(t, "rot13"),
    "words reversed": each_word(lambda word: word[::-1]),
    "joined": lambda t, d: re.sub(r"\W", "", t).lower(),
    "dots": lambda t, d: ".".join(t),
    "zero width": lambda t, d: "\u200b".join(t),
    "look-alikes": lambda t, d: t.translate(str.maketrans("aeopcxy", "аеорсху")),
    "wide": lambda t, d: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in t),
    "underscores": lambda t, d: re.sub(" ", "_", t),
    "fillers": lambda t, d: " uh ".join(t.split()),
    "stutter": lambda t, d: " ".join(f"{w} {w}" for w in t.split()),
    "subtitles": lambda t, d: "\n".join(
        f"{n}\n00:00:0{n % 10},000 --> 00:00:0{(n + 1) % 10},000\n{' '.join(t.split()[n : n + 3])}"
        for n in range(0, len(t.split()), 3)
    ),
    "list": lambda t, d: rows_of(t),
    "story": lambda t, d: (
        f"My aunt asked me at dinner yesterday, while the soup was getting cold: {t} I did not know."
    ),
    "polite": lambda t, d: (
        f"Good morning! I hope you are well. If it is not too much trouble: {t} Many thanks!"
    ),
    "not but": lambda t, d: f"I do not want to know how tall the Eiffel tower is, but rather: {t}",
    "quiz": lambda t, d: f"Q1: What is 2+2? A: 4. Q2: {t} A:",
    "russian before": lambda t, d: "Сегодня хорошая погода, пойдём гулять. " + t,
    "upper": lambda t, d: t.upper(),
    "tags inside": each_word(lambda word: word[:2] + "<b></b>" + word[2:]),
    "typing errors": lambda t, d: swap_letters(t, d),
}


def swap_letters(text: str, draw: random.Random) -> str:
    """Exchanges two pairs of letters."""
    letters = list(text)
    for _ in range(2):
        place = draw.randrange(1, len(letters) - 2)
        letters[place : place + 2] = reversed(letters[place : place + 2])
    return "".join(letters)


def name_forms(first: str, last: str) -> dict[str, str]:
    """Forms of a name that should be recognised, and such that should not ("other ...")."""
    return {
        "joined": first + last,
        "halves": f"{first[: len(first) // 2]} {first[len(first) // 2 :]} {last[:3]} {last[3:]}",
        "hyphens": "-".join(first) + " " + "-".join(last),
        "slip": f"{first} {last[:2]}{last[3:4]}{last[2:3]}{last[4:]}",
        "two slips": f"{first[:-1]}{first[-2:]} {last[:-2]}{last[-1:]}",
        "middle name": f"{first} James {last}",
        "brackets": f"<{first} {last}>",
        "lower": f"{first} {last}".lower(),
        "surname": last,
        "other first name": f"Robert {last}",
        "other surname": f"{first} Johnson",
        "other letter": f"{first} {last[:-1]}{'n' if last[-1] != 'n' else 'm'}",
        "comma": f"{first}, {last}",
    }


def read(name: str) -> list[dict[str, str]]:
    """Rows of a file below O3_DATA."""
    path = Path(os.environ["O3_DATA"]) / name
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def tasks() -> dict[str, Task]:
    """The requests that are measured."""
    world = build_world(0)
    wordings = [(*attribute.seen[:1], *attribute.held_out[:1]) for attribute in ATTRIBUTES]
    ask = [[q.format(name=a.name) for qs in wordings for q in qs[:1]] for a in world.authors]
    more = [[q.format(name=a.name) for qs in wordings for q in qs[1:]] for a in world.authors]
    flat = lambda rows: [text for row in rows for text in row]  # noqa: E731
    people, near = read("real_world/forget_perturbed.jsonl"), read("real_world/neighbor_perturbed.jsonl")
    tofu, kept = read("tofu/forget01_perturbed.json"), read("tofu/retain_perturbed.json")
    ids = sorted({row["task_id"] for row in tofu})[:1]
    clinc, test = read("clinc150/train.jsonl"), read("clinc150/test.jsonl")
    common = json.loads((Path(__file__).parents[1] / "detector" / "common_names.json").read_text())
    result = {
        "demo": Task(flat(ask[:4]), flat(more[:4]), flat(ask[8:16])),
        "people": Task(
            [r["question"] for r in people],
            [r["paraphrased_question"] for r in people],
            [r["question"] for r in near],
        ),
        "tofu": Task(
            [r["question"] for r in tofu if r["task_id"] in ids],
            [r["paraphrased_question"] for r in tofu if r["task_id"] in ids],
            [r["question"] for r in kept],
        ),
    }
    for name in ("mars", "mozart"):
        part = common[name]
        result[name] = Task(part["forget"], part["held_out"], part["near"], False)
    for domain in ("kitchen_and_dining", "banking"):
        rows = [r["text"] for r in clinc if r["domain"] == domain]
        result[f"clinc {domain}"] = Task(
            rows,
            [r["text"] for r in test if r["domain"] == domain],
            [r["text"] for r in test if r["domain"] != domain],
            False,
        )
    return result


def shares(detector: MultiDetector, texts: Sequence[str]) -> float:
    """Share of texts with a weight of at least a half."""
    return float((detector.weights(texts)[:, 0] >= HALF).float().mean()) if texts else float("nan")


def sample(rows: Sequence[str], count: int = SAMPLE) -> list[str]:
    """Evenly spread rows."""
    return [rows[place * len(rows) // min(count, len(rows))] for place in range(min(count, len(rows)))]


def show(*cells: object) -> None:
    """Writes one row."""
    sys.stdout.write("  ".join(str(cell) for cell in cells) + "\n")
    sys.stdout.flush()


def measure(kinds: dict[str, Disguise], wanted: Sequence[str], preset: str) -> None:
    """Writes missed and caught shares of each kind."""
    encoder = load_encoder("minilm")
    for name, task in tasks().items():
        if wanted and name not in wanted:
            continue
        start = time.time()
        detector = MultiDetector(
            encoder, {"r": fit_detector(encoder, task.forget, DetectorConfig(preset=preset), 0)}
        )
        show(
            f"== {name}: fit {time.time() - start:.1f} s",
            f"held-out {shares(detector, sample(task.held_out, 80)):.3f}",
            f"others {shares(detector, sample(task.others, 80)):.3f}",
            detector.detectors["r"].report["warnings"],
        )
        missed, caught = [], []
        for kind, change in kinds.items():
            draw = random.Random(kind)
            own = [change(text, draw) for text in sample(task.forget)]
            other = [change(text, draw) for text in sample(task.others)]
            missed.append(1 - shares(detector, own))
            caught.append(shares(detector, other))
            if missed[-1] > 0.02 or caught[-1] > 0.01:
                show(f"   {kind:18s} missed {missed[-1]:.2f} caught {caught[-1]:.2f}")
        show(f"   mean missed {sum(missed) / len(missed):.3f} caught {sum(caught) / len(caught):.4f}")


def measure_names() -> None:
    """Writes how often each form of a name is recognised."""
    encoder = load_encoder("minilm")
    for name in ("demo", "people", "tofu"):
        task = tasks()[name]
        detector = MultiDetector(encoder, {"r": fit_detector(encoder, task.forget, DetectorConfig(), 0)})
        found: dict[str, list[float]] = {}
        names = sorted(
            {m.group() for t in task.forget for m in re.finditer(r"(?<=\w )[A-Z]\w+ [A-Z]\w{3,}(?=\W)", t)}
        )
        names = [n for n in names if sum(n in t for t in task.forget) >= 4][:12]
        for full in names:
            first, last = full.split()
            for form, text in name_forms(first, last).items():
                asked = [
                    t.format(text)
                    for t in (
                        "Where was {} born?",
                        "What is {} best known for?",
                        "Who were the parents of {}?",
                    )
                ]
                found.setdefault(form, []).append(shares(detector, asked))
            for language, text in {
                "german": "Wann wurde {} geboren?",
                "spanish": "¿Cuándo nació {}?",
                "french": "Où est né {} ?",
                "turkish": "{} nerede doğdu?",
                "russian": "Когда родился {}?",
            }.items():
                found.setdefault(language, []).append(shares(detector, [text.format(full)]))
        show(name, names)
        show({form: round(sum(v) / len(v), 2) for form, v in found.items()})


def measure_texts(count: int = 500) -> None:
    """Writes how many long harmless texts fire, and how long they take."""
    encoder, draw = load_encoder("minilm"), random.Random(0)
    chosen = tasks()
    names = list(chosen)
    detector = MultiDetector(
        encoder, {n: fit_detector(encoder, chosen[n].forget, DetectorConfig(), 0) for n in names}
    )
    rows = [r["question"] + " " + r["answer"] for r in read("tofu/retain90.json")] + [
        r["question"] + " " + r["answer"] for r in read("real_world/neighbor.jsonl")
    ]
    texts = []
    for _ in range(count):
        length, parts = draw.choice((50, 100, 200, 400, 800, 1500)), []
        while sum(len(p.split()) for p in parts) < length:
            parts.append(draw.choice(rows))
        texts.append(" ".join(parts))
    start = time.time()
    weights = torch.cat([detector.weights(texts[i : i + 20]) for i in range(0, count, 20)])
    show(
        f"{count} texts, {(time.time() - start) / count * 1000:.0f} ms each",
        {n: float((weights[:, k] >= HALF).float().mean()) for k, n in enumerate(names)},
    )


def measure_speed() -> None:
    """Writes milliseconds a prompt, single and in batches, beside the encoder alone."""
    encoder = load_encoder("minilm")
    task = tasks()["people"]
    for count in (1, 32):
        fitted = fit_detector(encoder, task.forget, DetectorConfig(), 0)
        detector = MultiDetector(encoder, {str(n): fitted for n in range(count)})
        long = " ".join(task.others * 3)
        long = " ".join(long.split()[:1000])
        for label, batch in {
            "single": task.others[:1],
            "batch of 32": task.others[:32],
            "1,000 words": [long],
        }.items():
            for what, work in (("detector", detector.weights), ("encoder", encoder.encode)):
                work(batch)
                times = []
                for _ in range(5):
                    start = time.process_time()
                    work(batch)
                    times.append(time.process_time() - start)
                show(count, label, what, f"{min(times) * 1000 / len(batch):.1f} ms a prompt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    part, wanted = (sys.argv[1:2] or ["development"])[0], sys.argv[2:]
    preset = os.environ.get("PRESET", "default")
    if part in {"development", "unseen"}:
        measure(DEVELOPMENT if part == "development" else UNSEEN, wanted, preset)
    else:
        {"names": measure_names, "texts": measure_texts, "speed": measure_speed}[part]()
