"""What other commands leave in a run's folder, and how the report shows it."""

import json

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.reporting.cards import attack_cards
from o3_lightning.reporting.external_results import (
    read_attacks,
    read_comparisons,
    read_places,
    reference_section,
    robustness_section,
)
from o3_lightning.reporting.verdict import attack_findings


def attack_rows():
    shared = {"group": "wrapping", "member": "test", "base_leak": 1.0, "attempts": 4, "caught": 0.5}
    shared |= {"false_alarm": 0.125, "utility": 0.9, "base_utility": 1.0}
    off = {"attack": "adapter_off", "group": "weights", "member": None, "base_leak": 1.0}
    return [
        {"attack": "role_play", "request": "a", "leak": 0.25, **shared},
        {"attack": "role_play", "request": "b", "leak": 0.75, **shared},
        {"attack": "cyphers", "request": "a", "leak": 0.0, **shared, "base_leak": 0.0},
        {"request": "a", "leak": 1.0, **off},
        {"request": "b", "leak": None, **off},
    ]


def test_the_tables_pool_the_requests_and_set_the_largest_leak_first():
    summary, most, weights, wrapping, silent, _ = robustness_section(attack_rows()).blocks
    assert summary.rows == [
        [
            "Test",
            "2 (1 with a base leak of 5 % or more)",
            "0.500",
            "Role play: 0.500",
            "0.500",
            "0.125",
        ]
    ]
    assert [row[:3] for row in most.rows] == [["Adapter off", "–", "1.000"], ["Role play", "test", "0.500"]]
    assert most.rows[1][3:] == ["1.000", "0.500", "0.125", "0.900", "1.000"]
    assert [fold.title for fold in (weights, wrapping)] == ["Weights", "Wrapping"]
    assert silent.blocks[0].rows[0][0] == "Cyphers"


def test_the_summary_names_the_worst_kind():
    (card,) = attack_cards(attack_rows())
    assert card.value == "50.0 %"
    assert card.sentence == "leak under the worst of 2 kinds of attack: Role play"
    assert attack_cards([row for row in attack_rows() if row["group"] == "weights"]) == []


def test_the_headline_names_the_worst_attack_on_prompts_and_on_weights():
    found = {finding.kind: (finding.share, finding.sentence) for finding in attack_findings(attack_rows())}
    assert {kind: share for kind, (share, _) in found.items()} == {"attack leaks": 0.5, "weights leak": 1.0}
    assert "100.0 % of forgotten answers leak (“adapter off”)" in found["weights leak"][1]


def test_the_map_has_a_cell_for_each_request_and_attack():
    *_, fold = robustness_section(attack_rows()).blocks
    (heat,) = fold.blocks
    assert list(heat.columns) == ["a", "b"]
    cells = [[cell.text for cell in cells] for _, cells in heat.rows]
    assert cells == [["0.250", "0.750"], ["0.000", "–"], ["1.000", "–"]]


def test_a_run_without_attacks_says_how_to_try_them():
    section = robustness_section([])
    assert not section.blocks
    assert "--robustness" in section.missing


@pytest.mark.parametrize("table", [3, [3], [{"attack": "none"}]])
def test_attacks_that_are_no_rows_are_told(table, tmp_path):
    (tmp_path / "robustness.json").write_text(json.dumps({"table": table}))
    with pytest.raises(InputError, match=r"robustness\.json: field 'table'"):
        read_attacks(tmp_path)


def test_other_evaluations_get_a_place_and_attacks_are_read(tmp_path):
    rows = {"values": {"accuracy": [1.0, 0.0, 0.0, 0.0]}}
    whole = {"requests": {"a": {"seen": rows}}, "utility": {"kept": rows}}
    (tmp_path / "evaluation-peer.json").write_text(json.dumps(whole))
    (tmp_path / "reference-fresh-start.json").write_text(json.dumps(whole))
    (tmp_path / "evaluation-half.json").write_text(json.dumps({"requests": {}, "utility": {"kept": rows}}))
    (tmp_path / "evaluation.json").write_text("the run itself is on the plane already, and this is not read")
    places = read_places(tmp_path)
    assert list(places) == ["peer", "fresh-start (reference)"]
    assert places["peer"]["forget"]["value"] == 0.25
    assert read_attacks(tmp_path) == []
    (tmp_path / "robustness.json").write_text(json.dumps({"table": attack_rows()}))
    assert read_attacks(tmp_path) == attack_rows()


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "robustness.json").write_text(text)
    with pytest.raises(InputError, match=r"robustness\.json"):
        read_attacks(tmp_path)


def test_comparisons_are_read_the_runs_own_first_and_shown(tmp_path):
    membership = {"mia_loss": {"auc": 0.9, "reference_auc": 0.5, "privacy_leak": 80.0}}
    ours = {"a/held_out": {"forget_quality": {"p_value": 0.25, "statistic": 0.125}, "membership": membership}}
    theirs = {"a/held_out": {"forget_quality": {"p_value": 1e-20, "statistic": 1.0}}}
    for name, comparison in (("-peer", theirs), ("", ours), ("-alone", {})):
        (tmp_path / f"evaluation{name}.json").write_text(json.dumps({"comparison": comparison}))
    found = read_comparisons(tmp_path)
    assert list(found) == ["gated model", "peer"]
    quality, fold = reference_section(found).blocks
    assert list(quality.columns) == ["Forget set", "gated model", "peer"]
    assert quality.rows == [["a, held-out", "0.125 (p 0.25)", "1.000 (p 1e-20)"]]
    (inference,) = fold.blocks
    assert list(inference.columns)[1:] == ["reference", "gated model"]
    assert inference.rows == [["a, held-out, loss", "0.500", "0.900 (+80.0 %)"]]
    assert not reference_section({}).blocks
