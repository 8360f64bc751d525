"""Everything on the page can be told apart and read."""

import pytest

from o3_lightning.reporting.colours import LINES, SERIES, contrast, heat_step, line_style, scale, text_on

PAGES = {"light": "#ffffff", "dark": "#12161b"}


def test_contrast_agrees_with_published_values():
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # WCAG's known boundary grey
    assert contrast("#ff0000", "#ffffff") == pytest.approx(4.00, abs=0.01)


@pytest.mark.parametrize("theme", PAGES)
def test_numbers_on_every_heat_colour_can_be_read(theme):
    assert min(contrast(colour, text_on(colour)) for colour in scale(theme)) >= 4.5


@pytest.mark.parametrize("theme", PAGES)
def test_lines_stand_out_from_the_page(theme):
    assert min(contrast(colour, PAGES[theme]) for colour in SERIES[theme]) >= 3


@pytest.mark.parametrize("theme", PAGES)
def test_heat_grows_away_from_the_page_with_the_value(theme):
    distances = [contrast(colour, PAGES[theme]) for colour in scale(theme)]
    assert distances == sorted(distances)
    assert len(set(scale(theme))) == len(distances)


@pytest.mark.parametrize(("value", "step"), [(-3.0, 0), (0.0, 0), (0.25, 5), (1.0, 20), (9.0, 20)])
def test_heat_step_is_proportional_and_clamped(value, step):
    assert heat_step(value) == step


def test_heat_step_of_a_range_of_nothing_is_the_lowest():
    assert heat_step(3.0, 3.0, 3.0) == 0


def test_no_two_lines_look_alike():
    assert len({line_style(place) for place in range(LINES)}) == LINES
