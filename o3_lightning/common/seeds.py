"""Seeds of stages: each depends on the run's seed, the stage and the request, and on nothing done before."""

from __future__ import annotations

import zlib

__all__ = ["stage_seed"]


def stage_seed(seed: int, stage: str, request: str) -> int:
    """Returns a seed of 32 bits that depends on the run's seed, the stage and the request alone.

    Example:
        >>> stage_seed(0, "adapter", "a") == stage_seed(0, "adapter", "a") != stage_seed(1, "adapter", "a")
        True
    """
    return zlib.crc32(f"{seed}/{stage}/{request}".encode())
