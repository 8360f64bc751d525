"""The Markdown table of a study."""

from typing import Any

from o3_lightning.common.plain import markdown_table
from o3_lightning.evaluation.figures import FIGURES

OURS, SIGNIFICANT = "ours", 0.05
RANGED = ("seconds", "u2r")  # not fractions: fewer decimals

Plain = dict[str, Any]


def table(content: Plain) -> str:
    """Returns the results as a Markdown table, one row per variant, and the meaning of its columns."""
    columns = content["figures"]
    each = {f"`{name}`": variant["figures"] for name, variant in content["variants"].items()}
    if base := content.get("base"):
        each = {"base model": base, **each}
    rows = [[name, *(cell(column, found.get(column)) for column in columns)] for name, found in each.items()]
    lines = markdown_table(["variant", *columns], rows)
    meanings = [f"* {column}: {FIGURES[column]}" for column in columns]
    seeds = ", ".join(map(str, content["seeds"]))
    notes = [f"Mean ± deviation over seeds {seeds}." if len(content["seeds"]) > 1 else f"Seed {seeds}."]
    if any("*" in "".join(row[1:]) for row in rows):
        notes += ["", f"* differs from `{OURS}`: paired t-test over seeds, p < {SIGNIFICANT}, not corrected."]
    chosen = [
        f"`{name}` {label(one['chosen'])}" for name, one in content["variants"].items() if "chosen" in one
    ]
    if chosen:
        notes += ["", f"Chosen on validation requests, not on those of the table: {'; '.join(chosen)}."]
    own = {name: one.get("seeds", content["seeds"]) for name, one in content["variants"].items()}
    fewer = [f"`{name}` {own[name]}" for name in own if own[name] != content["seeds"]]
    if fewer:
        notes += ["", f"Not all seeds yet: {', '.join(fewer)}."]
    if content.get("missing"):
        notes += ["", f"Not run yet: {', '.join(f'`{name}`' for name in content['missing'])}."]
    return "\n".join([*lines, "", *notes, "", *meanings, ""])


def label(choice: Plain) -> str:
    """Returns the values that a variant took from its grid."""
    values = ", ".join(f"{name.rsplit('.', 1)[-1]} {value}" for name, value in choice["values"].items())
    return f"{values} (best of {len(choice['tried'])})"


def cell(figure: str, value: Plain | None) -> str:
    """Returns one cell of the table."""
    if value is None:
        return "–"
    digits = 1 if figure in RANGED else 3
    deviation = f" ± {value['deviation']:.{digits}f}" if len(value["values"]) > 1 else ""
    star = "*" if value.get("p") is not None and value["p"] < SIGNIFICANT else ""
    return f"{value['mean']:.{digits}f}{deviation}{star}"
