"""What a study would run: the command of each run that is not finished, and how long they take."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from o3_lightning.common.plain import leaves, mean_of
from o3_lightning.common.program import program_name
from o3_lightning.run.estimate import estimate_run
from o3_lightning.run.study import Study


def command_of(fields: Mapping[str, Any]) -> str:
    r"""Returns the command of a run that sets every one of its fields, sections nested.

    Example:
        >>> command_of({"adapter": {"rank": 4}, "evaluation": {"metrics": ["accuracy"]}}).split(" run ")[1]
        '--adapter.rank 4 --evaluation.metrics \'["accuracy"]\''
    """
    words = [program_name(), "run"]
    for name, value in leaves(fields):
        words += [f"--{name}", shlex.quote(value if isinstance(value, str) else json.dumps(value))]
    return " ".join(words)


def lines_of(
    study: Study, output: Path, estimate: Callable[..., float] = lambda *run: estimate_run(*run).total
) -> Iterator[str]:
    """Yields the command of every unfinished run, and the expected time of all.

    A run counts with the mean time of the finished ones; without any, a few steps of the first one are
    measured, for which its base model is taught if it has to be. The values that a variant chooses from its
    grid are not known yet: its commands leave them out.

    Args:
        study: the comparison.
        output: the folder of `run_study`.
        estimate: seconds of a run from its configuration and trainer options.
    """
    candidates = [job for variant in study.variants for _, job in study.candidates(variant, output)]
    runs = [study.job(variant, seed, output) for seed in study.seeds for variant in study.variants]
    measured = [(job, job.metrics) for job in (*candidates, *runs)]
    left = [job for job, metrics in measured if metrics is None]
    spent = [sum(metrics["seconds"].values()) for _, metrics in measured if metrics is not None]
    yield from (command_of(job.fields) for job in left)
    if not left:
        yield "# nothing to do: all runs are finished"
        return
    each, source = mean_of(spent), f"mean of {len(spent)} finished"
    if each is None:
        first = left[0].config
        each, source = estimate(first, left[0].trainer), f"estimated from a few steps of {first.name}"
    hours = each * len(left) / 3600
    yield f"# runs: {len(left)}, about {each / 60:.1f} minutes each ({source}): {hours:.2f} hours"
