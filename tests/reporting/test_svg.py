"""Pictures put values where they belong."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.reporting.gate import bin_weights
from o3_lightning.reporting.plane import plane_chart, plane_table
from o3_lightning.reporting.svg import Frame, column_ticks, histogram_bars, line_chart, nice_ticks, thin


def points_of(picture):
    lines = re.findall(r'points="([^"]*)"', picture)
    return [[tuple(float(v) for v in pair.split(",")) for pair in text.split()] for text in lines]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_cover_the_range_in_equal_steps(low, width):
    ticks = nice_ticks(low, low + width)
    rounding = 1e-6 * max(1, abs(low), width)
    assert ticks[0] <= low + rounding
    assert ticks[-1] >= low + width - rounding
    assert 2 <= len(ticks) <= 13


def test_ticks_of_one_value_surround_it():
    assert nice_ticks(2.0, 2.0)[0] < 2.0 < nice_ticks(2.0, 2.0)[-1]


def test_frame_maps_limits_to_the_edges_and_upward():
    frame = Frame((0.0, 10.0), (0.0, 1.0))
    assert frame.across(5.0) == pytest.approx((frame.across(0.0) + frame.across(10.0)) / 2)
    assert frame.upward(1.0) < frame.upward(0.0)


def test_line_chart_is_well_formed_and_to_scale():
    picture = line_chart(
        {"a": [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)]}, x_label="x", y_label="y", description="a <line>"
    )
    assert ElementTree.fromstring(str(picture)).get("aria-label") == "a <line>"
    (x0, y0), (x1, y1), (x2, y2) = points_of(picture)[0]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2


def test_line_chart_of_one_point_and_of_equal_values_draws():
    for points in ([(1.0, 0.0)], [(1.0, 2.0), (2.0, 2.0)], [(1.0, -3.0), (2.0, -1.0)]):
        picture = line_chart({"a": points}, x_label="x", y_label="y", description="d")
        assert len(points_of(picture)[0]) == len(points)
        assert "nan" not in picture


def test_names_in_pictures_are_escaped():
    picture = line_chart(
        {"<b>": [(0.0, 1.0)]}, x_label="<i>", y_label="&", description='"', columns=["<u>", "<s>"]
    )
    assert not re.search(r"<[bius]>", picture)
    ElementTree.fromstring(str(picture))


def test_long_curves_keep_their_mean():
    points = [(float(i), float(i % 7)) for i in range(1000)]
    short = thin(points, most=200)
    assert len(short) == 200
    assert sum(y for _, y in short) / 200 == pytest.approx(sum(y for _, y in points) / 1000)
    assert thin(points[:200], most=200) == points[:200]


def test_column_names_become_numbers_where_they_do_not_fit():
    assert [label for _, label in column_ticks(["base", "a", "b"])] == ["base", "a", "b"]
    many = column_ticks(["base", *(f"a_long_request_{i}" for i in range(30))])
    assert many[0] == (0.0, "base")
    assert all(label == str(int(place)) for place, label in many[1:])
    assert len(many) < 12


def test_bars_are_proportional_and_one_prompt_is_seen():
    picture = histogram_bars([1000, 500, 0, 1], ["w", "x", "y", "z"], "d")
    heights = [float(rect.get("height")) for rect in ElementTree.fromstring(str(picture)).iter("rect")]
    assert heights[0] == 2 * heights[1]
    assert len(heights) == 3
    assert heights[2] >= 1


@given(st.lists(st.floats(0, 1), max_size=50))
def test_every_weight_falls_in_one_bin(weights):
    counts = bin_weights(weights)
    assert sum(counts) == len(weights)
    assert counts[-1] == sum(weight >= 0.95 for weight in weights)


def stand(forget, utility):
    sides = {"forget": forget, "utility": utility}
    return {side: {"value": value, "low": value, "high": value} for side, value in sides.items()}


def test_models_on_the_plane_are_numbered_and_labels_do_not_stand_on_each_other():
    places = {"base": stand(1, 1), "ours": stand(0, 1), "theirs": stand(0.01, 1), "third": stand(0.1, 1)}
    chart = plane_chart(places)
    assert [name for _, name in chart.legend] == ["1 base", "2 ours", "3 theirs", "4 third"]
    found = re.findall(r'<text class="label" x="([\d.]+)" y="([\d.]+)">([\d, ]+)</text>', chart.picture)
    assert [text for *_, text in found] == ["1", "2, 3", "4"]
    boxes = [(float(x), float(y), len(text)) for x, y, text in found]
    assert all(x + 6 * length <= 345 for x, _, length in boxes)
    (left, first, length), (right, second, _) = boxes[1:]
    assert second > first or left + 6 * length < right
    assert plane_table(places).rows[1][0] == "2 ours"
