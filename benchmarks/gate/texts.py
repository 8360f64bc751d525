"""Measures what the gate finds and refuses among long texts, other languages, intents and unlike requests.

    O3_DATA=FOLDER python -m benchmarks.gate.texts RESULTS.json [PART ...]

The weights are those of `GatedModel.weights` with the default preset, over a small random base model that the
detectors do not read; a prompt counts as found or refused from a weight of a half. Every part is written when
it is done, and left alone where the file holds it already. `BOUNDS` were set before the figures were seen.

harmless         500 texts of 50 to 1,500 words against five requests, each text of one source
translations     templates in seven languages, names of the requests and of others intact
translated rows  six XQuAD articles forgotten in English, asked about in German
banking77        groups of intents, and one intent against adjacent intents
ten requests     three people, an author of TOFU, three of the demo, two topics and an article in one store
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from benchmarks.detector.tasks import load_task
from benchmarks.gate.disguises import read, tasks
from benchmarks.gate.neighbours import articles, rates
from benchmarks.gate.speed import build
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.data.fictitious import build_world
from o3_lightning.data.words import ATTRIBUTES
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector, load_encoder
from o3_lightning.gating.model import GatedModel

BOUNDS = {
    "harmless: refused by each request": 0.002,
    "translations: found": 0.95,
    "translations: others refused": 0.01,
    "ten requests: near, mean weight": 0.03,
    "ten requests: held out of names, mean weight": 0.93,
}
TEXTS, SHORTEST, LONGEST, BATCH, HALF = 500, 50, 1_500, 20, 0.5
SEEDS, SAMPLE, DIGITS = (0, 1, 2), 250, 4
CHEMISTRY, KITCHEN = "ScienceQA chemistry", "clinc kitchen_and_dining"
TEMPLATES = {
    "German": ("Wann wurde {} geboren?", "Wofür ist {} bekannt?", "Welchen Preis hat {} gewonnen?"),
    "Spanish": ("¿Cuándo nació {}?", "¿Por qué es famoso {}?", "¿Qué premio ganó {}?"),
    "French": ("Quand {} est-il né ?", "Pourquoi {} est-il connu ?", "Quel prix {} a-t-il gagné ?"),
    "Italian": ("Quando è nato {}?", "Per cosa è noto {}?", "Quale premio ha vinto {}?"),
    "Turkish": ("{} ne zaman doğdu?", "{} neyle tanınır?", "{} hangi ödülü kazandı?"),
    "Russian": ("Когда родился {}?", "Чем известен {}?", "Какую премию получил {}?"),
    "Chinese": ("{}是什么时候出生的？", "{}因什么而出名？", "{}获得过什么奖？"),
}
GROUPS = {
    "cards": ("card_arrival", "card_linking", "card_about_to_expire", "card_delivery_estimate",
              "card_not_working", "card_swallowed", "card_acceptance", "compromised_card"),
    "cash": ("cash_withdrawal_charge", "declined_cash_withdrawal", "cash_withdrawal_not_recognised",
             "atm_support"),
    "exchange": ("exchange_charge", "exchange_via_app", "exchange_rate", "card_payment_wrong_exchange_rate",
                 "fiat_currency_support"),
}  # fmt: skip
ADJACENT = {
    "card_arrival": ("card_delivery_estimate", "get_physical_card"),
    "exchange_rate": ("exchange_charge", "exchange_via_app", "card_payment_wrong_exchange_rate"),
    "failed_transfer": ("declined_transfer", "cancel_transfer", "beneficiary_not_allowed"),
}


def gate(requests: dict[str, list[str]], seed: int = 0) -> GatedModel:
    """A gated model with one detector a request."""
    encoder = load_encoder("minilm")
    fitted = {
        f"r{number}": fit_detector(encoder, prompts, DetectorConfig(), seed)
        for number, prompts in enumerate(requests.values())
    }
    return build(len(fitted), MultiDetector(encoder, fitted))


def joined(rows: Sequence[str], count: int, draw: random.Random) -> list[str]:
    """Texts of 50 to 1,500 words, of rows in a random order."""
    texts = []
    for _ in range(count):
        words: list[str] = []
        length = round(SHORTEST * (LONGEST / SHORTEST) ** draw.random())
        while len(words) < length:
            words += draw.choice(rows).split(" ")
        texts.append(" ".join(words[:length]))
    return texts


def passages(documents: Sequence[str], count: int, draw: random.Random) -> list[str]:
    """Adjacent lines of long documents, 50 to 1,500 words each."""
    texts = []
    while len(texts) < count:
        lines = draw.choice(documents).splitlines(keepends=True)
        length = round(SHORTEST * (LONGEST / SHORTEST) ** draw.random())
        start, kept = draw.randrange(len(lines)), ""
        for line in lines[start:]:
            kept += line
            if len(kept.split()) >= length:
                texts.append(kept)
                break
    return texts


def package_files(endings: tuple[str, ...]) -> list[str]:
    """Contents of the licences or descriptions that installed packages bring, in a fixed order."""
    paths = sorted(
        {
            str(file.locate())
            for package in distributions()
            for file in package.files or ()
            if file.name.upper().startswith(endings) and file.suffix in {"", ".txt", ".md", ".rst"}
        }
    )
    texts = [Path(path).read_text(errors="replace") for path in paths if Path(path).is_file()]
    return sorted({text for text in texts if len(text.split()) >= SHORTEST})


def harmless_texts() -> dict[str, list[str]]:
    """Texts by source; none of them is about a request, or names one of its people in full."""
    draw = random.Random(0)
    people = {row["name"] for row in read("real_world/forget.jsonl")}

    def pairs(rows: Sequence[dict[str, str]]) -> list[str]:
        texts = [f"{row['question']} {row['answer']}" for row in rows]
        return [text for text in texts if not any(name in text for name in people)]

    science = read("scienceqa/not_biology_physics_chemistry_test.jsonl")
    rows = {
        "authors of TOFU": pairs(read("tofu/retain90.json")),
        "other people": pairs(read("real_world/neighbor.jsonl")),
        "XQuAD, English": pairs(read("xquad/en.jsonl")),
        "XQuAD, German": pairs(read("xquad/de.jsonl")),
        "requests to a bank": [row["text"] for row in read("banking77/train.jsonl")],
        "other domains of CLINC150": [
            row["text"] for row in read("clinc150/train.jsonl") if row["domain"] != "kitchen_and_dining"
        ],
        "other lessons of ScienceQA": [row["instruction"] for row in science],
        "documentation of packages": package_files(("METADATA", "README")),
        "licences": package_files(("LICENSE", "LICENCE", "COPYING", "NOTICE")),
    }
    long = {"documentation of packages", "licences"}
    return {
        kind: (passages if kind in long else joined)(texts, -(-TEXTS // len(rows)), draw)
        for kind, texts in rows.items()
    }


def measure_harmless() -> dict[str, Any]:
    """How many harmless texts each request refuses, by source and in all."""
    known = tasks()
    requests = {name: known[name].forget for name in ("demo", "tofu", "people", KITCHEN)}
    requests[CHEMISTRY] = list(load_task("scienceqa_chemistry", Path(os.environ["O3_DATA"]), 0).requests[0])
    gated, found, kept = gate(requests), {}, []
    for kind, texts in harmless_texts().items():
        weights = torch.cat([gated.weights(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)])
        kept.append(weights)
        refused = (weights >= HALF).sum(dim=0).tolist()
        found[kind] = {"texts": len(texts), "refused": dict(zip(requests, refused, strict=True))}
    weights = torch.cat(kept)
    share = (weights >= HALF).float().mean(dim=0).tolist()
    return {
        "texts": len(weights),
        "refused": {name: round(value, DIGITS) for name, value in zip(requests, share, strict=True)},
        "by_source": found,
    }


def measure_translations() -> dict[str, Any]:
    """How many questions in other languages are found about a request's people, and refused about others."""
    known, world, rows = tasks(), build_world(0), {}
    people = [row["name"] for row in read("real_world/neighbor.jsonl")]
    names = {
        "demo": ([author.name for author in world.authors[:4]], [a.name for a in world.authors[8:]]),
        "people": (sorted({row["name"] for row in read("real_world/forget.jsonl")}), sorted(set(people))),
        "tofu": (["Basil Mahfouz Al-Kuwaiti"], ["Jaime Vasquez", "Chukwu Akabueze", "Evelyn Desmet"]),
    }
    for request, (own, others) in names.items():
        gated = gate({request: known[request].forget})
        rows[request] = {
            language: {
                side: rates(gated, [template.format(name) for template in templates for name in who])
                for side, who in (("own", own), ("others", others))
            }
            for language, templates in TEMPLATES.items()
        }
    return rows


def measure_translated_rows() -> dict[str, Any]:
    """How many German questions are found of an article that is forgotten in English, and of the others."""
    english, german = (read(f"xquad/{language}.jsonl") for language in ("en", "de"))
    asked: dict[str, list[float]] = {"same article": [], "other articles": []}
    for article in sorted({row["article"] for row in english})[::4]:
        gated = gate({article: [row["question"] for row in english if row["article"] == article]})
        for kind, weights in asked.items():
            same = kind == "same article"
            texts = [row["question"] for row in german if (row["article"] == article) == same]
            weights += gated.weights(texts if same else texts[::8])[:, 0].tolist()
    return {
        kind: {
            "prompts": len(weights),
            "refused": round(sum(weight >= HALF for weight in weights) / len(weights), DIGITS),
        }
        for kind, weights in asked.items()
    }


def measure_banking() -> dict[str, Any]:
    """Groups of intents against the other intents, and one intent against adjacent ones."""
    train, test = read("banking77/train.jsonl"), read("banking77/test.jsonl")

    def of(rows: Sequence[dict[str, str]], intents: Sequence[str], inside: bool = True) -> list[str]:
        return [row["text"] for row in rows if (row["intent"] in intents) == inside]

    def measure(own: Sequence[str], adjacent: Sequence[str]) -> dict[str, Any]:
        encoder = load_encoder("minilm")
        detector = fit_detector(encoder, of(train, own), DetectorConfig(), 0)
        gated = build(1, MultiDetector(encoder, {"r0": detector}))
        far = of(test, (*own, *adjacent), inside=False)
        texts = {"held_out": of(test, own), "near": random.Random(0).sample(far, SAMPLE)}
        texts |= {"adjacent": of(test, adjacent)} if adjacent else {}
        figures = {kind: rates(gated, asked) for kind, asked in texts.items()}
        return figures | {"warnings": detector.report["warnings"]}

    rows = {f"group {name}": measure(intents, ()) for name, intents in GROUPS.items()}
    return rows | {f"intent {name}": measure((name,), adjacent) for name, adjacent in ADJACENT.items()}


def measure_ten() -> dict[str, Any]:
    """Ten unlike requests in one store, each with prompts of its own and of its surroundings."""
    data, world = Path(os.environ["O3_DATA"]), build_world(0)
    forget = read("real_world/forget_perturbed.jsonl")
    own: dict[str, list[str]] = {}
    held: dict[str, list[str]] = {}
    for name in ("Michael Crichton", "Sandra Bullock", "Neil Young"):
        own[name] = [row["question"] for row in forget if row["name"] == name]
        held[name] = [row["paraphrased_question"] for row in forget if row["name"] == name]
    tofu = load_task("tofu_forget01", data, 0)
    own["TOFU"], held["TOFU"] = tofu.requests[0], [*tofu.inside["held_out"], *tofu.inside["paraphrase"]]
    for author in world.authors[:3]:
        own[author.name] = [text.format(name=author.name) for each in ATTRIBUTES for text in each.seen]
        held[author.name] = [text.format(name=author.name) for each in ATTRIBUTES for text in each.held_out]
    near = {
        "other people": [row["question"] for row in read("real_world/neighbor_perturbed.jsonl")],
        "TOFU": tofu.outside["near"],
        "demo": [
            text.format(name=author.name)
            for author in world.authors[8:]
            for each in ATTRIBUTES
            for text in each.seen[:1]
        ],
    }
    for name, task in (("clinc", "clinc_kitchen_and_dining"), ("scienceqa", "scienceqa_chemistry")):
        topic = load_task(task, data, 0)
        own[name], held[name], near[name] = topic.requests[0], topic.inside["held_out"], topic.outside["near"]
    own["article"], held["article"], near["article"] = articles(data, "en", 1, 0)
    names = list(own)[: -len(("clinc", "scienceqa", "article"))]
    gated = gate(own)
    figures: dict[str, Any] = {"held_out": {}, "near": {}}
    for side, parts in (("held_out", held), ("near", near)):
        for name, texts in parts.items():
            chosen = random.Random(0).sample(texts, min(SAMPLE, len(texts)))
            weights = gated.weights(chosen)
            if side == "held_out":
                weights = weights[:, list(own).index(name), None]
            largest = weights.amax(dim=1)
            refused = float((largest >= HALF).float().mean())
            figures[side][name] = {
                "prompts": len(chosen),
                "mean": round(float(largest.mean()), DIGITS),
                "refused": round(refused, DIGITS),
            }
    counts = {name: row["prompts"] for name, row in figures["near"].items()}
    mean = sum(row["mean"] * row["prompts"] for row in figures["near"].values()) / sum(counts.values())
    found = [figures["held_out"][name]["mean"] for name in names]
    return figures | {
        "near_mean": round(mean, DIGITS),
        "held_out_names_mean": round(sum(found) / len(found), DIGITS),
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "translations": measure_translations,
    "ten requests": measure_ten,
    "banking77": measure_banking,
    "harmless": measure_harmless,
    "translated rows": measure_translated_rows,
}


def main() -> None:
    """Measures what the file lacks, and writes after each part."""
    torch.set_num_threads(1)
    path, wanted = Path(sys.argv[1]), sys.argv[2:] or list(PARTS)
    results = json.loads(path.read_text()) if path.exists() else {}
    for part in wanted:
        if part not in results:
            results[part] = PARTS[part]()
            results |= {"environment": describe_environment(), "bounds": BOUNDS}
            write_json(path, results)
            sys.stdout.write(f"{part} {json.dumps(results[part])}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
