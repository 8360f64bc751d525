"""Shows and keeps what was measured: a table on the terminal, JSON, and a plot."""

import json
from pathlib import Path
from typing import Any

GIT_FACTS = ("commit", "clean")
SAME_SHAPE = ("operation", "name", "sizes", "tuned")

OTHERS = ("official", "loop", "eager", "compiled", "base", "vllm", "sglang", "faiss")


def summary_table(results: dict[str, Any]) -> str:
    """Returns one line a case: device and host time, how many times longer others take, roofs, memory."""
    lines = [
        f"{'operation':22} {'shape':46} {'ours ms':>9} {'host ms':>9} "
        + " ".join(f"{name:>9}" for name in OTHERS)
        + "  copy %  matrix %  of bound %  ours MiB  eager MiB"
    ]
    for case in results["cases"]:
        shape = shape_text(case["name"], case["sizes"]) + " tuned" * bool(case.get("tuned"))
        median = case["median_ms"]
        if "ours" not in median:
            lines.append(f"{case['operation']:22} {shape:46} {case.get('error', 'wrong: not timed')}")
            continue
        factors = [_factor(median, name) for name in OTHERS]
        shares = (case["bandwidth_fraction"], case["matrix_fraction"], case["bound_ms"] / median["ours"])
        memory = (case["peak_mib"]["ours"], case["peak_mib"].get("eager", 0.0))
        lines.append(
            f"{case['operation']:22} {shape:46} {median['ours']:9.3f} {_host(case):>9} "
            + " ".join(f"{factor:>9}" for factor in factors)
            + " {:7.1%} {:9.1%} {:11.1%} {:9.1f} {:10.1f}".format(*shares, *memory)
        )
    return "\n".join(lines) + "\n"


def _host(case: dict[str, Any]) -> str:
    """Returns how long the host is busy with ours; on a CPU that is its time."""
    host = case["host_ms"]["ours"]
    return "-" if host is None else f"{host:.3f}"


def _factor(median: dict[str, float], name: str) -> str:
    """Returns how many times longer a variant takes than ours."""
    return f"{median[name] / median['ours']:.2f}x" if name in median else "-"


def shape_text(name: str, sizes: dict[str, int]) -> str:
    """Returns what a line of the table says of a shape."""
    return " ".join([name, *(f"{key}={value}" for key, value in sizes.items() if key not in "LDMO")])


def earlier_results(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the results in a file, with new facts, if they were measured under the same ones.

    Another commit is no other fact: the digest of the source is one. Results under other facts are put aside.
    """
    if not path.exists():
        return None
    earlier: dict[str, Any] = json.loads(path.read_text())
    if all(earlier.get(name) == value for name, value in facts.items() if name not in GIT_FACTS):
        return {**earlier, **facts}
    place = 0
    while (aside := path.with_suffix(f".json.{place}")).exists():
        place += 1
    path.rename(aside)
    return None


def is_measured(results: dict[str, Any], shape: dict[str, Any]) -> bool:
    """Tells whether the results hold the time of ours for a shape's operation, name and sizes."""
    return any(_is_same(case, shape) and "ours" in case["median_ms"] for case in results["cases"])


def put_result(results: dict[str, Any], result: dict[str, Any]) -> None:
    """Puts the result of a shape, instead of an older one, into the results."""
    results["cases"] = [case for case in results["cases"] if not _is_same(case, result)] + [result]


def _is_same(case: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tells whether two results are of one shape."""
    return all(case.get(field) == other.get(field) for field in SAME_SHAPE)


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes the results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def write_plot(path: Path, results: dict[str, Any]) -> Path | None:
    """Draws rooflines and speed-ups beside the JSON; returns None without matplotlib or without times."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    timed = [case for case in results["cases"] if "ours" in case["median_ms"]]
    if not timed:
        return None
    figure = Figure(figsize=(14, 6), layout="constrained")
    roofline, speed = figure.subplots(1, 2)
    _draw_roofline(roofline, timed, results["roofs"])
    _draw_speed(speed, timed)
    figure.suptitle(f"{results['device']}, torch {results['torch']}")
    figure.savefig(path.with_suffix(".png"), dpi=110)
    return path.with_suffix(".png")


def _draw_roofline(axes: Any, cases: list[dict[str, Any]], roofs: dict[str, float]) -> None:
    """Achieved GFLOP/s over FLOPs per byte, under the measured roofs."""
    intensities = [case["flops"] / case["bytes"] for case in cases]
    span = [min(intensities) / 2, max(intensities) * 2]
    axes.plot(span, [roofs["copy_gb_s"] * x for x in span], "k--", label="measured copy bandwidth")
    for name, rate in roofs.items():
        if name.startswith("matmul"):
            kind = name.removeprefix("matmul_").removesuffix("_tflop_s")
            axes.axhline(rate * 1e3, linestyle=":", color="gray", label=f"measured {kind} products")
    for operation in sorted({case["operation"] for case in cases}):
        own = [case for case in cases if case["operation"] == operation]
        x = [case["flops"] / case["bytes"] for case in own]
        axes.scatter(x, [case["flops"] / case["median_ms"]["ours"] / 1e6 for case in own], label=operation)
    axes.set(
        xscale="log", yscale="log", xlabel="FLOPs per byte", ylabel="GFLOP/s", title="Ours under the roofs"
    )
    axes.legend(fontsize=8)


def _draw_speed(axes: Any, cases: list[dict[str, Any]]) -> None:
    """How many times longer each other way takes, one mark a case."""
    for name in OTHERS:
        points = [
            (place, case["median_ms"][name] / case["median_ms"]["ours"])
            for place, case in enumerate(cases)
            if name in case["median_ms"]
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), label=name, s=18)
    axes.axhline(1, color="k", linewidth=0.8)
    axes.set(yscale="log", ylabel="times the duration of ours", title="Speed-up")
    names = [
        f"{c['operation']} {c['name']} " + " ".join(f"{k}{v}" for k, v in c["sizes"].items() if k in "BKP")
        for c in cases
    ]
    axes.set_xticks(range(len(cases)), names, rotation=90, fontsize=6)
    axes.legend(fontsize=8)
