"""Colours of the page: a scale for heat maps and a few colours for lines, for light and dark.

The text of a coloured cell is black or white, whichever has more contrast: at least 4.5 to 1. Lines have at
least 3 to 1 to the page (WCAG 2.2, success criteria 1.4.3 and 1.4.11) and differ in their dashes too.
"""

from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

STEPS = 21
SCALES = {"light": ("#f1f5fa", "#86b4de", "#0a4a86"), "dark": ("#1d2732", "#2f6ea8", "#b4d8fb")}
SERIES = {
    "light": ("#0072b2", "#c2500a", "#00785a", "#a8497f", "#866a00", "#5b5bd6"),
    "dark": ("#5cb3f0", "#ff9b5c", "#3ccb9e", "#f08cc0", "#e3c04a", "#a9a8ff"),
}
DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 2", "1 2")
LINES = len(DASHES) ** 2
LINEAR_BELOW = 0.04045


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", 0 to 1, as WCAG defines it."""
    red, green, blue = (
        part / 12.92 if part <= LINEAR_BELOW else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)
    )
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def contrast(first: str, second: str) -> float:
    """Returns the contrast ratio of two colours, 1 to 21, as WCAG defines it."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def text_on(colour: str) -> str:
    """Returns black or white, whichever has more contrast to a colour."""
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, colour))


def scale(theme: str) -> list[str]:
    """Returns the colours of the heat scale of "light" or "dark", from lowest to highest."""
    colours = LinearSegmentedColormap.from_list(theme, SCALES[theme])
    return [to_hex(colours(step / (STEPS - 1))) for step in range(STEPS)]


def heat_step(value: float, low: float = 0.0, high: float = 1.0) -> int:
    """Returns the position of a value on the heat scale, 0 to STEPS - 1, clamped.

    Example:
        >>> heat_step(0.0), heat_step(0.5), heat_step(2.0)
        (0, 10, 20)
    """
    share = (value - low) / (high - low) if high > low else 0.0
    return round(min(max(share, 0.0), 1.0) * (STEPS - 1))


def line_style(series: int) -> tuple[int, str]:
    """Returns colour number and SVG dashes ("" for solid) of a line; the first 36 are all different."""
    turn, colour = divmod(series % LINES, len(DASHES))
    return colour, DASHES[(colour + turn) % len(DASHES)]


def palette_css(theme: str) -> str:
    """Returns the CSS variables of one theme: heat cells, their text, and lines."""
    heat = [f"--heat-{i}:{c};--ink-{i}:{text_on(c)};" for i, c in enumerate(scale(theme))]
    return "".join(heat + [f"--series-{i}:{colour};" for i, colour in enumerate(SERIES[theme])])


def heat_css() -> str:
    """Returns the CSS classes of heat cells."""
    return "\n".join(f".h{i}{{background:var(--heat-{i});color:var(--ink-{i})}}" for i in range(STEPS))
