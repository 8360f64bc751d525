"""The page of the studies under `overlays/small`: `docs/results/small.md`, and a picture of each study.

`python -m benchmarks.tables` writes them from `results/`; a new study needs no change here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from o3_lightning.evaluation.figures import FIGURES
from o3_lightning.run.study_table import table

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs/results"
CHOICES = ("scienceqa", "clinc150")  # benchmarks whose answers are right or wrong, one of a few
FORGET = {True: ("su", "du"), False: ("seen_rouge", "held_out_rouge", "truth")}
ASKED = {
    "su": "forget prompts, su",
    "du": "test rows of what is forgotten, du",
    "seen_rouge": "forget prompts, seen_rouge",
    "held_out_rouge": "held-out prompts of what is forgotten, held_out_rouge",
}
KEEP = {True: "rd", False: "utility_rouge"}  # of other tasks a small model knows no more than chance
LEFT_OUT = {True: ("seen_rouge", "held_out_rouge", "utility_rouge"), False: ()}  # where answers are choices
LABELS = {True: "accuracy", False: "ROUGE-L"}
LEAST_KEPT = 0.98
MOST_NAMES = 8  # beside one point
SMALL = ("+_small", "+_full")  # overlays
OURS = "ours"
ARROWS = {"lower is better": " ↓", "higher is better": " ↑"}
HEAD = """# The papers' tables, small

Studies with `--config overlays/small` on one core: a language model is taught some rows of a benchmark, and
then each method has to make it forget a few of them, one request after the other. They compare methods at one
size; a split has 10 to 30 rows, so differences of a few hundredths say nothing. [The papers'
tables](papers.md) lists the commands for GPUs.

A variant is a method as the papers have it, see `configs/experiments/methods.yaml`: what its name begins with
acts on the rows to forget (`ga` is gradient ascent, `idk` trains refusals, `me` maximal entropy), and `_gd`,
`_kl` or `_ap` keep retained rows by their likelihood, by the divergence from the model before or by answer
preservation. Those, and `random_labels`, `rmu`, `llmu`, `undial`, `eul`, `pdu`, `sogd` and `sopo`, edit the
model for every prompt; `ours`, `o3_paper`, `o3_official` and `refusal_gate` have a gate. `curate`, `iccu`,
`prompt_guard` and `eco` act at inference alone, see `configs/experiments/field_2026.yaml`; the rules of
`iccu` and the question of `prompt_guard` need a model that follows instructions, which so small a one hardly
does: asked whether a prompt is about a forgotten author, it says "No" throughout. All trained methods share
the learning rate of the small overlay, which was searched for none of them: a method that broke the model
here may do better at a rate of its own. In `ablations_smollm2` a variant changes one part of O3 as published,
see `configs/experiments/o3_ablations.yaml`: with so few rows the gate decides what is forgotten and kept, so
that neither penalty (.0003 at the end, beside a loss of .2 to .6) nor rank nor the training of the detector
shows in accuracies. A larger zeta forgets more and keeps less, as in the paper.

`closer_look_smollm2` fine-tunes the weights of all linear layers, as closer-look does, at a rate of its own
(5e-5; the paper's 1e-5 is for 7B). `_lora` is the paper's variant at the same rate, at which 20 steps of
LoRA change nothing: it says that LoRA needs another rate, not that it cannot forget. `me_gd` has the forget
coefficient of closer-look's scripts for one task of TOFU, 0.1; those for tasks in a row take 1.0.
`npo_kl_fixed` keeps the model before the first request as the reference. The study's combined metrics need an
entailment classifier, which no package holds, so their other parts are columns of their own. See
`configs/experiments/closer_look.yaml`.

"""
END = """
Forget prompts are those that the model was trained to answer; held-out prompts ask for the same in other
words, and test rows are others of the subject. Utility rows are retained rows, other subjects of the
benchmark and other tasks. Accuracy counts answers that contain the true one's words, ROUGE-L recall the share
of the true answer that comes in order, both of generated text. `truth` is the probability of the true
answer's tokens, each given the true ones before it: a model that was trained to begin with a refusal still
finds the later words likely, as the `idk` variants and `ours` do, while `refusal_gate` scores a fixed
refusal. A base model that is sure of its answers makes `gd` and `kl` nearly the same retain objective, so
`idk_gd` and `idk_kl` have the same accuracies and ROUGE-L, but not in `closer_look_smollm2`, whose `kl`
counts the tokens of the questions, too, and beside `idk` keeps next to nothing. Variants are in the order of
what they keep. `python -m benchmarks.tables` writes this page from `results/`.
"""
STYLE: dict[Any, Any] = {"svg.hashsalt": "o3-lightning", "svg.fonttype": "none", "font.size": 9}
Plain = Mapping[str, Any]


def studies() -> Iterator[tuple[str, Plain]]:
    """Yields name and results of each study that was run under the small overlay."""
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        common = content.get("common", {}) if isinstance(content, dict) else {}
        if str(common.get("name", "")).endswith(SMALL):
            yield path.stem, content


def has_choices(content: Plain) -> bool:
    """Whether the answers of a study's benchmark are choices, which accuracy judges best."""
    return content["common"]["data"]["name"] in CHOICES


def means_of(content: Plain) -> dict[str, dict[str, float]]:
    """Returns what each variant forgets and keeps, by figure, as means over seeds."""
    kind = has_choices(content)
    return {
        name: {key: figures[key]["mean"] for key in FORGET[kind] if key in figures}
        | {KEEP[kind]: figures[KEEP[kind]]["mean"] / base_of(content)}
        for name, variant in content["variants"].items()
        if KEEP[kind] in (figures := variant["figures"])
    }


def base_of(content: Plain) -> float:
    """Returns the base model's value of what variants keep, 1 where the figure is relative to it already."""
    return float(content["base"]["rd"]["mean"]) if has_choices(content) else 1.0


def verdict(content: Plain) -> str:
    """Returns by which figures ours forgets most among the variants that keep 0.98 of the utility."""
    means, keep = means_of(content), KEEP[has_choices(content)]
    if OURS not in means:
        return (
            f"`{OURS}` has not been measured." if OURS in content.get("missing", ()) else content["question"]
        )
    own = dict(means[OURS])
    if (kept := own.pop(keep)) < LEAST_KEPT:
        return f"**`{OURS}` keeps only {kept:.3f} of the utility.**"
    others = {name: one for name, one in means.items() if name != OURS and one[keep] >= LEAST_KEPT}
    if not others:
        told = ", ".join(f"{figure} {value:.3f}" for figure, value in own.items())
        return f"No other measured variant keeps {LEAST_KEPT} of the utility ({keep}); `{OURS}` has {told}."
    told = "; ".join(
        compared(figure, value, {name: one[figure] for name, one in others.items() if figure in one})
        for figure, value in own.items()
    )
    names = ", ".join(f"`{name}`" for name in (OURS, *others))
    return f"{names} keep {LEAST_KEPT} of the utility ({keep}). Among them `{OURS}` forgets {told}."


def compared(figure: str, value: float, others: Mapping[str, float]) -> str:
    """Returns how a figure of ours, of which less is better, compares with the best of the others."""
    best = min(others.values())
    beside = ", ".join(f"`{name}`" for name, other in others.items() if other == best)
    if value > best:
        return f"**less than {beside} by {figure} ({value:.3f} against {best:.3f})**"
    if value == best:
        return f"as much as {beside} by {figure} ({value:.3f})"
    return f"most by {figure} ({value:.3f}, next {best:.3f} of {beside})"


def unfinished(content: Plain) -> str:
    """Returns how much of the study the verdict is about, where not all of it has been run."""
    missing, measured = len(content.get("missing", ())), len(content["variants"])
    return f" So far {measured} of {measured + missing} variants have been run." if missing else ""


def rows_of(content: Plain) -> str:
    """Returns a study's table and the notes below it, without the meanings of its columns."""
    kind = has_choices(content)
    found = (figure for variant in content["variants"].values() for figure in variant["figures"])
    measured, hidden = set(found), LEFT_OUT[kind]
    columns = [figure for figure in content["figures"] if figure in measured and figure not in hidden]
    variants = dict(sorted(content["variants"].items(), key=lambda one: -kept_by(one[1], KEEP[kind])))
    _, *lines = table({**content, "figures": columns, "variants": variants}).split("\n")
    titles = [figure + arrow_of(figure) for figure in columns]
    return "\n".join(
        [f"| variant | {' | '.join(titles)} |", *(line for line in lines if not line.startswith("* "))]
    ).strip()


def kept_by(variant: Plain, figure: str) -> float:
    """Returns what a variant keeps; less than any fraction where it was not measured."""
    return float(variant["figures"].get(figure, {"mean": -1.0})["mean"])


def arrow_of(figure: str) -> str:
    """Returns in which direction a figure is better, as an arrow; nothing for others."""
    return next((arrow for words, arrow in ARROWS.items() if f"({words})" in FIGURES[figure]), "")


def page() -> str:
    """Returns the text of the page."""
    commands = yaml.safe_load((RESULTS / "commands.yaml").read_text(encoding="utf-8"))
    found = dict(studies())
    named = {figure for content in found.values() for figure in (*content["figures"], *KEEP.values())}
    meanings = [f"* {figure}: {text}" for figure, text in FIGURES.items() if figure in named]
    parts = [HEAD + "\n".join(meanings) + "\n" + END]
    for name, content in found.items():
        commit = content["environment"].get("commit") or "unknown"
        own = next(iter(content["variants"].values()), {}).get("fields", {})
        data = {**content["common"]["data"], **own.get("data", {})}
        parts += [
            f"## {name}\n",
            f"`{commands.get(name, 'no command')}`, commit {commit}. Model: "
            f"`{content['common']['base']['id']}`. Requests: {data['count']}, of "
            f"{data['rows_per_request']} rows each; utility splits of {data['utility_rows']} rows.\n",
            f"{verdict(content)}{unfinished(content)}\n",
            f"![What each variant forgets and keeps]({name}.svg)\n",
            f"{rows_of(content)}\n",
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
    kind, points = has_choices(content), {}
    measured = {key for means in means_of(content).values() for key in means}
    shown = next(key for key in reversed(FORGET[kind][:2]) if key in measured)
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 4.5), layout="tight")
        axes = figure.add_subplot(xlabel=f"{LABELS[kind]} on {ASKED[shown]} (lower is better)")
        axes.set_ylabel(f"{LABELS[kind]} kept on the rest, {KEEP[kind]} (1 is the base model's)")
        axes.axhline(LEAST_KEPT, color="grey", linewidth=0.5)
        for name in means_of(content):
            figures = content["variants"][name]["figures"]
            forget, kept = figures[shown], figures[KEEP[kind]]
            x, y = forget["mean"], kept["mean"] / base_of(content)
            style = {"fmt": "*" if name == OURS else "o", "markersize": 10 if name == OURS else 4}
            axes.errorbar(
                x, y, kept["deviation"] / base_of(content) or None, forget["deviation"] or None, **style
            )
            points[name] = (x, y)
        label(axes, points)
        figure.savefig(path, format="svg", metadata={"Date": None})


def label(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Writes names beside each point, where they cover no others and stay inside; the first two of many."""
    axes.margins(0.1)
    figure = axes.get_figure(root=True)
    figure.tight_layout()
    taken: list[Any] = []
    sharing: dict[tuple[float, float], list[str]] = {}
    for name, point in points.items():
        sharing.setdefault(point, []).append(name)
    shown = [
        (name, point)
        for point, names in sharing.items()
        for name in (names if len(names) <= MOST_NAMES else [*names[:2], f"{len(names) - 2} others"])
    ]
    for name, point in sorted(shown, key=lambda one: one[1]):
        for shift, side in product((4, -9, 13, -18, 22, -27, 31, -36), ("left", "right")):
            text = axes.annotate(
                name, point, (4 if side == "left" else -4, shift), textcoords="offset points", ha=side, size=7
            )
            box = text.get_window_extent()
            if axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and not box.count_overlaps(taken):
                break
            text.remove()
        else:
            text = axes.annotate(name, point, (4, 4), textcoords="offset points", size=7)
        taken.append(text.get_window_extent())


def write() -> None:
    """Writes the page, the pictures and the links of `papers.md`."""
    (DOCS / "small.md").write_text(page(), encoding="utf-8")
    papers = DOCS / "papers.md"
    papers.write_text(with_links(papers.read_text(encoding="utf-8")), encoding="utf-8")
    for name, content in studies():
        draw(content, DOCS / f"{name}.svg")
