"""Studies: runs of every variant of a configuration with every seed, and a table of means and deviations.

A study is a YAML file: the configuration that the variants share, the fields that differ in each, the seeds,
and the columns of the table. Its runs are ordinary runs, so a killed study continues with the first
unfinished one.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from o3_lightning.common.environment import describe_environment
from o3_lightning.common.errors import InputError, O3Error
from o3_lightning.common.files import digest_json, write_atomically, write_json
from o3_lightning.common.plain import markdown_table, to_plain
from o3_lightning.common.shipped import find_file
from o3_lightning.common.yaml import read_mapping
from o3_lightning.data.requests import check_id
from o3_lightning.evaluation.figures import FIGURES, headline
from o3_lightning.metrics.aggregate import over_seeds
from o3_lightning.run.config import RunConfig
from o3_lightning.run.parsing import config_from, for_benchmark, merge
from o3_lightning.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

KEYS = ("question", "config", "common", "variants", "seeds", "figures")
DEFAULT_FIGURES = ("held_out", "truth", "utility", "drift", "seconds")
OURS, SIGNIFICANT = "ours", 0.05
RANGED = ("seconds", "u2r")  # not fractions: fewer decimals

Plain = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """Runs to compare.

    Args:
        name: of the YAML file; names the folder of the runs and the result files.
        question: that the comparison answers, one sentence.
        common: fields of the configuration that all runs share, sections nested.
        variants: the fields that differ, by name of the variant; at least one variant.
        seeds: each variant runs once with each; at least one.
        figures: names of `headline` figures, the columns of the table.
    """

    name: str
    question: str
    common: Plain
    variants: Mapping[str, Plain]
    seeds: Sequence[int]
    figures: Sequence[str]

    def settings(self, variant: str, seed: int, output: Path) -> tuple[RunConfig, Plain]:
        """Returns one run's configuration and trainer options.

        Raises:
            InputError: the variant has an unknown field or a value outside its range.
        """
        own = {"name": f"{variant}-seed{seed}", "output": str(output / self.name), "seed": seed}
        try:
            return config_from(merge(merge(self.common, self.variants[variant]), own))
        except InputError as error:
            raise InputError(f"variant '{variant}': {error}") from error


def read_study(path: str | Path, over: Sequence[Path] = (), name: str = "") -> Study:
    """Reads a study and checks every variant's configuration.

    Args:
        path: YAML with `variants` and `seeds`, and optionally `question`, `config` (a configuration file, or
            several of which the later override the earlier, relative to this one), `common` (fields that
            override these) and `figures`.
        over: configuration files that override `common`, in order.
        name: of the study; empty joins the names of the files.

    Raises:
        InputError: the file is missing or not such YAML; names the wrong field.
    """
    source = Path(path)
    content = read_mapping(source)
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise InputError(f"unknown key '{unknown[0]}'; known are {', '.join(KEYS)}", path=source)
    name = name or "_".join(file.stem for file in (source, *over))
    check_id(name, path=source)
    stacked = content.get("config", [])
    names = [str(name) for name in (stacked if isinstance(stacked, list) else [stacked])]
    common = stack({}, [find_file(name, beside=source.parent) for name in names])
    common = stack(merge(common, fields_of(content.get("common"), source, "common")), over)
    study = Study(
        name=name,
        question=str(content.get("question", "")),
        common=common,
        variants=variants_of(content.get("variants"), source),
        seeds=seeds_of(content.get("seeds"), source),
        figures=figures_of(content.get("figures"), source),
    )
    for variant in study.variants:
        study.settings(variant, study.seeds[0], Path("runs"))
    return study


def stack(common: Plain, files: Sequence[Path]) -> Plain:
    """Returns fields overridden by those of some files, and what these hold for the benchmark so far."""
    for file in files:
        benchmark = common.get("data", {}).get("name")
        common = merge(common, for_benchmark(read_mapping(file), benchmark))
    return common


def variants_of(value: Any, path: Path) -> dict[str, Plain]:
    """Returns the checked variants of a study, at least one."""
    if not isinstance(value, dict) or not value:
        raise InputError("expected names with the fields that differ, got none", path=path, field="variants")
    for name in value:
        check_id(str(name), path=path)
    return {str(name): fields_of(fields, path, f"variants.{name}") for name, fields in value.items()}


def seeds_of(value: Any, path: Path) -> tuple[int, ...]:
    """Returns the checked seeds of a study, at least one."""
    whole = isinstance(value, list) and all(isinstance(seed, int) and seed >= 0 for seed in value)
    if not value or not whole:
        raise InputError(f"expected integers >= 0, got {value or []}", path=path, field="seeds")
    return tuple(value)


def figures_of(value: Any, path: Path) -> tuple[str, ...]:
    """Returns the checked columns of a study's table."""
    figures = value or list(DEFAULT_FIGURES)
    unknown = [one for one in figures if one not in FIGURES] if isinstance(figures, list) else figures
    if unknown:
        message = f"expected a list of some of {', '.join(FIGURES)}, got {unknown}"
        raise InputError(message, path=path, field="figures")
    return tuple(figures)


def fields_of(value: Any, path: Path, name: str) -> Plain:
    """Returns a part of a study that holds fields or is missing."""
    if not isinstance(value, dict | None):
        raise InputError(f"expected fields, got {value!r}", path=path, field=name)
    return value or {}


def run_study(study: Study, output: Path, results: Path) -> Plain:
    """Runs what is not finished, and writes the results after each run, see `summarise`, which it returns.

    A run that fails does not keep the others from running.

    Args:
        study: the comparison.
        output: the runs go to `<output>/<study>/<variant>-seed<seed>`.
        results: folder of `<name>.json` and of the table `<name>.md`.

    Raises:
        InputError: runs failed, for the reasons that it gives: bad input, a training that diverged, a folder
            with a run of another configuration; after all others have finished.
    """
    from o3_lightning.run.pipeline import run_stream  # takes seconds to import

    pairs = [(variant, seed) for seed in study.seeds for variant in study.variants]
    measured: dict[str, dict[int, dict[str, float]]] = {variant: {} for variant in study.variants}
    for variant, seed in pairs:  # of an earlier start, so that no result is missing meanwhile
        file = RunFolder(study.settings(variant, seed, output)[0].folder).metrics_file
        if file.is_file():
            measured[variant][seed] = headline(json.loads(file.read_text()))
    failed: list[str] = []
    for number, (variant, seed) in enumerate(pairs, start=1):
        logger.info("%s: run %d of %d: %s, seed %d", study.name, number, len(pairs), variant, seed)
        config, trainer = study.settings(variant, seed, output)
        try:
            with shared_base(config):
                folder = run_stream(config, trainer)
            measured[variant][seed] = headline(json.loads((folder / "metrics.json").read_text()))
        except O3Error as error:
            logger.error("%s, seed %d: %s", variant, seed, error)
            failed.append(f"{variant}, seed {seed}: {error}")
            measured[variant].pop(seed, None)
        content = summarise(study, measured)
        write_json(results / f"{study.name}.json", content)
        write_atomically(results / f"{study.name}.md", table(content))
    if failed:
        raise InputError(f"{len(failed)} of {len(pairs)} runs failed: {'; '.join(failed)}")
    return content


@contextmanager
def shared_base(config: RunConfig) -> Iterator[None]:
    """Lets a run reuse what another one measured on the same base model, with the same data and metrics."""
    from o3_lightning.run.results import BASE_STAGE

    decisive = [config.base, config.data, config.evaluation, config.gate.batch_size, config.seed]
    key = digest_json(to_plain(decisive))
    shared = config.folder.parent / ".base" / f"{key[:16]}.json"
    own = RunFolder(config.folder).stage_file(BASE_STAGE)
    if shared.is_file() and not own.is_file():
        write_atomically(own, shared.read_bytes(), private=True)
    yield
    if own.is_file() and not shared.is_file():
        write_atomically(shared, own.read_bytes(), private=True)


def summarise(study: Study, measured: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Plain:
    """Returns the study's results from the headline figures of its runs, by variant and seed.

    Returns:
        `study`, `question`, `seeds`, `figures` (the table's columns), `common`, `environment`, and
        `variants[name]` with `fields`, `seeds` (those that finished) and `figures[name]`: `mean`, `deviation`
        (of the sample; 0 for a single seed), `values` over these seeds and, beside a variant "ours" with the
        same two seeds or more, `p` of a paired t-test against it (None where all differences are equal). A
        figure that some of them lacks is left out; `missing` names the variants of which no run has finished.
    """
    variants, missing = {}, []
    for name, fields in study.variants.items():
        runs = [measured[name][seed] for seed in study.seeds if seed in measured[name]]
        if not runs:
            missing.append(name)
            continue
        shared = [figure for figure in FIGURES if all(figure in run for run in runs)]
        figures = {}
        for figure in shared:
            values = [run[figure] for run in runs]
            found = over_seeds(values)
            figures[figure] = {"mean": found.mean, "deviation": found.deviation or 0.0, "values": values}
        seeds = [seed for seed in study.seeds if seed in measured[name]]
        variants[name] = {"fields": fields, "seeds": seeds, "figures": figures}
    compare_with_ours(variants)
    return {
        "study": study.name,
        "question": study.question,
        "seeds": list(study.seeds),
        "figures": list(study.figures),
        "common": study.common,
        "variants": variants,
        "missing": missing,
        "environment": describe_environment(),
    }


def compare_with_ours(variants: Mapping[str, Plain]) -> None:
    """Adds the p-value of a paired t-test against the variant "ours" to the figures of the others."""
    ours = variants.get(OURS)
    for name, variant in variants.items():
        if ours is None or name == OURS or variant["seeds"] != ours["seeds"] or len(ours["seeds"]) < 2:
            continue
        for figure, found in variant["figures"].items():
            if figure in ours["figures"]:
                differences = np.subtract(found["values"], ours["figures"][figure]["values"])
                spread = float(np.ptp(differences))
                found["p"] = float(ttest_1samp(differences, 0.0).pvalue) if spread else None


def table(content: Plain) -> str:
    """Returns the results as a Markdown table, one row per variant, and the meaning of its columns."""
    columns = content["figures"]
    rows = [
        [f"`{name}`", *(cell(column, variant["figures"].get(column)) for column in columns)]
        for name, variant in content["variants"].items()
    ]
    lines = markdown_table(["variant", *columns], rows)
    meanings = [f"* {column}: {FIGURES[column]}" for column in columns]
    seeds = ", ".join(map(str, content["seeds"]))
    notes = [f"Mean ± deviation over seeds {seeds}." if len(content["seeds"]) > 1 else f"Seed {seeds}."]
    if any("*" in "".join(row[1:]) for row in rows):
        notes += ["", f"* differs from `{OURS}`: paired t-test over seeds, p < {SIGNIFICANT}, not corrected."]
    if content.get("missing"):
        notes += ["", f"Not run yet: {', '.join(f'`{name}`' for name in content['missing'])}."]
    return "\n".join([*lines, "", *notes, "", *meanings, ""])


def cell(figure: str, value: Plain | None) -> str:
    """Returns one cell of the table."""
    if value is None:
        return "–"
    digits = 1 if figure in RANGED else 3
    deviation = f" ± {value['deviation']:.{digits}f}" if len(value["values"]) > 1 else ""
    star = "*" if value.get("p") is not None and value["p"] < SIGNIFICANT else ""
    return f"{value['mean']:.{digits}f}{deviation}{star}"
