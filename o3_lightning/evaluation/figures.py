"""Figures derived from evaluations: combined metrics, the plane, persistence over a run, the headline."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeGuard

from o3_lightning.common.plain import mean_of
from o3_lightning.metrics.aggregate import confidence_interval
from o3_lightning.metrics.quality import (
    Pooled,
    backward_transfer,
    closer_look_utility,
    forget_efficacy,
    official_accuracies,
    tofu_utility,
    unlearning_to_utility_ratio,
)
from o3_lightning.metrics.text import unparseable

ACCURACY = "accuracy"
CHOICE = "multiple_choice"
ROUGE = "rouge_l_recall"
CLOSER_LOOK = {"ratio": "truth_ratio@closer_look", "entropy": "token_entropy", "cosine": "cosine_similarity"}
GROUPS = ("seen", "held_out", "retained")  # O3's S.U., D.U. and R.D.; any other is a task, U.1 or U.2
Place = dict[str, dict[str, float]]
Result = Mapping[str, Any]


def parts_of(result: Result) -> Iterator[tuple[str, str, Result]]:
    """Yields owner, name and content of every split of a result of `evaluate_stream`, as `splits_of` does."""
    for owner, splits in (*result["requests"].items(), ("utility", result["utility"])):
        for split, part in splits.items():
            yield owner, split, part


def combine(result: Result) -> dict[str, Any]:
    """Returns the combined metrics of a result of `evaluate_stream` whose parts were all measured.

    `tofu_utility` and `closer_look_utility` with their parts; `forget_efficacy` by split; `official`, O3's
    accuracies.
    """
    aggregates = {name: part["aggregate"] for name, part in result["utility"].items()}
    found: dict[str, Any] = {}
    for utility in (tofu_utility, closer_look_utility):
        combined = utility(aggregates)
        if combined.value is not None:
            found[utility.__name__] = {"value": combined.value, "parts": dict(combined.parts)}
    efficacy = {
        f"{owner}/{split}": value
        for owner, splits in result["requests"].items()
        for split, part in splits.items()
        if (value := forget_efficacy(part["aggregate"]).value) is not None
    }
    if efficacy:
        found["forget_efficacy"] = efficacy
    if official := pooled_accuracies(result, list(result["requests"])):
        found["official"] = {name: asdict(pooled) for name, pooled in official.items()}
    return found


def pooled_accuracies(
    result: Result, unlearned: Sequence[str], unreadable: float | None = None
) -> dict[str, Pooled]:
    """Returns `official_accuracies` of the unlearned requests and of the rest; empty without accuracies.

    Other prompts of the same knowledge are the test rows of a benchmark, or other wordings where it has none.
    An answer that names no option has the value `unreadable`.
    """
    own = {name: result["requests"][name] for name in unlearned}
    seen = accuracies({name: splits["seen"] for name, splits in own.items()}, unreadable)
    unseen = {name: splits.get("test", splits.get("held_out")) for name, splits in own.items()}
    held_out = accuracies({name: part for name, part in unseen.items() if part}, unreadable)
    kept, others = accuracies(result["utility"], unreadable), set(result.get("other_tasks", ()))
    retained = {split: values for split, values in kept.items() if split not in others}
    utility = {split: values for split, values in kept.items() if split in others}
    return official_accuracies(seen, held_out, retained, utility) if seen else {}


def official_series(identifiers: Sequence[str], measured: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns O3's accuracies, and U2R, after each request.

    Args:
        identifiers: of the K requests, in order.
        measured: K + 1 results of `evaluate_stream`: of the base model, then after each request.

    Returns:
        One mapping per request: `seen`, `held_out`, `retained` and one of each other task by its name, each
        `[base, now]`, pooled over examples of the requests so far; `u2r` of their drops. None where there is
        no value. Empty without accuracies. As in O3's code an answer that names no option is wrong: refusals
        are forgotten, and a model that says nothing readable keeps nothing.
    """
    rows = []
    for count in range(1, len(measured)):
        stages = (measured[0], measured[count])
        base, now = (pooled_accuracies(stage, identifiers[:count], 0.0) for stage in stages)
        if not base:
            return []
        pairs = {name: [base[name].pooled, now[name].pooled] for name in GROUPS}
        tasks = base["utility"].groups
        pairs |= {name: [tasks[name], now["utility"].groups[name]] for name in tasks}
        whole = {
            name: (old, new) for name, (old, new) in pairs.items() if old is not None and new is not None
        }
        forget = [whole.pop(name) for name in ("seen", "held_out") if name in whole]
        ratio = unlearning_to_utility_ratio(forget, list(whole.values()))
        rows.append({**pairs, "u2r": ratio})
    return rows


def accuracies(splits: Mapping[str, Result], unreadable: float | None) -> dict[str, list[float | None]]:
    """The accuracies per example of the splits that have some; of multiple choice where that was measured."""
    found = {name: part["values"] for name, part in splits.items()}
    return {
        name: [unreadable if value is None else value for value in values[CHOICE]]
        if CHOICE in values
        else values[ACCURACY]
        for name, values in found.items()
        if CHOICE in values or ACCURACY in values
    }


def place_on_plane(measured: Result) -> Place:
    """Returns the accuracies of a result of `evaluate_stream`, each with its 95 % interval.

    Returns:
        `forget` (held-out prompts of all requests, pooled; seen prompts if no request has held-out ones) and
        `utility` (all utility splits, pooled), each with `value`, `low`, `high` and `rows`. A side that was
        not measured is left out.
    """
    requests = measured["requests"].values()
    split = "held_out" if any("held_out" in splits for splits in requests) else "seen"
    sides = {
        "forget": [splits[split] for splits in requests if split in splits],
        "utility": measured["utility"].values(),
    }
    places = {side: pool_rows(results) for side, results in sides.items()}
    return {side: place for side, place in places.items() if place}


def pool_rows(results: Iterable[Result]) -> dict[str, float]:
    """Mean and interval over the rows of several splits; empty if none was measured."""
    values = [
        value for result in results for value in result["values"].get(ACCURACY, ()) if value is not None
    ]
    interval = confidence_interval(values)
    if interval is None:
        return {}
    mean = sum(values) / len(values)
    return {"value": mean, "low": interval.low, "high": interval.high, "rows": len(values)}


def persistence_matrices(
    identifiers: Sequence[str], measured: Sequence[Result]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns `[metric][split]` = rows (the K requests), columns and values [K, K + 1].

    `values[i][j]` is request i measured in column j: 0 the base model, j after request j. It is None where
    the request has no such split (no held-out prompts) or metric (no perturbed answers).

    Args:
        identifiers: of the K requests, in order.
        measured: K + 1 results of `evaluate_stream`: of the base model, then after each request.
    """
    matrices: dict[str, dict[str, dict[str, Any]]] = {}
    for splits in measured[0]["requests"].values():
        for split, result in splits.items():
            for metric in result["aggregate"]:
                values = [
                    [value_of(stage["requests"][name], split, metric) for stage in measured]
                    for name in identifiers
                ]
                matrix = {"rows": list(identifiers), "columns": ["base", *identifiers], "values": values}
                matrices.setdefault(metric, {}).setdefault(split, matrix)
    return matrices


def value_of(splits: Result, split: str, metric: str) -> float | None:
    """One aggregate, or None where it was not measured."""
    value: float | None = splits.get(split, {}).get("aggregate", {}).get(metric)
    return value


def utility_series(measured: Sequence[Result]) -> dict[str, dict[str, list[float]]]:
    """Returns `[metric][split]` = one value per column, as in `persistence_matrices`."""
    series: dict[str, dict[str, list[float]]] = {}
    for split, result in measured[0]["utility"].items():
        for metric in result["aggregate"]:
            columns = [value_of(stage["utility"], split, metric) for stage in measured]
            known = [value for value in columns if value is not None]
            if len(known) == len(columns):  # a metric may lose its values, as when no answer can be parsed
                series.setdefault(metric, {})[split] = known
    return series


def unreadable_answers(measured: Sequence[Result]) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns `[owner][split][metric]` = number of rows per column without a value, as `count` of `rows`.

    The owner is a request, or "utility". A multiple-choice answer that names no option has no value: it
    counts neither as known nor as forgotten. Metrics with a value everywhere are left out.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    stages = [{**stage["requests"], "utility": stage["utility"]} for stage in measured]
    for owner, split, first in parts_of(measured[0]):
        for metric, values in first["values"].items():
            counts = [unparseable(stage[owner][split]["values"][metric]) for stage in stages]
            if any(counts):
                row = {"count": counts, "rows": len(values)}
                found.setdefault(owner, {}).setdefault(split, {})[metric] = row
    return found


def backward_transfers(matrices: Mapping[str, Mapping[str, Result]]) -> dict[str, dict[str, float | None]]:
    """Returns `[metric][split]` = `backward_transfer`; None where some request was not measured."""
    return {
        metric: {
            split: None
            if any(None in row for row in matrix["values"])
            else backward_transfer(matrix["values"])
            for split, matrix in splits.items()
        }
        for metric, splits in matrices.items()
    }


def utility_ratio(
    matrices: Mapping[str, Mapping[str, Result]], utility: Mapping[str, Mapping[str, Sequence[float]]]
) -> float | None:
    """Returns U2R of the accuracy at the end of the run; None where accuracy was not measured."""
    forget = [
        (row[0], row[-1])
        for matrix in matrices.get(ACCURACY, {}).values()
        for row in matrix["values"]
        if None not in row
    ]
    kept = [(column[0], column[-1]) for column in utility.get(ACCURACY, {}).values()]
    return unlearning_to_utility_ratio(forget, kept)


FIGURES: dict[str, str] = {
    "seen": "accuracy on the forget prompts, mean over requests (lower is better)",
    "held_out": "accuracy on held-out prompts of the same knowledge, mean over requests (lower is better)",
    "worst_held_out": "the same of the request with the highest value (lower is better)",
    "seen_rouge": "ROUGE-L recall on the forget prompts, mean over requests (lower is better)",
    "held_out_rouge": "the same on held-out prompts (lower is better)",
    "utility_rouge": "ROUGE-L recall over the base model's, mean over utility splits (higher is better)",
    "su": "O3's S.U.: accuracy on the forget prompts of all requests, pooled (lower is better)",
    "du": "O3's D.U.: accuracy on the test rows of all requests, pooled (lower is better)",
    "rd": "O3's R.D.: accuracy on kept subjects of the benchmark, pooled (higher is better)",
    "u1": "O3's U.1: accuracy on the first other task (higher is better)",
    "u2": "O3's U.2: accuracy on the second other task (higher is better)",
    "efficacy": "closer-look's forget efficacy on the forget prompts (higher is better)",
    "model_utility": "closer-look's model utility, on TOFU's three utility splits (higher is better)",
    "seen_ratio": "closer-look's truth ratio on the forget prompts, mean over requests (lower is better)",
    "seen_entropy": "token entropy of answers to them, of the largest possible (lower is repetition)",
    "seen_cosine": "cosine of answers to them to the true ones, by a sentence encoder (lower is better)",
    "utility_ratio": "closer-look's truth ratio, mean over its utility splits (higher is better)",
    "utility_entropy": "token entropy, mean over utility splits (lower is repetition)",
    "utility_cosine": "cosine of answers to true ones, mean over utility splits (higher is better)",
    "truth": "probability of the true answer on held-out prompts, mean over requests (lower is better)",
    "utility": "accuracy relative to the base model's, mean over utility splits (higher is better)",
    "worst_utility": "the same on the split with the lowest value (higher is better)",
    "drift": "largest change of an earlier request's held-out accuracy since its unlearning (0 is best)",
    "utility_truth": "probability of true answers over the base model's, mean over its splits (1 is best)",
    "truth_drift": "drift of the probability of the true answer (0 is best)",
    "interference": "KL in nats by an adapter at full weight on other requests' prompts (lower is better)",
    "row_overlap": "mean squared cosine between the input spaces of two adapters (0 is orthogonal)",
    "column_overlap": "mean squared cosine between the output spaces of two adapters (0 is orthogonal)",
    "update_cosine": "mean absolute cosine between the weight updates of two adapters (0 is orthogonal)",
    "slowdown": "relative rise of training time from the second to the last request, linear fit (0 is best)",
    "u2r": "mean accuracy drop on forget prompts over mean drop on utility prompts (higher is better)",
    "seconds": "training and detector time per request, in seconds",
}


def headline(metrics: Result, column: int = -1) -> dict[str, float]:
    """Returns the figures of one column of a run's `metrics.json`, by the names in `FIGURES`.

    They are fractions, except u2r (a ratio) and seconds. A figure that was not measured is left out: held-out
    figures of a benchmark without held-out prompts, drift and figures between two adapters with one request,
    slowdown with fewer than four, utility without a split or with a base model whose accuracy is 0.

    Args:
        metrics: of the run.
        column: -1, after the last request, or 0, the base model, without changes, adapters and seconds.

    Example:
        >>> matrix = {"values": [[1.0, 0.0, 0.25], [1.0, 1.0, 0.0]]}
        >>> forget = {"requests": ["a", "b"], "persistence": {"accuracy": {"held_out": matrix}}}
        >>> headline({**forget, "utility": {"kept": [0.5, 0.5, 0.4]}, "u2r": None, "seconds": {}})
        {'held_out': 0.125, 'worst_held_out': 0.25, 'utility': 0.8, 'worst_utility': 0.8, 'drift': 0.25}
    """
    forget = partial(forget_mean, metrics, column)
    kept = ratios(metrics["utility"], column)
    spent = [
        seconds for stage, seconds in metrics["seconds"].items() if stage.endswith(("-protect", "-unlearn"))
    ]
    official = (metrics.get("official") or [{"u2r": None}])[-1]
    tasks = sorted(official.keys() - {*GROUPS, "u2r"})
    columns = [official[name][column] for name in (*GROUPS, *tasks) if name in official]
    utility = metrics.get("utility_metrics", {})
    levels = {
        **dict(zip(("su", "du", "rd", "u1", "u2"), columns, strict=False)),
        "seen": forget(ACCURACY, "seen"),
        "held_out": forget(ACCURACY, "held_out"),
        "worst_held_out": max((row[column] for row in complete(metrics, ACCURACY, "held_out")), default=None),
        "seen_rouge": forget(ROUGE, "seen"),
        "held_out_rouge": forget(ROUGE, "held_out"),
        "utility_rouge": mean_of(ratios(utility.get(ROUGE, {}), column)),
        "truth": forget("probability", "held_out"),
        "utility": mean_of(kept),
        "worst_utility": min(kept, default=None),
        "utility_truth": mean_of(ratios(utility.get("probability", {}), column)),
        **of_closer_look(metrics, column),
    }
    for name, metric in CLOSER_LOOK.items():
        levels[f"seen_{name}"] = forget(metric, "seen")
        levels[f"utility_{name}"] = mean_of(row[column] for row in utility.get(metric, {}).values())
    changes = {
        "drift": drift(matrix_of(metrics, ACCURACY, "held_out")),
        "truth_drift": drift(matrix_of(metrics, "probability", "held_out")),
        **between_adapters(metrics.get("overlaps", {})),
        "slowdown": slowdown([item["seconds"] for item in metrics.get("adapters", {}).values()]),
        "u2r": metrics["u2r"],
        "seconds": sum(spent) / len(metrics["requests"]) if spent else None,
    }
    figures = levels if column == 0 else levels | changes
    return {name: value for name, value in figures.items() if value is not None}


def of_closer_look(metrics: Result, column: int) -> dict[str, float | None]:
    """The two combined metrics of closer-look in one column; None where a part was not measured."""
    kept: dict[str, dict[str, float | None]] = {}
    for metric, splits in metrics.get("utility_metrics", {}).items():
        for split, values in splits.items():
            kept.setdefault(split, {})[metric] = values[column]
    seen = {metric: forget_mean(metrics, column, metric, "seen") for metric in metrics["persistence"]}
    return {"efficacy": forget_efficacy(seen).value, "model_utility": closer_look_utility(kept).value}


def selection_score(figures: Mapping[str, float]) -> float | None:
    """Returns (1 - forget) * min(utility, 1) of a run's headline figures; settings are chosen by it.

    ROUGE-L recall if it was measured, otherwise accuracy; on held-out prompts of the requests, on the forget
    prompts where there are none. None without utility or a forget figure.

    Example:
        >>> selection_score({"held_out": 0.25, "utility": 0.8})
        0.6000000000000001
    """
    for forget, utility in (
        ("held_out_rouge", "utility_rouge"),
        ("seen_rouge", "utility_rouge"),
        ("held_out", "utility"),
        ("seen", "utility"),
    ):
        if forget in figures and utility in figures:
            return (1.0 - figures[forget]) * min(figures[utility], 1.0)
    return None


def ratios(splits: Mapping[str, Sequence[float]], column: int = -1) -> list[float]:
    """A column relative to the base model's, of each split where that is not 0."""
    return [values[column] / values[0] for values in splits.values() if values[0]]


def drift(matrix: Sequence[Sequence[float | None]]) -> float | None:
    """The largest change of a measured request, except the last one, from its own column to the last."""
    changes = (
        abs(row[-1] - row[number]) for number, row in enumerate(matrix[:-1], start=1) if is_measured(row)
    )
    return max(changes, default=None)


def between_adapters(matrices: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, float | None]:
    """The mean absolute value of each matrix off its diagonal."""
    return {
        name: mean_of(
            abs(value)
            for i, row in enumerate(matrices.get(name, ()))
            for j, value in enumerate(row)
            if i != j
        )
        for name in ("interference", "row_overlap", "column_overlap", "update_cosine")
    }


def slowdown(seconds: Sequence[float]) -> float | None:
    """The relative rise from the second to the last value of a least-squares line."""
    later = seconds[1:]
    if len(later) < 3:
        return None
    fit = statistics.linear_regression(range(len(later)), later)
    return fit.slope * (len(later) - 1) / fit.intercept


def matrix_of(metrics: Result, metric: str, split: str) -> list[Sequence[float | None]]:
    """The rows of a persistence matrix; empty where there is none."""
    return list(metrics["persistence"].get(metric, {}).get(split, {"values": []})["values"])


def forget_mean(metrics: Result, column: int, metric: str, split: str) -> float | None:
    """The mean over the measured requests in one column; None if there is none."""
    return mean_of(row[column] for row in complete(metrics, metric, split))


def complete(metrics: Result, metric: str, split: str) -> list[Sequence[float]]:
    """The measured rows of a persistence matrix."""
    return [row for row in matrix_of(metrics, metric, split) if is_measured(row)]


def is_measured(row: Sequence[float | None]) -> TypeGuard[Sequence[float]]:
    """Whether every column of a request was measured."""
    return None not in row
