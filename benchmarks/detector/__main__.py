"""`python -m benchmarks.detector`: measures detectors on benchmarks, as an experiment file says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.yaml import read_mapping
from o3_lightning.run.parsing import ConfigParser, config_from, parse

if TYPE_CHECKING:
    from benchmarks.detector.experiment import DetectorBenchmarkConfig

__all__ = ["main", "read_experiment"]

EXAMPLE = "configs/experiments/detector_benchmark.yaml"
DEFAULT_DATA = "../shared/data"
OWN_KEYS = ("question", "output", "detectors")


def main(arguments: list[str]) -> None:
    """Measures what is not measured yet, writes the JSON file and prints the tables.

    Raises:
        InputError: no experiment was named, or a part of it is wrong.
    """
    parser = ConfigParser(
        prog="benchmarks.detector",
        description="Measures detectors on benchmarks: AUROC, FPR95, weights.",
        exit_on_error=False,
    )
    parser.add_argument("--config", help=f"the experiment, such as {EXAMPLE}")
    parser.add_argument("--data", help="folder of local benchmark data; O3_DATA by default")
    parser.add_argument("--output", help="JSON file of the results instead of the experiment's own")
    words = parse(parser, arguments)
    if words.config is None:
        raise InputError(f"give --config FILE, an experiment such as {EXAMPLE}")
    config, own_output = read_experiment(Path(words.config))
    from benchmarks.detector.experiment import run_detector_benchmark
    from benchmarks.detector.measures import table_rows

    output = Path(words.output or own_output)
    data = Path(words.data or os.environ.get("O3_DATA") or DEFAULT_DATA).expanduser()
    results = run_detector_benchmark(config, data, output, Progress(config))
    lines = [*table_rows(results), *(f"left out: {reason}" for reason in results["left_out"])]
    sys.stdout.write("\n".join([*lines, f"written to {output}"]) + "\n")


class Progress:
    """One line on stderr that says how far the benchmark is, redrawn on a terminal."""

    def __init__(self, config: DetectorBenchmarkConfig) -> None:
        self.total = len(config.tasks) * len(config.detectors) * len(config.seeds)
        self.done = 0

    def __call__(self, name: str) -> None:
        """Tells what is measured next."""
        self.done += 1
        end = "\033[K\r" if sys.stderr.isatty() else "\n"
        sys.stderr.write(f"{self.done}/{self.total} {name}{end}")
        sys.stderr.flush()


def read_experiment(path: Path) -> tuple[DetectorBenchmarkConfig, str]:
    """Returns what an experiment file measures, and where its results go.

    Args:
        path: YAML with `detectors` (fields of the detector's configuration by name), and optionally
            `question`, `output` and the other fields of `DetectorBenchmarkConfig`.

    Raises:
        InputError: the file is missing, is not such YAML, or a part of it is wrong.
    """
    from dataclasses import fields

    from benchmarks.detector.experiment import DetectorBenchmarkConfig

    content = read_mapping(path)
    known = [
        *OWN_KEYS,
        *(field.name for field in fields(DetectorBenchmarkConfig) if field.name != "detectors"),
    ]
    if not isinstance(content.get("detectors"), dict):
        raise InputError("expected names with the fields that differ", path=path, field="detectors")
    for key in content:
        if key not in known:
            raise InputError(f"unknown key '{key}'; known are {', '.join(known)}", path=path)
    detectors: dict[str, Any] = {}
    for name, own in content["detectors"].items():
        try:
            detectors[str(name)] = config_from({"detector": own or {}})[0].detector
        except InputError as error:
            raise InputError(f"detector '{name}': {error}", path=path) from error
    rest = {key: value for key, value in content.items() if key not in OWN_KEYS}
    try:
        config = DetectorBenchmarkConfig(detectors=detectors, **rest)
    except InputError as error:
        raise InputError(str(error), path=path) from error
    return config, str(content.get("output", f"results/{path.stem}.json"))


if __name__ == "__main__":
    main(sys.argv[1:])
