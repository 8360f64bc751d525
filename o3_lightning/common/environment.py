"""The environment of a measurement: package versions, machine, commit."""

import importlib.metadata
import os
import platform
import resource
import subprocess  # only git is called, with fixed arguments
import sys
from pathlib import Path

import torch

PACKAGES = ("o3-lightning", "torch", "transformers", "peft", "lightning", "scikit-learn")
KIBIBYTES = 1024


def describe_environment() -> dict[str, str]:
    """Returns names and versions of everything that affects the numbers of a run."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions = {name: version_of(name) for name in PACKAGES}
    return {
        **versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count() or 1),
        "commit": commit(),
    }


def version_of(package: str) -> str:
    """Returns a package's version, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Returns the commit of the checkout that the code runs from, or "none"."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "none"
    return done.stdout.strip()


def peak_memory_mib() -> float:
    """Returns the peak resident memory of this process plus its peak GPU memory, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host = peak / KIBIBYTES if sys.platform != "darwin" else peak / KIBIBYTES**2
    gpu = torch.cuda.max_memory_allocated() / KIBIBYTES**2 if torch.cuda.is_available() else 0.0
    return round(host + gpu, 1)
