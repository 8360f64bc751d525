"""The page of the studies under `overlays/small`: `docs/results/small.md`, and a picture of each study.

`python -m benchmarks.tables` writes them from `results/`; a new study needs no change here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs/results"
FORGET, KEEP = ("held_out_rouge", "seen_rouge"), "utility_rouge"
LEAST_KEPT = 0.98
OURS = "ours"
HEAD = """# The papers' tables, small

Studies with `--config overlays/small`: SmolLM2-135M, taught a few rows of the benchmark, on one core. They
compare methods at one size, and few rows make single digits uncertain. [The papers' tables](papers.md) lists
the commands for GPUs. `python -m benchmarks.tables` writes this page from `results/`.
"""
STYLE: dict[Any, Any] = {"svg.hashsalt": "o3-lightning", "svg.fonttype": "none", "font.size": 9}
Plain = Mapping[str, Any]


def studies() -> Iterator[tuple[str, Plain]]:
    """Yields name and results of each study that was run under the small overlay."""
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and str(content.get("common", {}).get("name", "")).endswith("+_small"):
            yield path.stem, content


def places(content: Plain) -> dict[str, tuple[Plain, Plain]]:
    """Returns ROUGE-L on forgotten prompts and kept utility of each variant, as a study's figures."""
    found = {}
    for name, variant in content["variants"].items():
        figures = variant["figures"]
        forget = next((figures[key] for key in FORGET if key in figures), None)
        if forget is not None and KEEP in figures:
            found[name] = (forget, figures[KEEP])
    return found


def verdict(content: Plain) -> str:
    """Returns whether ours forgets most among the variants that keep at least 0.98 of the utility."""
    means = {name: (forget["mean"], kept["mean"]) for name, (forget, kept) in places(content).items()}
    if OURS not in means:
        return f"`{OURS}` has not been measured."
    forget, kept = means[OURS]
    if kept < LEAST_KEPT:
        return f"**`{OURS}` keeps only {kept:.3f} of the utility.**"
    others = {name: one for name, (one, rest) in means.items() if rest >= LEAST_KEPT and name != OURS}
    if not others:
        return (
            f"No other measured variant keeps {LEAST_KEPT} of the utility; `{OURS}` forgets to {forget:.3f}."
        )
    best = min(others.values())
    beside = ", ".join(f"`{name}`" for name, one in others.items() if one == best)
    start = f"Among the variants that keep {LEAST_KEPT} of the utility"
    if forget < best:
        return f"{start} `{OURS}` forgets most: {forget:.3f}, next {best:.3f} ({beside})."
    if forget == best:
        return f"{start} `{OURS}` forgets as much as {beside}: {forget:.3f}."
    return f"**{start} `{OURS}` is not best: {forget:.3f} against {best:.3f} ({beside}).**"


def unfinished(content: Plain) -> str:
    """Returns how much of the study the verdict is about, where not all of it has been run."""
    missing, measured = len(content.get("missing", ())), len(content["variants"])
    return f" So far {measured} of {measured + missing} variants have been run." if missing else ""


def page() -> str:
    """Returns the text of the page."""
    commands = yaml.safe_load((RESULTS / "commands.yaml").read_text(encoding="utf-8"))
    parts = [HEAD]
    for name, content in studies():
        table = (RESULTS / f"{name}.md").read_text(encoding="utf-8").strip()
        commit = content["environment"].get("commit") or "unknown"
        parts += [
            f"## {name}\n",
            f"`{commands.get(name, 'no command')}`, commit {commit}.\n",
            f"{verdict(content)}{unfinished(content)}\n",
            f"![What each variant forgets and keeps]({name}.svg)\n",
            f"{table}\n",
        ]
    return "\n".join(parts)


def with_links(text: str) -> str:
    """Returns `papers.md` with a link in each row whose command was measured small."""
    commands = yaml.safe_load((RESULTS / "commands.yaml").read_text(encoding="utf-8"))
    for name, _ in studies():
        whole = re.sub(r" --config overlays/small| --name \S+", "", commands.get(name, ""))
        lines = text.split("\n")
        text = "\n".join(
            line.replace("| not run yet |", f"| [measured](small.md#{name}) |")
            if f"`{whole}`" in line
            else line
            for line in lines
        )
    return text


def draw(content: Plain, path: Path) -> None:
    """Draws forgotten against kept, one point a variant, with deviations where there are several seeds."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 4.5), layout="tight")
        axes = figure.add_subplot(xlabel="ROUGE-L on forgotten prompts (lower is better)")
        axes.set_ylabel("ROUGE-L kept on the rest (1 is best)")
        axes.axhline(LEAST_KEPT, color="grey", linewidth=0.5)
        for name, (forget, kept) in places(content).items():
            x, y = forget["mean"], kept["mean"]
            style = {"fmt": "*" if name == OURS else "o", "markersize": 10 if name == OURS else 4}
            axes.errorbar(x, y, kept["deviation"] or None, forget["deviation"] or None, **style)
            axes.annotate(name, (x, y), (4, 4), textcoords="offset points", fontsize=7)
        figure.savefig(path, format="svg", metadata={"Date": None})


def write() -> None:
    """Writes the page, the pictures and the links of `papers.md`."""
    (DOCS / "small.md").write_text(page(), encoding="utf-8")
    papers = DOCS / "papers.md"
    papers.write_text(with_links(papers.read_text(encoding="utf-8")), encoding="utf-8")
    for name, content in studies():
        draw(content, DOCS / f"{name}.svg")
