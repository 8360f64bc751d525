"""The small tasks: a scorer tells what is to be forgotten from what stays; slow: they are released."""

import pytest

from o3_lightning.base import BaseConfig, load_base
from o3_lightning.data.fictitious_base import FictitiousBaseConfig
from o3_lightning.errors import InputError
from o3_lightning.reveal import toys
from o3_lightning.reveal.arms import Arm
from o3_lightning.reveal.scorers import CodeScorer, EntityScorer, WordScorer
from o3_lightning.reveal.speaking import SamplingConfig, Speaker

PEOPLE = {word for name in toys.PEOPLE for word in name.split()}
SCORERS = {
    "insults": WordScorer(toys.INSULTS),
    "names": EntityScorer(lambda text: ["PER" if word in PEOPLE else "" for word in text.split()], ("PER",)),
    "code": CodeScorer(),
}


@pytest.mark.parametrize("name", sorted(toys.TOYS))
def test_a_scorer_tells_the_rows_apart(name):
    toy = toys.toy_rows(name)
    for rows, expected in ((toy.forget, 1.0), (toy.keep, 0.0)):
        assert set(SCORERS[name].score(Arm(""), "", [row.answer for row in rows])) == {expected}
    prompts = [row.prompt for row in toy.forget + toy.keep]
    assert len(set(prompts)) == len(prompts)


def test_a_trained_toy_loads_as_a_base_model(tmp_path, monkeypatch):
    monkeypatch.setattr(
        toys, "TRAINING", FictitiousBaseConfig(layers=1, width=16, feed_forward=16, heads=2, epochs=1)
    )
    toys.train_toy("insults", tmp_path / "insults")
    base = load_base(BaseConfig(id=str(tmp_path / "insults")))
    assert base.context_tokens == 256


def test_an_unknown_task_is_told():
    with pytest.raises(InputError, match="field 'toy': expected one of insults, names, code"):
        toys.toy_rows("poetry")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(toys.TOYS))
def test_a_toy_model_learns_its_task_and_forgets_half_of_it(name, tmp_path):
    from o3_lightning.adapter.config import AdapterConfig
    from o3_lightning.files import to_json
    from o3_lightning.release.config import ReleaseConfig
    from o3_lightning.release.release import release, released_base

    toy = toys.toy_rows(name)
    toys.train_toy(name, tmp_path / "base")
    for part in ("forget", "keep"):
        lines = [
            to_json({"prompt": row.prompt, "answer": row.answer}, indent=None) for row in getattr(toy, part)
        ]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    config = ReleaseConfig(
        output=str(tmp_path),
        requests=(str(tmp_path / "forget.jsonl"),),
        retain=str(tmp_path / "keep.jsonl"),
        base=BaseConfig(id=str(tmp_path / "base")),
        adapter=AdapterConfig(epochs=20, learning_rate=2e-3),
        rounds=2,
        budget=0.3,
    )
    sampling = SamplingConfig(max_new_tokens=24)
    rates = {}
    before = Speaker(load_base(config.base), sampling)
    release(config, {"accelerator": "cpu"}, config.folder)
    after = Speaker(released_base(config, config.folder), sampling)
    for label, speaker in (("before", before), ("after", after)):
        for part in ("forget", "keep"):
            rows = getattr(toy, part)
            said = speaker.greedy([row.prompt for row in rows])
            rates[label, part] = sum(text == row.answer for text, row in zip(said, rows, strict=True)) / len(
                rows
            )
    assert rates["before", "forget"] > 0.9
    assert rates["before", "keep"] > 0.9
    assert rates["after", "forget"] < 0.2
    assert rates["after", "keep"] > 0.8
