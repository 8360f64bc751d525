"""The page as a whole: complete, self-contained, safe, and right."""

import json
import re
from html.parser import HTMLParser

import pytest

from o3_lightning.reporting.outcome import curves_section
from o3_lightning.reporting.report import ReportDetails, render_report
from o3_lightning.reporting.verdict import gate_findings

VOID = {"meta", "link", "br", "hr", "img", "input"}
SECTIONS = [
    "summary",
    "plane",
    "persistence",
    "utility",
    "weights",
    "mistakes",
    "detector",
    "reference",
    "robustness",
    "samples",
    "training",
    "overlaps",
    "cost",
    "configuration",
    "environment",
]
HOSTILE = "</pre></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'><b>&amp; {{ 7 * 7 }}"


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed by its own end tag."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.pieces, self.cells = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    @property
    def text(self):
        return " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if "id" in dict(attrs):
            self.ids.append(dict(attrs)["id"])
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.pieces.append(data)
        if self.open and self.open[-1] == "td":
            self.cells.append(data.strip())


def example_metrics():
    def matrix(values):
        return {"rows": ["a", "b"], "columns": ["base", "a", "b"], "values": values}

    row = {"auroc": 0.987, "aupr": 0.95, "fpr95": 0.031, "mean_weight": 0.012, "prompts": 40}
    unclear = {**row, "auroc": 0.5, "mean_weight": 0.5}  # neither of the request nor of others, or its own
    own = {"auroc": None, "aupr": None, "fpr95": None, "mean_weight": 0.876, "prompts": 12}
    return {
        "benchmark": "fictitious",
        "requests": ["a", "b"],
        "persistence": {
            "accuracy": {
                "seen": matrix([[1.0, 0.125, 0.25], [1.0, 0.875, 0.0]]),
                "held_out": matrix([[0.75, 0.5, 0.5], [0.75, 0.75, 0.3125]]),
            },
            "truth_ratio": {"seen": matrix([[0.1, 0.9, 0.8], [0.2, 0.3, None]])},
        },
        "utility": {"retained": [0.8, 0.8, 0.76]},
        "utility_metrics": {"accuracy": {"retained": [0.8, 0.8, 0.76]}},
        "detector": {
            "a": {"seen": own, "retained": row},
            "b": {"retained": {**row, "auroc": 0.654}, "mixed_names": unclear, "test_b": unclear},
        },
        "plane": {
            "base": {
                "forget": {"value": 0.75, "low": 0.5, "high": 0.875, "rows": 24},
                "utility": {"value": 0.8, "low": 0.7, "high": 0.9, "rows": 40},
            },
            "end": {
                "forget": {"value": 0.40625, "low": 0.25, "high": 0.625, "rows": 24},
                "utility": {"value": 0.76, "low": 0.65, "high": 0.84, "rows": 40},
            },
        },
        "calibration": {"a": 0.0625, "b": None},
        "answer_checks": {"mode": "on", "answers": 64, "refused": {"a": 3, "b": 0, "utility": 1}},
        "confusion": {
            "rows": ["a", "b", "utility"],
            "columns": ["a", "b", "none"],
            "values": [[11, 1, 0], [0, 12, 0], [2, 0, 38]],
        },
        "u2r": 17.5,
        "backward_transfer": {"accuracy": {"seen": 0.125, "held_out": 0.0}},
        "adapters": {"a": {"loss": 0.5, "steps": 20.0}},
        "seconds": {"00-base-evaluate": 30.0, "01-a-unlearn": 60.0},
        "peak_memory_mib": 1234.4,
        "environment": {"torch": "9.9.9"},
    }


def example_details(**changes):
    values = {
        "title": "my run",
        "weights": {"a": {"seen": [1.0, 0.97, 0.2], "retained": [0.0, 0.01]}},
        "mistakes": {"a": [{"split": "seen", "prompt": "Who was missed?", "weight": 0.2}], "b": []},
        "curves": {"a": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}], "b": [{"loss": 2.0}]},
        "samples": (
            {
                "split": "seen",
                "request": "a",
                "prompt": "Where?",
                "truth": "Oslo",
                "before": "In Oslo.",
                "after": "I do not know.",
                "weights": {"b": 0.0, "a": 0.987},
            },
        ),
        "configuration": "name: my run\n",
        "overlaps": {"update_cosine": {"rows": ["a", "b"], "values": [[1.0, -0.25], [-0.25, 1.0]]}},
    }
    return ReportDetails(**{**values, **changes})


@pytest.fixture(scope="module")
def page():
    return Page(render_report(example_metrics(), example_details()))


def test_every_section_is_there_once_and_linked(page):
    assert page.ids == SECTIONS
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert {f"#{name}" for name in SECTIONS} == links


def test_values_come_out_right(page):
    for expected in (
        "Forget 12.5 %",  # mean of 0.25 and 0.0, seen, last column
        "Held-out 40.6 %",
        "Base model, seen 100.0 %",
        "Utility 95.0 %",  # 0.76 of 0.8
        "Drop ratio (U2R) 17.5",
        "Persistence +12.5 %",
        "Gate 0.654",  # the lowest
        "Mean weight inside 0.876",
        "Refused by answer check 4 of 64",
        "gate.check_answers was on; answers that it refused at the end: a 3, utility 1.",
        "Cost 1 min 30 s",
        "Peak memory 1,234 MiB",
        "benchmark fictitious",
        "torch 9.9.9",
        "name: my run",
        "I do not know. a 0.987 b 0.000",  # weights, largest first
    ):
        assert expected in page.text, expected


def test_table_cells_hold_the_measured_numbers(page):
    assert page.cells[:2] == ["0.750 (0.500–0.875)", "0.800 (0.700–0.900)"]  # base model on the plane
    assert page.cells[4:10] == ["1.000", "0.125", "0.250", "1.000", "0.875", "0.000"]
    assert {"0.987", "0.031", "–", "−0.250"} <= set(page.cells)
    assert "1 of 3" in page.cells  # one seen prompt under 0.5
    assert "0 of 2" in page.cells


def test_line_stands_where_a_request_is_unlearned(page):
    marked = [attrs["title"] for tag, attrs in page.tags if tag == "td" and "own" in attrs.get("class", "")]
    assert marked[:2] == ["a, seen, a: 0.125", "b, seen, b: 0.000"]


def test_page_needs_nothing_from_outside(page):
    text = render_report(example_metrics(), example_details())
    assert "http" not in text
    assert "//" not in re.sub(r"/\*.*?\*/", "", text)
    assert "url(" not in text
    assert "@import" not in text
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    assert not any("src" in attrs or "on" in {key[:2] for key in attrs} for _, attrs in page.tags)


def test_page_follows_light_and_dark_and_narrow_screens():
    text = render_report(example_metrics(), example_details())
    assert "prefers-color-scheme:dark" in text
    assert "width=device-width" in text
    assert "max-width:560px" in text


def test_every_picture_has_a_description(page):
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert pictures
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in pictures)


def hostile_inputs():
    metrics, sample = example_metrics(), dict(example_details().samples[0])
    renamed = json.loads(json.dumps(metrics).replace('"a"', json.dumps(HOSTILE)))
    renamed["environment"][HOSTILE] = HOSTILE
    renamed["seconds"][HOSTILE] = 1.0
    renamed["utility_metrics"][HOSTILE] = {HOSTILE: [1.0, 0.5, 0.5]}
    renamed["benchmark"] = HOSTILE
    details = example_details(
        title=HOSTILE,
        configuration=HOSTILE,
        samples=({**sample, **dict.fromkeys(("prompt", "truth", "before", "after", "split"), HOSTILE)},),
        curves={HOSTILE: [{HOSTILE: 1.0}]},
        weights={HOSTILE: {HOSTILE: [0.5]}},
        overlaps={HOSTILE: {"rows": [HOSTILE], "values": [[1.0]]}},
    )
    return renamed, details


def test_hostile_text_stays_text(page):
    hostile = Page(render_report(*hostile_inputs()))
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in page.tags} | {"h3"}
    assert hostile.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7 * 7 }}" in hostile.text
    assert all(not key.startswith("on") for _, attrs in hostile.tags for key in attrs)


@pytest.mark.parametrize("requests", [[], ["a"]])
def test_empty_metrics_leave_a_sentence_for_each_picture(requests):
    page = Page(render_report({"requests": requests}, ReportDetails("bare")))
    assert page.ids == SECTIONS
    assert sum(attrs.get("class") == "missing" for _, attrs in page.tags) == len(SECTIONS) - 1
    assert "table" not in {tag for tag, _ in page.tags}


@pytest.mark.parametrize("key", sorted(set(example_metrics()) - {"requests"}))
@pytest.mark.parametrize("value", ["missing", None])
def test_any_key_but_requests_may_be_missing(key, value):
    metrics = {**example_metrics(), key: value}
    if value == "missing":
        del metrics[key]
    assert Page(render_report(metrics, example_details())).ids == SECTIONS


def test_utility_of_accuracy_stands_in_for_missing_utility_metrics():
    metrics = example_metrics()
    del metrics["utility_metrics"]
    assert "0.760" in Page(render_report(metrics, example_details())).cells


def test_numbers_that_are_not_finite_are_dashes():
    metrics = example_metrics()
    metrics["persistence"]["accuracy"]["seen"]["values"] = [[float("nan")] * 3, [float("inf")] * 3]
    details = example_details(curves={"a": [{"loss": float("nan")}, {"loss": 1.0}]})
    text = render_report(metrics, details)
    assert not re.search(r"\b(nan|inf)\b", Page(text).text)
    assert "nan" not in " ".join(re.findall(r' d="([^"]*)"', text))


def test_twenty_requests_are_folded_beyond_the_first_few():
    names = [f"request-{i}" for i in range(20)]
    metrics = {"requests": names, "utility": {"retained": [1.0] * 21}}
    details = ReportDetails("long", weights={name: {"seen": [1.0]} for name in names})
    text = Page(render_report(metrics, details)).text
    assert "17 more requests" in text


def test_summary_speaks_of_another_metric_where_accuracy_was_not_measured():
    metrics = example_metrics()
    metrics["persistence"]["probability"] = metrics["persistence"].pop("accuracy")
    assert "Probability on forget prompts" in Page(render_report(metrics, example_details())).text


def test_only_the_largest_weights_of_an_answer_are_listed():
    weights = {f"r{i}": i / 10 for i in range(9)}
    sample = {**example_details().samples[0], "weights": weights}
    text = Page(render_report(example_metrics(), example_details(samples=(sample,)))).text
    assert "r8 0.800 r7 0.700 r6 0.600 r5 0.500 5 more, none higher" in text


def test_stages_stand_in_the_order_in_which_they_ran():
    kinds = ("protect", "unlearn", "evaluate")
    of_requests = [f"{number:02}-a-{kind}" for number in (1, 2, 100) for kind in kinds]
    ran = ["00-base-evaluate", *of_requests, "detectors", "overlaps"]
    page = render_report({**example_metrics(), "seconds": dict.fromkeys(sorted(ran), 1.0)}, example_details())
    cost = page[page.index('id="cost"') : page.index('id="configuration"')]
    assert sorted(ran, key=cost.index) == ran


def test_steps_without_a_number_are_counted_from_one():
    bare = [{"loss": value} for value in (3.0, 2.0, 1.0)]
    numbered = [{**step, "step": place} for place, step in enumerate(bare, start=1)]
    assert curves_section({"a": bare}, {}) == curves_section({"a": numbered}, {})


@pytest.mark.parametrize(
    ("metric", "label", "sentence"),
    [
        ("probability", "Probability (fraction)", "on forget prompts lower is better"),
        (
            "truth_ratio@closer_look",
            "Truth ratio@closer look (fraction)",
            "on forget prompts lower is better",
        ),
        ("token_entropy", "Token entropy (fraction)", "on forget prompts higher is better"),
        ("mia_loss", "Mia loss", "membership value: mean loss per token"),
    ],
)
def test_a_metric_is_told_with_its_own_unit_and_direction(metric, label, sentence):
    matrix = {"rows": ["a"], "columns": ["base", "a"], "values": [[1.5, 2.5]]}
    metrics = {
        "requests": ["a"],
        "persistence": {metric: {"seen": matrix}},
        "utility_metrics": {metric: {"kept": [1.5, 2.5]}},
    }
    page = render_report(metrics, ReportDetails("test"))
    assert f">{label}</text>" in page
    assert ("(fraction)" in page) == label.endswith("(fraction)")
    assert page.count(sentence) >= 2  # beside the map and under the numbers


def test_the_first_line_is_the_worst_truth_and_says_its_grade(page):
    lines = [
        "red 50.0 % of the other wordings of a are still answered right.",
        "red 1 of 3 questions of a get past the gate.",
        "green 5.0 % of the base model's accuracy on “retained” is lost.",
        "green 0 of 2 prompts of “retained” are taken for a.",
    ]
    places = [page.text.index(line) for line in lines]
    assert places == sorted(places)
    assert places[0] < page.text.index("Unlearning report") < places[1]
    assert "missed 5.0 % / 20.0 %" in page.text


@pytest.mark.parametrize("split", ["mixed_names", "test_a"])
def test_prompts_that_may_well_be_recognised_are_no_false_alarms(split):
    assert list(gate_findings({"a": {split: [1.0, 1.0]}})) == []
    assert [found.badness for found in gate_findings({"a": {"other": [1.0, 0.0]}})]


def test_a_base_model_that_hardly_knew_is_warned_about_and_named():
    metrics = example_metrics()
    for matrix in metrics["persistence"]["accuracy"].values():
        matrix["values"][0] = [0.067, 0.0, 0.0]
    text = Page(render_report(metrics, example_details(configuration="base: {id: some/model}\n"))).text
    assert "The base model answered only 6.7 % of the questions about a right" in text
    assert "questions about b right" not in text
    assert "base model some/model" in text


def test_what_a_detector_warned_of_when_it_was_fitted_stands_in_the_report():
    metrics = {**example_metrics(), "fit_warnings": {"a": ["add rows that say only the surname"]}}
    text = Page(render_report(metrics, example_details())).text
    assert "Detector of a: add rows that say only the surname." in text


def test_a_sample_of_the_rows_is_said_to_be_one():
    metrics = {**example_metrics(), "sampled": {"utility/kept": [256, 4000]}}
    assert (
        "a sample drawn by the seed: 256 of 4,000 rows of kept"
        in Page(render_report(metrics, example_details())).text
    )


def test_a_run_of_which_nothing_is_known_has_no_verdict():
    assert 'class="verdict' not in render_report({"requests": []}, ReportDetails("demo"))
