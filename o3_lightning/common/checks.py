"""Checks of configuration fields; an error names the field, what was expected and what was given."""

import math
import sys
from collections.abc import Collection
from typing import Any

from o3_lightning.common.errors import InputError

Range = tuple[float, float]  # both ends included; NaN and infinity are in no range
MOST, ABOVE_0, UNDER_1 = sys.float_info.max, math.ulp(0.0), math.nextafter(1, 0)
AT_LEAST_0: Range = (0, MOST)
AT_LEAST_1: Range = (1, MOST)
ANY_POSITIVE: Range = (ABOVE_0, MOST)
FRACTION: Range = (0, 1)
BELOW_1: Range = (0, UNDER_1)
UP_TO_1: Range = (ABOVE_0, 1)
INSIDE: Range = (ABOVE_0, UNDER_1)
OPEN = {ANY_POSITIVE: "above 0", BELOW_1: "in [0, 1)", UP_TO_1: "in (0, 1]", INSIDE: "in (0, 1)"}


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
            closed = f"{low:g} to {high:g}" if high < MOST else f"{low:g} or more"
            refuse(section, name, f"a number {OPEN[low, high]}" if (low, high) in OPEN else closed, value)


def check_choice(config: object, section: str, name: str, choices: Collection[str]) -> None:
    """Raises InputError if a field of a configuration is none of the choices."""
    check_among(getattr(config, name), choices, f"{section}.{name}" if section else name)


def check_among(value: object, choices: Collection[str], field: str) -> None:
    """Raises InputError if the value of a field is none of the choices."""
    if value not in choices:
        expected = f"one of {', '.join(choices)}" if choices else "nothing, for no plug-in registers any"
        raise InputError(f"expected {expected}, got {value!r}", field=field)


def refuse(section: str, name: str, expected: str, value: Any) -> None:
    """Raises the InputError of a field."""
    raise InputError(f"expected {expected}, got {value}", field=f"{section}.{name}" if section else name)
