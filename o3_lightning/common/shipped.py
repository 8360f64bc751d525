"""The files shipped with the package, such as configurations and example requests, found by name."""

import difflib
import os
from pathlib import Path

from o3_lightning.common.errors import InputError


def shipped_folder() -> Path:
    """Returns the folder of the shipped files: `o3_lightning/configs` when installed, else the checkout's."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_configs() -> list[str]:
    """Returns the names of the shipped configurations, such as "demo" and "overlays/paper"."""
    root = shipped_folder()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def locate(name: str | Path, *, beside: Path | None = None) -> Path | None:
    """Returns the path of a file as `find_file`, or None where there is none."""
    shipped = shipped_folder() / name
    places = ((beside or Path()) / name, shipped, shipped.with_name(f"{shipped.name}.yaml"))
    return next((path for path in places if os.path.isfile(path)), None)  # False for a name that is too long


def find_file(name: str | Path, *, beside: Path | None = None) -> Path:
    """Returns the path of a file that is named by its path or by its shipped name; the path wins.

    Args:
        name: a path; or a shipped file, such as "requests/france.jsonl", where ".yaml" may be left out.
        beside: the folder that a relative path starts from; the working directory by default.

    Raises:
        InputError: there is no such file; the message names the nearest shipped configuration.
    """
    path = locate(name, beside=beside)
    if path is not None:
        return path
    known = shipped_configs()
    near = difflib.get_close_matches(str(name).removesuffix(".yaml").removeprefix("configs/"), known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"shipped are {', '.join(known)}"
    raise InputError(f"there is no such file, and no shipped configuration of this name; {hint}", path=name)
