"""A detector class of another package: registered, selected by name, fitted, saved, loaded, asked."""

from dataclasses import replace
from types import MappingProxyType

import pytest
import torch

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.detector import Detector, DetectorConfig, MultiDetector, fit_detector
from o3_lightning.detector.base import DETECTORS, Evidence, Fitted, Saved


@DETECTORS.register("shared_words")
class SharedWords(Evidence):
    """Scores the number of words that a prompt shares with the longest forget prompt."""

    settings = MappingProxyType({"reading": "plain"})

    def __init__(self, words):
        self.words = set(words)

    @classmethod
    def fit(cls, task):
        return Fitted(cls(max(task.prompts, key=len).split()), {"words": "counted"}, ["a warning"])

    def score(self, encoder, prompts):
        return torch.tensor([float(len(self.words & set(str(prompt).split()))) for prompt in prompts])

    def weight(self, scores):
        return (scores / len(self.words)).clamp(0, 1)

    def save(self):
        return Saved({"count": torch.tensor(len(self.words))}, {"words": sorted(self.words)})

    @classmethod
    def load(cls, saved, config):
        assert int(saved.tensors["count"]) == len(saved.values["words"])
        return cls(saved.values["words"])


def test_a_registered_detector_is_fitted_saved_and_asked_by_its_name(encoder, fitted, tmp_path):
    config = DetectorConfig(preset="shared_words")
    assert config.parts == ("shared_words",)
    detector = fit_detector(encoder, ["a rose is red", "no"], config, seed=0)
    assert detector.report == {"seed": 0, "words": "counted", "warnings": ["a warning"]}
    detector.save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert loaded.config == config
    multi = MultiDetector(encoder, {"people": fitted, "roses": loaded})
    prompts = ["is a rose blue", "hello"]
    assert multi.scores(prompts)[:, 1].tolist() == [3, 0]
    assert multi.weights(prompts)[:, 1].tolist() == [0.75, 0]
    alone = MultiDetector(encoder, {"people": fitted})
    assert torch.equal(multi.weights(prompts)[:, :1], alone.weights(prompts))
    assert multi.explain(prompts)[0]["roses"] == {"score": 3, "weight": 0.75, "channels": {}, "layers": []}


def test_a_preset_that_sets_an_unknown_field_is_refused(monkeypatch):
    monkeypatch.setattr(SharedWords, "settings", {"normalise": False})
    with pytest.raises(InputError, match=r"'detector.preset'.*'shared_words' sets 'normalise', which is no"):
        DetectorConfig(preset="shared_words")


def test_the_largest_weight_of_several_evidences_counts(encoder, fitted, people, tmp_path):
    words = SharedWords(["a", "rose"])
    both = replace(fitted, parts={**fitted.parts, "shared_words": words})
    both.save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert list(loaded.parts) == ["fusion", "names", "shared_words"]
    prompts = [people["held_out"][0], "a rose", "hello"]
    alone, joined = (MultiDetector(encoder, {"r": detector}) for detector in (fitted, loaded))
    found = words.weight(words.score(encoder, prompts))
    assert torch.equal(joined.weights(prompts)[:, 0], torch.maximum(alone.weights(prompts)[:, 0], found))
    scores = alone.scores(prompts)[:, 0]
    assert found.tolist() == [0, 1, 0]
    assert torch.equal(joined.scores(prompts)[:, 0], torch.where(found >= 1, scores.clamp_min(0), scores))


def test_an_unknown_name_is_refused(fitted, tmp_path):
    with pytest.raises(InputError, match=r"'detector.preset'.*shared_words.*got 'share_words'"):
        DetectorConfig(preset="share_words")
    replace(fitted, parts={"gone": fitted.parts["fusion"]}).save(tmp_path)
    with pytest.raises(StoreError, match="part 'gone': no such detector; install the package"):
        Detector.load(tmp_path)
