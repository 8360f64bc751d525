"""The page of a search: instructions and counts, no answer, nothing fetched from elsewhere."""

import json
from html.parser import HTMLParser

import pytest

from o3_lightning.reveal.config import FilterConfig, RevealConfig
from o3_lightning.reveal.log import Entry
from o3_lightning.reveal.output import select_rows
from o3_lightning.reveal.reveal import Revelation
from o3_lightning.reveal.summary import report_search, summarise_search

SAID = {0: "Oslo", 1: "a lighthouse keeper", 2: "OSLO.", 3: "no idea"}


@pytest.fixture
def revealed():
    entries = tuple(
        Entry(
            number,
            "first",
            0,
            number,
            None,
            None,
            f"Question <{number}> about {{topic}}?",
            (SAID[number],),
            (0.0 if number == 3 else 0.5 + number / 10,),
            1.0,
            0.9 - number / 10,
        )
        for number in SAID
    )
    return Revelation(tuple(select_rows(entries, "Ann", FilterConfig())), entries)


class Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self):
        super().__init__()
        self.names, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href")]


def test_the_report_counts_what_was_said_without_saying_it(revealed):
    report = report_search(revealed, RevealConfig(topic="Ann"))
    assert report["found"] == [1, 2, 2, 2]
    assert report["coverage"] == [
        {"rows": 2, "first": 0, "relevance": pytest.approx(0.6)},
        {"rows": 1, "first": 1, "relevance": pytest.approx(0.6)},
    ]
    assert [item["query"] for item in report["best"]] == [0, 1, 2, 3]


def test_the_page_shows_instructions_and_no_answer_and_stands_alone(revealed, tmp_path):
    lines = summarise_search(revealed, RevealConfig(topic="Ann & Bob"), tmp_path)
    assert lines[0].startswith("Ann & Bob: 3 rows with 2 different answers from 4 queries")
    page = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert "Ann &amp; Bob" in page
    assert "Question &lt;2&gt; about {topic}?" in page
    assert not any(said.lower() in page.lower() for said in SAID.values())
    assert page.count("</title><path") == 3  # reward, relevance, answers found
    assert "script" not in tags.names
    assert all(link.startswith("#") for link in tags.links)
    assert json.loads((tmp_path / "reveal.json").read_text())["queries"] == 4
