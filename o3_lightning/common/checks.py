"""Checks of configuration fields; an error names the field, what was expected and what was given."""

import math
import sys
from collections.abc import Collection
from typing import Any

from o3_lightning.common.errors import InputError

Range = tuple[float, float]  # both ends included; NaN and infinity are in no range
AT_LEAST_0: Range = (0, sys.float_info.max)
AT_LEAST_1: Range = (1, sys.float_info.max)
ANY_POSITIVE: Range = (math.ulp(0.0), sys.float_info.max)
FRACTION: Range = (0, 1)


def check_ranges(config: object, section: str = "", /, **ranges: Range) -> None:
    """Checks that numbers of a configuration are within their ranges.

    Args:
        config: holds the fields.
        section: of the configuration, such as "search"; empty for the top level.
        ranges: smallest and largest allowed value by field.

    Raises:
        InputError: a number is outside its range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            expected = f"{low:g} to {high:g}" if high < sys.float_info.max else f"{low:g} or more"
            expected = "a number above 0" if (low, high) == ANY_POSITIVE else expected
            refuse(section, name, expected, value)


def check_choice(config: object, section: str, name: str, choices: Collection[str]) -> None:
    """Checks that a field is one of the choices.

    Raises:
        InputError: it is not.
    """
    if getattr(config, name) not in choices:
        refuse(section, name, f"one of {', '.join(choices)}", repr(getattr(config, name)))


def refuse(section: str, name: str, expected: str, value: Any) -> None:
    """Raises the InputError of a field."""
    raise InputError(f"expected {expected}, got {value}", field=f"{section}.{name}" if section else name)
