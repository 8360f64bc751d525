"""The command by which this program was started, so that messages can repeat it."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["program_name"]


def program_name() -> str:
    """Returns "python train.py", "python -m o3_lightning" or, however else it was started, "o3-lightning"."""
    path = Path(sys.argv[0])
    if path.name == "train.py":
        return f"python {sys.argv[0]}"
    in_package = path.name == "__main__.py" and path.parent.name == "o3_lightning"
    return "python -m o3_lightning" if in_package else "o3-lightning"
