"""The rows of the documentation's tables, each from one file of `results/`; the first cell names the row."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from scipy.stats import binomtest

from benchmarks.detector.measures import PAIRS, WEIGHTS, pair_cell, weight_cell

ROOT = Path(__file__).parents[1]
BESIDE = ("default", "cosine_maha_lexical", "paper_untrained", "official_untrained")
COMPARED = ("mdf", "agg")  # by O3 with its own; they have no weights
RELEASED = ("held_out", "seen", "others", "general")
SHARES = ("missed, names", "missed, topics", "stopped, names", "stopped, topics")
SIMULATED = "_simulated"
MODES = {
    "`per_request`, none": "per_request_none",
    "**`per_request`, input**": "per_request_input",
    "`per_request`, output": "per_request_output",
    "`per_request`, both": "per_request_both",
    "`per_request`, output, last request only (the paper)": "per_request_output_last",
    "`hard`, input": "hard_input",
    "`hard`, output": "hard_output",
    "`cumulative`, none": "cumulative_none",
    "`cumulative`, input (the official code)": "cumulative_input",
}
MODE_FIGURES = {"held_out": 3, "drift": 3, "utility_truth": 3, "interference": 2, "update_cosine": 3}
DISGUISED = {
    "demo": "made-up authors",
    "people": "ten real people",
    "tofu": "an author of TOFU",
    "mars": "Mars",
    "france": "France",
    "clinc kitchen_and_dining": "CLINC150 kitchen",
    "biology": "ScienceQA biology",
}
MOST_KINDS = 8  # named of those that are missed
NAMED = {"Mars": "mars", "Mozart": "mozart", "Toyota": "toyota", "the Nile": "nile", "France *": "france"}
NAME_FIGURES = ("held_out", "near", "auroc", "nameless")
ASKED = {
    "einstein": "Einstein",
    "moon": "the Moon",
    "photosynthesis": "photosynthesis",
    "neighbours": "neighbours: scientists, planets, space, cells",
    "general": "general questions",
}
FORMS = {"chat": "at the end of a chat of three turns", "system_prompt": "under a system prompt"}
ARTICLES = {
    "English, eight articles": "en, 8 articles",
    "German, eight articles": "de, 8 articles",
    "English, one article": "en, 1 articles",
    "German, one article": "de, 1 articles",
}

Row = list[str]


def results(name: str) -> dict[str, Any]:
    """Returns the content of a results file."""
    return dict(json.loads((ROOT / f"results/{name}.json").read_text(encoding="utf-8")))


def span(values: Iterable[float], form: str) -> str:
    """Returns the smallest and the largest of some values, once if they read the same."""
    ends = sorted(values)
    return " to ".join(dict.fromkeys(form.format(value) for value in (ends[0], ends[-1])))


def study(name: str) -> Callable[[], Iterator[Row]]:
    """Returns the rows of a study's own table."""

    def rows() -> Iterator[Row]:
        for line in (ROOT / f"results/{name}.md").read_text(encoding="utf-8").splitlines():
            if line.startswith("| `"):
                yield [cell.strip() for cell in line.split("|")[1:-1]]

    return rows


def detector_tasks() -> Iterator[Row]:
    """Yields the default detector on each task."""
    measured = results("detector")
    for task, by_detector in measured["tasks"].items():
        own = by_detector["default"]
        name = task if measured["roles"][task] == "development" else f"{task} *"
        weights = " / ".join(weight_cell(own.get(split)) for split in WEIGHTS)
        yield [name, *(pair_cell(own.get(pair)) for pair in PAIRS), weights]


def detectors_beside() -> Iterator[Row]:
    """Yields every preset on each task."""
    measured = results("detector")
    for task, by_detector in measured["tasks"].items():
        name = task if measured["roles"][task] == "development" else f"{task} *"
        found = [by_detector[label] for label in BESIDE]
        cells = [f"{pair_cell(one[PAIRS[0]])}, {weight_cell(one['near'])}" for one in found]
        yield [name, *cells, *(pair_cell(by_detector[label][PAIRS[0]]) for label in COMPARED)]


def disguises() -> Iterator[Row]:
    """Yields what the weights alone miss and stop wrongly under every kind of disguise, by request."""
    for name, task in results("gate_disguises")["test"].items():
        kinds = task["kinds"]
        sums = {
            side: sum(row[side] for row in kinds.values()) for side in ("missed", "own", "stopped", "others")
        }
        worst = sorted(kinds, key=lambda kind: (-kinds[kind]["missed"] / kinds[kind]["own"], kind))
        shown = [f"`{kind}`" for kind in worst[:MOST_KINDS] if kinds[kind]["missed"]]
        yield [
            DISGUISED.get(name, name),
            str(len(kinds)),
            f"{weight(sums['missed'] / sums['own'])} of {sums['own']}",
            f"{sums['stopped']} of {sums['others']}",
            ", ".join(shown) or "-",
        ]


def common_names() -> Iterator[Row]:
    """Yields requests about common names, without and with the channel that tells names apart."""
    measured = results("detector_names")
    for label, name in NAMED.items():
        ways = [measured["requests"][name][way] for way in ("without", "with")]
        cells = []
        for figure in NAME_FIGURES:
            found = [way[figure]["mean"] for way in ways if figure in way]
            shown = [f"{value:.1%}".rstrip("%") if figure == "auroc" else weight(value) for value in found]
            cells.append(" / ".join(shown) or "-")
        yield [label, str(measured["prompts"][name]["forget"]), *cells]


def weight(value: float) -> str:
    """Returns a mean weight, or a share, without the zero before the point."""
    return f"{value:.3f}".removeprefix("0")


def gate_scale() -> Iterator[Row]:
    """Yields the time of a prompt and the memory of the gate by the number of requests."""
    measured = results("detector_scale")
    for asked, times in measured["milliseconds_a_prompt"].items():
        for size, label in (("1", "one at a time"), ("32", "batches of 32")):
            found = in_order(times[f"batch of {size}"])
            yield [f"{asked}, {label}", *(f"{value:.1f}" for value in found), f"{found[-1] / found[0]:.1f}"]
    each = measured["memory_bytes_a_request"]
    sizes = zip(sorted(map(int, each)), in_order(each), strict=True)
    yield ["memory, MB", *(f"{count * size / 1e6:,.1f}" for count, size in sizes), ""]


def in_order(by_count: dict[str, float]) -> list[float]:
    """Returns values by the number that names them."""
    return [by_count[name] for name in sorted(by_count, key=int)]


def namesakes() -> Iterator[Row]:
    """Yields how many questions get a weight of a half or more, about a person and beside it."""
    measured = results("gate_neighbours")["namesakes"]
    for kind in measured["people"]:
        found = [measured[owner][kind] for owner in ("people", "tofu")]
        yield [kind, *(f"{count([one], 'refused', 'prompts')} of {one['prompts']}" for one in found)]


def articles() -> Iterator[Row]:
    """Yields the same about topics of ordinary words, as shares by seed."""
    measured = results("gate_neighbours")["xquad"]
    for label, name in ARTICLES.items():
        runs = [found for key, found in measured.items() if key.startswith(f"{name}, seed")]
        splits = ("held_out", "near")
        yield [label, *(", ".join(share(run[split]["refused"]) for run in runs) for split in splits)]


def share(value: float) -> str:
    """Returns a share with three digits at most, without the zero before the point."""
    return f"{value:.3g}".removeprefix("0") if 0 < value < 1 else f"{value:.0f}"


def texts() -> Iterator[Row]:
    """Yields what the gate does with harmless texts, other languages, many requests and intents."""
    measured = results("gate_texts")
    bounds = {name: share(value) for name, value in measured["bounds"].items()}
    harmless, many = measured["harmless"], measured["ten requests"]
    limit = measured["bounds"]["harmless: refused by each request"]
    shown = (
        f"**{name} {share(value)}**" if value > limit else f"{name} 0"
        for name, value in harmless["refused"].items()
    )
    yield [
        f"{harmless['texts']} harmless texts of 50 to 1,500 words from nine sources, refused by each request",
        bounds["harmless: refused by each request"],
        ", ".join(shown),
    ]
    languages = [one for owner in measured["translations"].values() for one in owner.items()]
    found = {}
    for language, one in languages:
        found.setdefault(language, []).append(one["own"]["refused"])
    least = {language: min(values) for language, values in found.items()}
    rest = ", ".join(f"{language} {share(value)}" for language, value in least.items() if value < 1)
    yield [
        "questions in seven languages, the name intact: found, least of three requests",
        bounds["translations: found"],
        f"1; {rest}" if rest else "1",
    ]
    others = [one["others"] for _, one in languages]
    yield [
        "the same questions about others: refused",
        bounds["translations: others refused"],
        f"{count(others, 'refused', 'prompts')} of {sum(one['prompts'] for one in others)}",
    ]
    yield [
        "ten unlike requests in one store: mean weight of what stands beside them",
        bounds["ten requests: near, mean weight"],
        f"{share(round(many['near_mean'], 3))} (most: "
        f"{max((one['mean'], name) for name, one in many['near'].items())[1]}, "
        f"{share(max(one['mean'] for one in many['near'].values()))})",
    ]
    yield [
        "the same: mean weight of held-out questions about names",
        bounds["ten requests: held out of names, mean weight"],
        share(round(many["held_out_names_mean"], 3)),
    ]
    for name, found in measured["banking77"].items():
        splits = [split for split in ("held_out", "near", "adjacent") if split in found]
        label = {"held_out": "held-out", "near": "other", "adjacent": "adjacent"}
        cells = ", ".join(f"{label[split]} {share(found[split]['refused'])}" for split in splits)
        yield [f"Banking77, {name.replace('_', ' ')}", "none set", cells]


def ablation() -> Iterator[Row]:
    """Yields what each rule of the detector moves, in percentage points; bold beyond two deviations."""
    both = [results("gate_ablation")[member] for member in ("development", "test")]
    yield [
        "as it is",
        *(f"{found['as it is'][side]['rate']:.1%}".rstrip("%") for found in both for side in SHARES),
    ]
    for rule in both[0]:
        if rule != "as it is":
            yield [
                rule,
                *(points(found[rule][side]) if rule in found else "–" for found in both for side in SHARES),
            ]


def points(found: dict[str, float]) -> str:
    """Returns a change with its deviation, in percentage points."""
    change, deviation = found["change"], found["deviation"]
    if not change:
        return "0"
    text = f"{100 * change:+.1f} ± {100 * deviation:.1f}"
    return f"**{text}**" if abs(change) > 2 * deviation else text


def true_answers() -> Iterator[Row]:
    """Yields what the check of answers stops of true answers, with its rule of names and without."""
    measured = [results("answer_gate")[member] for member in ("development", "test")]
    tables = [table for member in measured for rule in ("with", "without") for table in member[rule].values()]
    for form in tables[0]:
        yield [form, *(share(table[form]["stopped"]) for table in tables)]


def adapter_modes() -> Iterator[Row]:
    """Yields every mode and penalty with all adapters on."""
    variants = results("adapter_modes")["variants"]
    for label, name in MODES.items():
        figures = variants[name]["figures"]
        yield [
            label,
            *(
                f"{figures[figure]['mean']:.{digits}f} ± {figures[figure]['deviation']:.{digits}f}"
                for figure, digits in MODE_FIGURES.items()
            ),
        ]


def demo() -> Iterator[Row]:
    """Yields the demo's accuracies before and after its requests."""
    base, gated = (results("reference_demo")["models"][name]["aggregates"] for name in ("base", "gated"))
    for name, found in base.items():
        request, _, split = name.partition("/")
        if "accuracy" in found and split in ("", "held_out"):
            label = request if split else request.removesuffix("_held_out").replace("_", " ")
            yield [label, f"{found['accuracy']:.3f}", f"{gated[name]['accuracy']:.3f}"]


def reference() -> Iterator[Row]:
    """Yields the demo's models beside the one that never saw the requests."""
    measured = results("reference_demo")["models"]
    for label, name in (("base", "base"), ("ours", "gated"), ("retrained", "retrained")):
        plane = measured[name]["plane"].values()
        accuracies = [f"{one['value']:.3f} ({one['low']:.3f}–{one['high']:.3f})" for one in plane]
        compared = measured[name].get("comparison") or measured["base"]["comparison"]
        found = [one for split, one in compared.items() if split.endswith("/held_out")]
        losses = [one["membership"]["mia_loss"] for one in found]
        if name == "retrained":  # the reference itself
            auc = span((one["reference_auc"] for one in losses), "{:.3f}")
            yield [label, *accuracies, "0", "1", auc, "0 %"]
            continue
        distance = span((one["forget_quality"]["statistic"] for one in found), "{:.3f}")
        chance = span((one["forget_quality"]["p_value"] for one in found), "{:.0e}")
        leak = span((one["privacy_leak"] for one in losses), "{:+.0f}")
        auc = span((one["auc"] for one in losses), "{:.3f}")
        yield [label, *accuracies, distance, chance, auc, f"{leak} %"]


def nearness() -> Iterator[Row]:
    """Yields how near the demo's gated model is to the retrained one, by objective; other phrasings."""
    seeds = results("closeness_demo")["seeds"].values()
    for objective in dict.fromkeys(name for one in seeds for name in one):
        found = [one[objective] for one in seeds if objective in one]
        audits = [part for one in found for name, part in one["splits"].items() if name.endswith("held_out")]
        figures = ("nearer", "to_retrained", "to_original", "ks_retrained", "depth")
        cells = [span((part[figure] for part in audits), "{:.2f}") for figure in figures]
        sides = [f"{mean(one[name] for one in found):.2f}" for name in ("leak", "utility")]
        yield [f"`{objective}`", *cells, *sides]


def count(rows: Iterable[dict[str, Any]], share: str, of: str = "attempts") -> int:
    """Returns the number of cases behind the shares of some rows."""
    return sum(round((row[share] or 0) * row[of]) for row in rows)


def attack_members() -> Iterator[Row]:
    """Yields leaks and false alarms of the demo under all disguises, by kind of member."""
    table = results("robustness_demo")["table"]
    for member in ("development", "test"):
        rows = [row for row in table if row["member"] == member and row["attempts"]]
        kinds = len({row["attack"] for row in rows})
        leak, told = count(rows, "leak"), count(rows, "base_leak")
        one = [row for row in rows if row["request"] == rows[0]["request"]]  # the others ask the same
        alarms, others = count(one, "false_alarm", "others"), sum(row["others"] for row in one)
        yield [member, str(kinds), interval(leak, told), interval(alarms, others)]


def interval(found: int, cases: int) -> str:
    """Returns a count with its share and Wilson's interval of 95 %."""
    low, high = binomtest(found, cases).proportion_ci(method="wilson")
    shown = [f"{100 * value:.1f} %" for value in (found / cases, low, high)]
    return f"{found} of {cases}: {shown[0]} (95 %: {shown[1]} to {shown[2]})"


def attack_groups() -> Iterator[Row]:
    """Yields the groups of the test members, the worst first."""
    table = [
        row for row in results("robustness_demo")["table"] if row["member"] == "test" and row["attempts"]
    ]
    rows = {
        group: [row for row in table if row["group"] == group] for group in {row["group"] for row in table}
    }
    order = sorted(
        rows, key=lambda group: (-count(rows[group], "leak"), -count(rows[group], "base_leak"), group)
    )
    for group in order:
        found = rows[group]
        caught = sum(row["caught"] * row["attempts"] for row in found) / sum(row["attempts"] for row in found)
        kinds = len({row["attack"] for row in found})
        leak = f"{count(found, 'leak')} of {count(found, 'base_leak')}"
        yield [group, str(kinds), leak, f"{caught:.2f}"]


def attacked_sentences() -> Iterator[Row]:
    """Yields the groups of disguises around a model that answers in sentences, the worst first."""
    table = list(results("attacked_smollm2")["test"].values())
    groups: dict[str, list[dict[str, Any]]] = {"all": table}
    for row in table:
        groups.setdefault(row["group"], []).append(row)
    sums = {
        group: {name: sum(row[name] for row in rows) for name in rows[0] if isinstance(rows[0][name], int)}
        for group, rows in groups.items()
    }
    order = sorted(groups, key=lambda name: (name != "all", -sums[name]["leaked"], -sums[name]["told"], name))
    for label in order:
        found, rows = sums[label], groups[label]
        yield [
            label,
            str(len(rows)),
            f"{found['leaked']} of {found['told']}",
            f"{found['caught'] / found['attempts']:.2f}" if found["attempts"] else "–",
            f"{found['stopped']} of {found['others']}",
            f"{found['told_touched']} of {found['told']}",
        ]


def releases() -> Iterator[Row]:
    """Yields the accuracies after each release of an author."""
    for name, splits in results("release_authors")["after"].items():
        yield [name, *("{:.3f} ± {:.3f}".format(*splits[split]) for split in RELEASED)]


def weight_attacks(name: str) -> Callable[[], Iterator[Row]]:
    """Returns the rows of the attacks of those who have the weights, means over the requests of one run."""

    def rows() -> Iterator[Row]:
        table = [row for row in results(name)["table"] if row["group"] == "weights"]
        for attack in dict.fromkeys(row["attack"] for row in table):
            own = [row for row in table if row["attack"] == attack]
            figures = ("leak", "base_leak", "caught", "false_alarm", "utility", "base_utility")
            means = [mean(row[figure] for row in own) if figure in own[0] else None for figure in figures]
            yield [f"`{attack}`", *("–" if value is None else f"{value:.2f}" for value in means)]

    return rows


def weight_attacks_over_seeds() -> Iterator[Row]:
    """Yields the same over three seeds, with real quantisation."""
    for attack, found in results("attacks_demo")["table"].items():
        seeds = ", ".join(f"{value:.2f}" for value in found["leak_by_run"].values())
        worst, utility = found["worst_leak"], found["utility"]
        yield [f"`{attack}`", f"{found['leak']:.2f}", seeds, f"{worst:.2f}", f"{utility:.2f}"]


def counter_measures() -> Iterator[Row]:
    """Yields what relearning brings back under each counter-measure, means over the measured seeds."""
    for variant, found in results("relearning")["variants"].items():
        seeds = found["seeds"]
        told = [
            mean(row["leak"] for one in seeds.values() for row in one[f"relearn_{count}"])
            for count in (10, 50)
        ]
        sides = [
            mean(one[name] for one in seeds.values()) if all(name in one for one in seeds.values()) else None
            for name in ("gated_leak", "gated_utility", "merged_utility")
        ]
        cells = ["–" if value is None else f"{value:.2f}" for value in (*told, *sides)]
        yield [f"`{variant}`", ", ".join(seeds), *cells]


def real_model(name: str) -> Callable[[], Iterator[Row]]:
    """Returns the rows of a real model: its right answers before any request, after two, and after three."""

    def rows() -> Iterator[Row]:
        found = results("real_models")[name]
        for split, label in ASKED.items():
            values = [1.0, found["after_two"][split], found["after_three"][split]]
            yield [label, str(found["questions"][split]["known"]), *(f"{value:.2f}" for value in values)]
        for form, split in product(FORMS, found.get("chat", ())):
            cells = [f"{value:.2f}" for value in found[form][split].values()]
            yield [f"{ASKED[split]}, {FORMS[form]}", str(found["questions"][split]["known"]), *cells, "-"]

    return rows


def server() -> Iterator[Row]:
    """Yields the figures of the HTTP server."""
    found = results("serving")
    latency, speed, load = found["latency"], found["throughput"], found["load"]
    gated, bare, protection = latency["gated"], latency["without_gate"], found["protection"]
    yield [
        f"answer of {found['new_tokens']} tokens behind the gate of {found['requests']} requests, and by the "
        "same server with an empty store",
        f"p50 {gated['p50_s']:.2f} s and {bare['p50_s']:.2f} s (ratio {latency['ratio_p50']:.2f}), "
        f"p95 {gated['p95_s']:.2f} s and {bare['p95_s']:.2f} s (ratio {latency['ratio_p95']:.2f})",
    ]
    yield [
        "answers per second, 8 clients at once and one after the other",
        f"{speed['eight_clients_per_s']:.2f} and {speed['one_client_per_s']:.2f} (ratio "
        f"{speed['ratio']:.1f}), {speed['rows_per_batch']:.0f} rows a batch",
    ]
    yield [
        f"from `POST /requests` with {protection['prompts']} prompts to a refusal, while another client asks",
        f"{protection['refusal_s']:.1f} s, of which {protection['protected_s']:.1f} s until the request was "
        f"protected; {protection['failed_meanwhile']} calls of the other client failed",
    ]
    yield [
        f"{load['calls']:,} calls of 8 clients on a tiny model: good ones, malformed and oversized bodies, "
        "bad tokens, slow readers, hung-up streams",
        f"{load['seconds']:.0f} s; each got its status, all {load['outcomes']['forgotten refused: 200']:,} "
        f"forgotten prompts were refused, none of the {load['outcomes']['other answered: 200']:,} others; "
        f"memory of server and clients grew by {load['memory_growth_mib']:.0f} MiB",
    ]
