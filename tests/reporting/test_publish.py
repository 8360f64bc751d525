"""What Weights & Biases is given: tables, and never text that the run did not keep."""

import json
from pathlib import Path

import pytest

from o3_lightning.reporting.publish import publish, tables_of
from o3_lightning.reporting.report import ReportDetails
from o3_lightning.training.loggers import kept_id

MATRIX = {"rows": ["one"], "columns": ["base", "one"], "values": [[1.0, 0.0]]}
METRICS = {
    "requests": ["one"],
    "columns": ["base", "one"],
    "persistence": {"accuracy": {"held_out": MATRIX}},
    "utility": {},
    "utility_metrics": {},
    "detector": {},
    "u2r": None,
    "seconds": {},
    "peak_memory_mib": 1.0,
}


def test_numbers_are_numbers_and_empty_tables_are_left_out():
    tables = tables_of(METRICS, ReportDetails("run"))
    assert list(tables) == ["metrics"]
    columns, rows = tables["metrics"]
    assert dict(zip(columns, rows[1], strict=True)) == {
        "kind": "forget",
        "request": "one",
        "split": "held_out",
        "metric": "accuracy",
        "column": "one",
        "value": 0.0,
        "low": None,
        "high": None,
    }


def test_text_is_given_only_where_the_run_kept_it():
    kept = ReportDetails("run", samples=[{"prompt": "secret?"}], mistakes={"one": []})
    assert "secret?" not in json.dumps(tables_of(METRICS, ReportDetails("run", mistakes={"one": []})))
    assert tables_of(METRICS, kept)["samples"][1][0][2] == "secret?"


class Recorder:
    """Takes what a run of Weights & Biases is given."""

    def __init__(self):
        self.config, self.summary, self.logged, self.files = self, {}, {}, []

    def update(self, values, **_):
        self.summary |= values

    def log(self, values, step=None):
        self.logged |= values

    def log_artifact(self, artifact):
        self.files += artifact.manifest.entries


@pytest.mark.parametrize("text", [False, True])
def test_report_samples_and_mistakes_are_sent_only_if_asked_for(text, tmp_path):
    for name in ("metrics.json", "report.html"):
        (tmp_path / name).write_text("{}")
    kept = ReportDetails("run", samples=[{"prompt": "secret?"}], configuration="name: run")
    run = Recorder()
    publish(run, tmp_path, METRICS, kept, text=text)
    assert "tables/metrics" in run.logged
    assert ("report" in run.logged, "tables/samples" in run.logged, "report.html" in run.files) == (text,) * 3


def test_a_service_that_fails_costs_a_log_line(caplog):
    class Broken:
        @property
        def config(self):
            raise OSError("no network\nat all")

    publish(Broken(), Path("nowhere"), METRICS, ReportDetails("run", configuration="name: run"))
    assert "no network at all" in caplog.text


def test_the_id_of_a_run_is_kept(tmp_path):
    first = kept_id(tmp_path / "id.txt")
    assert kept_id(tmp_path / "id.txt") == first != kept_id(tmp_path / "other.txt")
