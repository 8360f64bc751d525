"""Seeds of the stages of a run, independent of what ran before."""

import zlib


def stage_seed(seed: int, stage: str, request: str) -> int:
    """Returns a 32-bit seed that depends only on the run's seed, the stage and the request.

    Example:
        >>> stage_seed(0, "adapter", "a") == stage_seed(0, "adapter", "a") != stage_seed(1, "adapter", "a")
        True
    """
    return zlib.crc32(f"{seed}/{stage}/{request}".encode())
