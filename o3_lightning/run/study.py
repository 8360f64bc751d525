"""Studies: runs of every variant of a configuration with every seed, and their means and deviations.

A study is a YAML file: the configuration that the variants share, the fields that differ in each, the seeds,
the columns of the table, and optionally grids of values of which each variant takes the best on validation
requests. Its runs are ordinary runs, so a killed study continues with the first unfinished one, and several
processes may work on one study: each run is locked by the process that works on it. What several runs need,
the base model's results and adapters that are trained alike, is made once.
"""

import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from filelock import FileLock, Timeout

from o3_lightning.common.environment import describe_environment
from o3_lightning.common.errors import InputError, O3Error
from o3_lightning.common.files import digest_json, write_atomically, write_json
from o3_lightning.common.plain import to_plain
from o3_lightning.common.shipped import find_file
from o3_lightning.common.yaml import read_mapping
from o3_lightning.data.requests import check_id
from o3_lightning.evaluation.figures import FIGURES, headline
from o3_lightning.metrics.aggregate import over_seeds
from o3_lightning.run.config import RunConfig
from o3_lightning.run.grid import best, combinations, grids_of, nested
from o3_lightning.run.parsing import config_from, for_benchmark, merge
from o3_lightning.run.study_table import OURS, table
from o3_lightning.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

KEYS = ("question", "config", "common", "variants", "seeds", "figures", "grid", "validation")
OF_STUDIES = {"name", "output", "seed"}  # fields that no variant has
DEFAULT_FIGURES = ("held_out", "truth", "utility", "drift", "seconds")
ROUNDING = 1e-12  # differences of figures that count as none
POLL_SECONDS = 10.0  # between two looks at the runs of other processes

Plain = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run of a study: configuration, trainer options, and the fields that these came from, nested."""

    config: RunConfig
    trainer: Plain
    fields: Plain

    @property
    def metrics(self) -> Plain | None:
        """The content of its `metrics.json`; None if it is not finished."""
        file = RunFolder(self.config.folder).metrics_file
        return dict(json.loads(file.read_text())) if file.is_file() else None


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
        grids: by variant, the values to choose from by dotted field; a variant without any runs as it is.
        validation: fields that give the runs that choose their own requests, sections nested.
    """

    name: str
    question: str
    common: Plain
    variants: Mapping[str, Plain]
    seeds: Sequence[int]
    figures: Sequence[str]
    grids: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    validation: Plain = field(default_factory=dict)

    def job(self, variant: str, seed: int, output: Path, *changes: Plain, suffix: str = "") -> Job:
        """Returns a variant's run with one seed; later changes win.

        Raises:
            InputError: the variant has an unknown field or a value outside its range.
        """
        fields = functools.reduce(merge, (self.common, self.variants[variant], *changes))
        name = f"{variant}-{suffix or f'seed{seed}'}"
        fields = {**fields, "name": name, "output": str(output / self.name), "seed": seed}
        try:
            return Job(*config_from(fields), fields)
        except InputError as error:
            raise InputError(f"variant '{variant}': {error}") from error

    def candidates(self, variant: str, output: Path) -> list[tuple[Plain, Job]]:
        """Returns each combination of a variant's grid, by dotted field, and its run for the choice."""
        found = []
        for number, values in enumerate(combinations(self.grids.get(variant, {})), start=1):
            name, changes = f"validation{number}", (nested(values), self.validation)
            found.append((values, self.job(variant, self.seeds[0], output, *changes, suffix=name)))
        return found


def read_study(
    path: str | Path, over: Sequence[Path] = (), name: str = "", seeds: list[int] | None = None
) -> Study:
    """Reads a study and checks every variant's configuration.

    Args:
        path: YAML with `variants` and `seeds`, and optionally `question`, `config` (a configuration file, or
            several of which the later override the earlier, relative to this one), `common` (fields that
            override these), `figures`, `grid` (lists of values by dotted field, tried in every combination
            for every variant; a variant's own `grid` overrides it, an empty list drops a field) and
            `validation` (fields, such as other requests, of the runs that choose among these).
        over: configuration files that override `common`, in order.
        name: of the study; empty joins the names of the files.
        seeds: in place of those of the file; None takes these.

    Raises:
        InputError: the file is missing or not such YAML; names the wrong field; a grid without validation.
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
    variants = variants_of(content.get("variants"), source)
    own = {name: variant.pop("grid", None) for name, variant in variants.items()}
    study = Study(
        name=name,
        question=str(content.get("question", "")),
        common=common,
        variants=variants,
        seeds=seeds_of(content.get("seeds") if seeds is None else seeds, source),
        figures=figures_of(content.get("figures"), source),
        grids=grids_of(content.get("grid"), own, source),
        validation=fields_of(content.get("validation"), source, "validation"),
    )
    if any(study.grids.values()) and not study.validation:
        raise InputError("a grid needs requests to choose on", path=source, field="validation")
    for variant in study.variants:
        study.job(variant, study.seeds[0], Path("runs"))
        study.candidates(variant, Path("runs"))
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
    for name, fields in value.items():
        check_id(str(name), path=path, field="variants")
        if own := OF_STUDIES.intersection(fields_of(fields, path, f"variants.{name}")):
            raise InputError(f"the study sets '{min(own)}' itself", path=path, field=f"variants.{name}")
    return {str(name): fields or {} for name, fields in value.items()}


def seeds_of(value: Any, path: Path) -> tuple[int, ...]:
    """Returns the checked seeds of a study, at least one."""
    whole = isinstance(value, list) and all(isinstance(seed, int) and seed >= 0 for seed in value)
    if not value or not whole or len({*value}) < len(value):
        raise InputError(f"expected different integers >= 0, got {value or []}", path=path, field="seeds")
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

    A run that fails does not keep the others from running. Runs in which another process works are left to
    it; this one returns when all are finished.

    Args:
        study: the comparison.
        output: the runs go to `<output>/<study>/<variant>-seed<seed>`, those that choose among the values of
            a grid to `<variant>-validation<number>`.
        results: folder of `<name>.json` and of the table `<name>.md`.

    Raises:
        InputError: runs failed, because of bad input, a training that diverged, or a folder with a run of
            another configuration; after all others have finished. It gives the first reason, the log all.
    """
    tried = {variant: study.candidates(variant, output) for variant in study.variants}
    work_through([job for found in tried.values() for _, job in found], lambda: None)
    choices = {name: best([(v, figures(job)) for v, job in found]) for name, found in tried.items() if found}
    failed = [f"{name}: no combination of its grid finished" for name, found in choices.items() if not found]
    runs: dict[tuple[str, int], Job] = {}
    for seed in study.seeds:
        for variant in study.variants:
            choice = choices.get(variant, {"values": {}})
            if choice is not None:
                runs[variant, seed] = study.job(variant, seed, output, nested(choice["values"]))

    def write() -> Plain:
        finished = {place: found for place, job in runs.items() if (found := job.metrics) is not None}
        measured: dict[str, dict[int, dict[str, float]]] = {variant: {} for variant in study.variants}
        for (variant, seed), found in finished.items():
            measured[variant][seed] = headline(found)
        content = summarise(study, measured, choices, base_figures(finished))
        write_json(results / f"{study.name}.json", content)
        write_atomically(results / f"{study.name}.md", table(content))
        return content

    failed += work_through(list(runs.values()), write)
    if failed:
        total = len(study.variants) * len(study.seeds)
        others = "; the log above says why the others did" if len(failed) > 1 else ""
        raise InputError(f"{len(failed)} of {total} runs failed: {failed[0]}{others}")
    return write()


def figures(job: Job) -> dict[str, float] | None:
    """Returns the headline figures of a finished run, otherwise None."""
    return None if (metrics := job.metrics) is None else headline(metrics)


def base_figures(finished: Mapping[tuple[str, int], Plain]) -> list[dict[str, float]]:
    """Returns the base model's headline figures by seed; empty where runs of a seed differ in them."""
    found: dict[int, dict[str, float]] = {}
    for (_, seed), metrics in finished.items():
        own = headline(metrics, 0)
        if found.setdefault(seed, own) != own:
            return []
    return list(found.values())


def work_through(jobs: Sequence[Job], after: Callable[[], Any]) -> list[str]:
    """Finishes some runs together with other processes, and returns what failed in this one, with the reason.

    `after` is called after each run that this process worked on.
    """
    from o3_lightning.run.pipeline import run_stream  # takes seconds to import

    left, failed = list(jobs), []
    while left:
        taken = []
        for job in left:
            config = job.config
            locks = config.folder.parent / ".locks"
            locks.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(locks / f"{config.name}.lock", timeout=0), shared_base(config):
                    logger.info("run %d of %d: %s", jobs.index(job) + 1, len(jobs), config.name)
                    run_stream(replace(config, take_over=with_same_adapters(job, jobs)), job.trainer)
            except Timeout:
                taken.append(job)
                continue
            except O3Error as error:
                logger.error("%s: %s", config.name, error)
                failed.append(f"{config.name}: {error}")
            after()
        left = taken
        if left:
            time.sleep(POLL_SECONDS)
    return failed


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


def with_same_adapters(job: Job, jobs: Sequence[Job]) -> str:
    """Returns the folder of a finished run with the adapters of this one, otherwise what it takes over."""

    def trained(one: Job) -> Any:
        config = one.config
        return config.seed, config.base, config.data, config.adapter, config.objective, one.trainer

    if job.config.take_over or job.config.refuse_only:
        return job.config.take_over
    own = trained(job)
    same = (one for one in jobs if one is not job and not one.config.refuse_only and trained(one) == own)
    return next((str(one.config.folder) for one in same if one.metrics is not None), "")


def summarise(
    study: Study,
    measured: Mapping[str, Mapping[int, Mapping[str, float]]],
    choices: Mapping[str, Plain | None] | None = None,
    base: Sequence[Mapping[str, float]] = (),
) -> Plain:
    """Returns the study's results from the headline figures of its runs, by variant and seed.

    Args:
        study: what was compared.
        measured: headline figures by variant and seed.
        choices: what the grid of a variant chose, see `grid.best`.
        base: headline figures of the base model, one mapping per seed; none if the runs do not share one.

    Returns:
        `study`, `question`, `seeds`, `figures` (the table's columns), `common`, `environment`, `base`
        (figures as those of a variant), and `variants[name]` with `fields`, `seeds` (those that finished)
        and `figures[name]`: `mean`, `deviation` (of the sample; 0 for a single seed), `values` over these
        seeds and, beside a variant "ours" with the same two seeds or more, `p` of a paired t-test against
        it (None where no seed differs, 0 where all differ by the same). A figure that some of them lacks is
        left out; `missing` names the variants of which no run has finished. Variants with a grid have
        `chosen`, see `grid.best`; `validation` holds the fields of these runs.
    """
    variants: dict[str, Plain] = {}
    missing = []
    for name, fields in study.variants.items():
        runs = [measured[name][seed] for seed in study.seeds if seed in measured[name]]
        if not runs:
            missing.append(name)
            continue
        seeds = [seed for seed in study.seeds if seed in measured[name]]
        variants[name] = {"fields": fields, "seeds": seeds, "figures": shared_figures(runs)}
        if choice := (choices or {}).get(name):
            variants[name]["chosen"] = choice
    compare_with_ours(variants)
    return {
        "study": study.name,
        "question": study.question,
        "seeds": list(study.seeds),
        "figures": list(study.figures),
        "common": study.common,
        "base": shared_figures(base) if base else {},
        "variants": variants,
        "missing": missing,
        **({"validation": study.validation} if study.validation else {}),
        "environment": describe_environment(),
    }


def shared_figures(runs: Sequence[Mapping[str, float]]) -> Plain:
    """Returns mean, deviation and values of each figure that all runs have."""
    columns = {}
    for figure in FIGURES:
        if all(figure in run for run in runs):
            values = [run[figure] for run in runs]
            mean, deviation = over_seeds(values)
            columns[figure] = {"mean": mean, "deviation": deviation, "values": values}
    return columns


def compare_with_ours(variants: Mapping[str, Plain]) -> None:
    """Adds the p-value of a paired t-test against the variant "ours" to the figures of the others."""
    ours = variants.get(OURS)
    for name, variant in variants.items():
        if ours is None or name == OURS or variant["seeds"] != ours["seeds"] or len(ours["seeds"]) < 2:
            continue
        for figure, found in variant["figures"].items():
            if figure in ours["figures"]:
                differences = np.subtract(found["values"], ours["figures"][figure]["values"])
                if np.ptp(differences) > ROUNDING:
                    found["p"] = float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)
                else:  # no variance: the limit of the test
                    found["p"] = None if abs(differences[0]) <= ROUNDING else 0.0
