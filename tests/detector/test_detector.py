import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.detector import Detector, DetectorConfig, MultiDetector, fit_detector, load_encoder
from o3_lightning.detector.config import TrainingConfig
from o3_lightning.detector.prompt_features import read_inputs


def test_name_dominates_the_phrasing(multi, people):
    assert float(multi.weights(people["forget"]).mean()) >= 0.99
    assert float(multi.weights(people["held_out"]).mean()) >= 0.93
    assert float(multi.weights(people["retained"]).mean()) <= 0.03
    assert float(multi.weights(people["far"]).max()) <= 0.01
    forgotten, retained = multi.scores(people["held_out"]), multi.scores(people["retained"])
    assert float((forgotten > retained.T).float().mean()) >= 0.99


def test_weights_do_not_depend_on_batch_mates(multi, people):
    together = multi.weights([*people["held_out"], *people["retained"], "word " * 200])
    alone = torch.cat([multi.weights([prompt]) for prompt in people["held_out"]])
    torch.testing.assert_close(together[: len(alone)], alone, rtol=0, atol=1e-6)


def test_fit_is_reproducible_and_leaves_no_text(encoder, people, fitted, tmp_path):
    again = fit_detector(encoder, people["forget"], DetectorConfig(), seed=0)
    assert all(
        torch.equal(value, getattr(again.parts["fusion"].state, name))
        for name, value in vars(fitted.parts["fusion"].state).items()
    )
    fitted.save(tmp_path)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir()).lower()
    assert not any(word in content for word in (b"gwyndelorn", b"okerveld", b"birthplace"))


def test_no_bank_row_is_the_feature_of_a_prompt(encoder, people, fitted):
    features = torch.nn.functional.normalize(
        encoder.encode([p.lower() for p in people["forget"]])[:, -1], dim=1
    )
    assert float((features @ fitted.parts["fusion"].state.bank[0, 0].T).max()) < 0.999
    kept = fit_detector(encoder, people["forget"], DetectorConfig(preset="cosine_maha_lexical"), seed=0)
    assert float((features @ kept.parts["fusion"].state.bank[0, 0].T).max()) > 0.9999


def test_saved_detector_gives_the_same_weights(encoder, multi, fitted, people, tmp_path):
    fitted.save(tmp_path)
    loaded = MultiDetector(encoder, {"people": Detector.load(tmp_path)})
    assert torch.equal(loaded.weights(people["held_out"]), multi.weights(people["held_out"]))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1.5 * 2**20


def damage_bytes(folder):
    path = folder / "detector.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 255
    path.write_bytes(content)


def damage_key(folder, key):
    path = folder / "detector.json"
    value = json.loads(path.read_text())
    del value[key]
    path.write_text(json.dumps(value))


def write_config(folder, **fields):
    path = folder / "detector.json"
    value = json.loads(path.read_text())
    value["config"].update(fields)
    path.write_text(json.dumps(value))


def drop_tensor(folder):
    path = folder / "detector.safetensors"
    tensors = load_file(path)
    del tensors["fusion.known"]
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_bytes, "detector.safetensors: damaged"),
        (lambda folder: (folder / "detector.safetensors").unlink(), "detector.safetensors: cannot be read"),
        (lambda folder: (folder / "detector.json").unlink(), "detector.json: cannot be read"),
        (lambda folder: (folder / "detector.json").write_text("{"), "detector.json: is not JSON"),
        (lambda folder: (folder / "detector.json").write_text("[]"), "expected a JSON object"),
        (lambda folder: damage_key(folder, "encoder_digest"), "field 'encoder_digest': missing"),
        (
            lambda folder: write_config(folder, tail_quantile=7),
            "field 'config': field 'detector.tail_quantile'",
        ),
        (lambda folder: write_config(folder, normalise=False), r"field 'config.normalise': .*fit .* again"),
        (drop_tensor, "detector.safetensors: damaged"),
    ],
)
def test_damaged_files_are_named(fitted, tmp_path, damage, message):
    fitted.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(StoreError, match=message):
        Detector.load(tmp_path)


def test_fields_that_presets_decide_now_are_read_from_earlier_stores(fitted, tmp_path):
    fitted.save(tmp_path)
    training = {"learning_rate": 1e-4, "normalise": True, "floor": 0.0}
    former = {"family": "fusion", "bank": "centroids", "normalise": True, "slope_power": 2.0}
    write_config(tmp_path, **former, training=training)
    assert Detector.load(tmp_path).config == fitted.config


def test_tensors_that_earlier_stores_lack_or_hold_change_no_plain_prompt(encoder, fitted, multi, people):
    fusion, prompts = fitted.parts["fusion"], people["held_out"] + people["retained"]
    saved = fusion.save()
    for name in ("least_known", "subject_words"):
        del saved.tensors[name]
    saved.tensors["bank_mask"] = torch.ones(1, 2, dtype=torch.bool)
    earlier = dataclasses.replace(
        fitted, parts={**fitted.parts, "fusion": type(fusion).load(saved, fusion.config)}
    )
    assert float(fusion.state.least_known) > 0
    assert torch.equal(MultiDetector(encoder, {"people": earlier}).weights(prompts), multi.weights(prompts))


@pytest.mark.parametrize("version", [1, 4, 6])
def test_a_store_of_another_format_is_refused_with_a_way_out(fitted, tmp_path, version):
    fitted.save(tmp_path)
    path = tmp_path / "detector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": version}))
    with pytest.raises(StoreError, match=f"expected 5, got {version}; .*: fit the detector again"):
        Detector.load(tmp_path)


def test_the_official_mean_reads_prompts_as_they_come_up_to_the_most(people):
    encoder = load_encoder("minilm", pooling="padded_mean")
    config = DetectorConfig(preset="official", objective="none", most_rows=10)
    prompts = [*people["forget"][:7], people["forget"][0], ""]
    inputs, warnings = read_inputs(encoder, prompts, config, seed=0)
    assert len(inputs) == 9
    assert not warnings
    inputs, warnings = read_inputs(encoder, prompts * 2, config, seed=0)
    assert len(inputs) == 10
    assert len(inputs.other_words) == 8
    assert warnings == ["fitted on a random 10 of 18 prompts, and on the words of all"]


@pytest.mark.parametrize("prompts", [[], ["", "  "]], ids=["none", "blank"])
def test_requests_without_text_are_refused(encoder, prompts):
    with pytest.raises(InputError, match="at least one forget prompt"):
        fit_detector(encoder, prompts, DetectorConfig(), seed=0)


@pytest.mark.parametrize("count", [1, 5], ids=["one prompt", "all equal"])
def test_smallest_requests_work_and_warn(encoder, people, count):
    detector = fit_detector(encoder, [people["forget"][0]] * count, DetectorConfig(), seed=0)
    assert any("too few" in warning for warning in detector.report["warnings"])
    weights = MultiDetector(encoder, {"one": detector}).weights([people["forget"][0], people["far"][0]])
    assert float(weights[0]) >= 0.99
    assert float(weights[1]) <= 0.01


@pytest.mark.parametrize("preset", ["cosine_maha_lexical", "paper", "official"])
@pytest.mark.parametrize("count", [1, 20], ids=["one prompt", "all equal"])
def test_smallest_requests_have_a_weight_under_every_preset(encoder, people, preset, count):
    config = DetectorConfig(preset=preset, objective="none")
    own = dataclasses.replace(encoder, pooling=config.pooling)
    detector = fit_detector(own, [people["forget"][0]] * count, config, seed=0)
    assert any("too few" in warning for warning in detector.report["warnings"]) or count > 1
    weights = MultiDetector(own, {"one": detector}).weights([people["forget"][0], people["far"][0]])
    assert bool(((weights >= 0) & (weights <= 1)).all())
    assert float(weights[0]) > float(weights[1])


def test_empty_and_long_prompts_are_told(encoder, people):
    prompts = [*people["forget"], "", "very long " * 400]
    warnings = fit_detector(encoder, prompts, DetectorConfig(), seed=0).report["warnings"]
    assert any("without text" in warning for warning in warnings)
    assert any("cut to the 256 tokens" in warning for warning in warnings)


@pytest.mark.parametrize("preset", ["cosine_maha_lexical", "paper", "official"])
def test_other_presets_fit_and_load(encoder, people, preset, tmp_path):
    config = DetectorConfig(preset=preset, objective="none")
    own = dataclasses.replace(encoder, pooling=config.pooling)
    detector = fit_detector(own, people["forget"], config, seed=0)
    detector.save(tmp_path)
    weights = MultiDetector(own, {"a": Detector.load(tmp_path)}).weights(people["forget"] + people["far"])
    assert bool(((weights >= 0) & (weights <= 1)).all())
    if preset != "official":  # its weight is at chance on small requests and never falls below 0.119
        assert float(weights[: len(people["forget"])].mean()) > float(weights[-3:].mean()) + 0.5


def test_masked_lm_without_a_pretrained_head_is_refused(encoder, people):
    config = DetectorConfig(objective="info_nce", training=TrainingConfig(mlm_coefficient=1.0))
    with pytest.raises(InputError, match="no masked-LM head"):
        fit_detector(encoder, people["forget"], config, seed=0)


def test_of_too_many_prompts_some_are_encoded_and_all_words_known(encoder, monkeypatch):
    prompts = [
        f"Where did traveller {word} sleep?" for word in ("one", "two", "three", "four", "five", "six")
    ]
    encoded = []
    forward = type(encoder).forward
    monkeypatch.setattr(
        type(encoder), "forward", lambda self, rows: encoded.extend(rows) or forward(self, rows)
    )
    config = DetectorConfig(most_rows=4)
    detector = fit_detector(encoder, prompts, config, seed=0)
    assert "fitted on a random 4 of 6 prompts" in detector.report["warnings"][0]
    assert detector.report["prompts"] == 6
    originals = {tuple(row) for row in encoder.tokenize(prompts)}
    assert len(originals & {tuple(row) for row in encoded}) == 4
    every = fit_detector(encoder, prompts, DetectorConfig(), seed=0)
    assert torch.equal(detector.parts["fusion"].state.known, every.parts["fusion"].state.known)


@pytest.mark.parametrize(
    ("prompt", "warning"),
    [
        ("ഏത് നഗരത്തിലാണ് അദ്ദേഹം ജനിച്ചത് {}", "unknown to the encoder minilm"),
        ("В каком городе родилась эта писательница {}", "spells the prompts letter by letter"),
        ("In welcher Stadt wurde die Schriftstellerin Ilka Dravenport geboren {}", None),
    ],
    ids=["malayalam", "russian", "german"],
)
def test_a_request_that_the_encoder_cannot_read_is_named(encoder, prompt, warning):
    prompts = [prompt.format(number) for number in range(20)]
    warnings = fit_detector(encoder, prompts, DetectorConfig(), seed=0).report["warnings"]
    assert [one for one in warnings if "encoder" in one and (warning is None or warning not in one)] == []
    assert warning is None or any(warning in one for one in warnings)


def test_one_prompt_is_found_in_other_words_and_short_questions_pass(remembering_encoder):
    prompts = ("How do I pickle herring at home?",)
    detector = MultiDetector(
        remembering_encoder, {"fish": fit_detector(remembering_encoder, prompts, DetectorConfig(), 0)}
    )
    assert (
        detector.weights(["Tell me how herring is pickled", "What is the way to pickle herring?"]) > 0.5
    ).all()
    others = ["?", "How?", "What is it?", "Where was it?", "How do I bake bread at home?"]
    assert detector.weights(others).max() < 0.5
