"""Pictures put values where they belong."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.reporting.gate import bin_weights, histogram
from o3_lightning.reporting.outcome import plane_table
from o3_lightning.reporting.pictures import column_ticks, line_chart, plane_chart, thin


def points_of(picture):
    """The points of each drawn line, in pixels."""
    shapes = ElementTree.fromstring(str(picture)).iterfind(".//g[title]/path")
    found = (re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", shape.get("d")) for shape in shapes)
    return [[(float(x), float(y)) for x, y in pairs] for pairs in found]


def drawn(points, **options):
    words = {"x_label": "x", "y_label": "y", "description": "d", **options}
    return line_chart("caption", points, **words)


def test_line_chart_is_well_formed_and_to_scale():
    picture = drawn({"a": [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)]}, description="a <line>").picture
    assert ElementTree.fromstring(str(picture)).get("aria-label") == "a <line>"
    (x0, y0), (x1, y1), (x2, y2) = points_of(picture)[0]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2


def test_line_chart_of_one_point_and_of_equal_values_draws():
    for points in ([(1.0, 0.0)], [(1.0, 2.0), (2.0, 2.0)], [(1.0, -3.0), (2.0, -1.0)]):
        picture = drawn({"a": points}).picture
        assert picture.count("<circle") == len(points)
        assert "nan" not in picture
        assert all(0 < y < 200 for line in points_of(picture) for _, y in line)


def test_lines_without_points_are_left_out_and_the_others_keep_their_colours():
    lines = {"a": [], "b": [(0.0, 1.0), (1.0, 0.0)]}
    chart = drawn(lines)
    assert [name for _, name in chart.legend] == ["b"]
    assert chart.legend == drawn({**lines, "a": lines["b"]}).legend[1:]


def test_pictures_repeat_to_the_byte_and_hold_no_id_and_no_colour_of_their_own():
    lines = {str(n): [(0.0, n), (1.0, n / 2)] for n in range(7)}
    picture = drawn(lines).picture
    assert picture == drawn(lines).picture
    assert not re.search(r"#|\bid=|font|url", picture)
    assert {f"var(--series-{n})" for n in range(6)} <= set(re.findall(r"var\([a-z0-9-]+\)", picture))


def test_names_in_pictures_are_escaped():
    picture = drawn(
        {"<b>": [(0.0, 1.0)]}, x_label="<i>", y_label="$x & y$", description='"', columns=["<u>", "<s>"]
    ).picture
    assert not re.search(r"<[bius]>", picture)
    texts = [element.text for element in ElementTree.fromstring(str(picture)).iter("text")]
    assert {"<i>", "$x & y$", "<u>", "<s>"} <= set(texts)


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
    picture = histogram([1000, 500, 0, 1], "d")
    heights = [float(height) for height in re.findall(r"height:([\d.]+)%", picture)]
    assert heights[0] == 2 * heights[1]
    assert heights[2] == 0
    assert heights[3] >= 3
    assert "weight 0 to 0.25: 1000 of 1501" in picture


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
    texts = list(ElementTree.fromstring(str(chart.picture)).iter("text"))
    found = [text for text in texts if text.text in ("1", "2, 3", "4")]
    assert [text.text for text in found] == ["1", "2, 3", "4"]
    assert [text.get("text-anchor") for text in found] == ["end", "start", "start"]
    boxes = [(float(text.get("x")), float(text.get("y")), len(text.text)) for text in found]
    assert all(x + 6 * length <= 345 for x, _, length in boxes)
    (left, first, length), (right, second, _) = boxes[1:]
    assert second > first or left + 6 * length < right
    assert plane_table(places).rows[1][0] == "2 ours"
