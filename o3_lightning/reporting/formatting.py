"""Readable forms of numbers and of the names of metrics, splits and measures."""

import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypeGuard

import yaml

DASH = "–"
OWN_SPLITS = ("seen", "held_out")
UNDECIDED = "mixed_names"  # first names of forgotten people with other last names
TEXTS: Mapping[str, Any] = yaml.safe_load(
    files("o3_lightning.reporting").joinpath("templates/texts.yaml").read_text(encoding="utf-8")
)
SECONDS_PER_MINUTE = 60
TINY = 1e-3
UNITS = ("B", "KiB", "MiB", "GiB")
KIBI = 1024
FEWER_DECIMALS = 10


def is_own(request: str, split: str) -> bool | None:
    """Whether a split asks about a request; None where it has no right side, or is of a topic's test file."""
    return None if split in (UNDECIDED, f"test_{request}") else split in OWN_SPLITS


def name_of(key: str) -> str:
    """Returns a readable name of a metric, split or measure.

    Example:
        >>> name_of("held_out"), name_of("retained_authors")
        ('Held-out', 'Retained authors')
    """
    plain = key.replace("_", " ")
    return str(TEXTS["names"].get(key, plain[:1].upper() + plain[1:]))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fraction(value: Any) -> str:
    """Returns a number with three decimals, with one from ten on; a dash for what was not measured.

    Example:
        >>> fraction(0.98765), fraction(88.21), fraction(-0.00001), fraction(None)
        ('0.988', '88.2', '0.000', '–')
    """
    if not is_number(value):
        return DASH
    text = f"{value:.3f}" if abs(value) < FEWER_DECIMALS else f"{value:.1f}"
    return text.replace("-0.000", "0.000").replace("-", "\N{MINUS SIGN}")


def number(value: Any) -> str:
    """Returns a number of any size with four significant digits.

    Example:
        >>> number(1234567.0), number(0.00001234), number(3.0)
        ('1,234,567', '1.234e-05', '3')
    """
    if not is_number(value):
        return DASH
    if value and abs(value) < TINY:
        return f"{value:.4g}"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(value: Any, *, sign: bool = False) -> str:
    """Returns a fraction in percent with one decimal; `sign` puts a plus before positive values.

    Example:
        >>> percent(0.9874), percent(0.021, sign=True)
        ('98.7 %', '+2.1 %')
    """
    if not is_number(value):
        return DASH
    text = f"{100 * value:{'+' if sign else ''}.1f}"
    text = text if text.strip("+-0.") else "0.0"
    return text.replace("-", "\N{MINUS SIGN}") + " %"


def seconds(value: Any) -> str:
    """Returns a time in seconds, from a minute on in minutes and seconds."""
    if not is_number(value):
        return DASH
    if value < SECONDS_PER_MINUTE:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), SECONDS_PER_MINUTE)
    return f"{minutes} min {rest} s"


def mebibytes(value: Any) -> str:
    """Returns a size in MiB without decimals, such as "2,048 MiB"."""
    return f"{value:,.0f} MiB" if is_number(value) else DASH


def binary_size(value: Any) -> str:
    """Returns a number of bytes in the largest unit that gives at least one."""
    if not is_number(value):
        return DASH
    for unit in UNITS:
        if value < KIBI or unit == UNITS[-1]:
            break
        value /= KIBI
    return f"{value:,.0f} {unit}" if unit == UNITS[0] else f"{value:,.1f} {unit}"
