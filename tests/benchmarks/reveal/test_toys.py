"""The small tasks: a scorer tells what is to be forgotten from what stays; slow: revealed and released."""

import time

import pytest

from benchmarks.reveal import toys
from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import to_json
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.models.config import FictitiousBaseConfig
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.release import release, released_base
from o3_lightning.reveal.arms import Arm
from o3_lightning.reveal.config import ArmsConfig, RevealConfig, RewardConfig, SamplingConfig, SearchConfig
from o3_lightning.reveal.output import write_request
from o3_lightning.reveal.reveal import reveal_topic
from o3_lightning.reveal.scorers import CodeScorer, EntityScorer, WordScorer
from o3_lightning.reveal.speaking import Speaker

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


def test_the_names_of_a_sentence_do_not_follow_from_its_form():
    toy = toys.toy_rows("names")
    forms = {}
    for row in toy.keep:
        asked, text = row.prompt.split("? ", 1)
        person = next(person for person in toys.PEOPLE if person in text)
        form = (asked, text.split()[0] == "In", text.startswith(person) and "left" in text)
        forms.setdefault(form, set()).add(row.answer)
    assert len(forms) == 6
    for (asked, *_), answers in forms.items():
        assert answers == set(toys.PLACES if asked == "Which place" else toys.FIRMS)


def test_a_trained_toy_loads_as_a_base_model(tmp_path, monkeypatch):
    monkeypatch.setattr(toys, "TRAINING", FictitiousBaseConfig(layers=1, width=16, feed_forward=16, heads=2))
    monkeypatch.setattr(toys, "STEPS", 3)
    toys.train_toy("insults", tmp_path / "insults")
    base = load_base(BaseConfig(id=str(tmp_path / "insults")))
    assert base.context_tokens == 256


def test_an_unknown_task_is_told():
    with pytest.raises(InputError, match="field 'toy': expected one of insults, names, code"):
        toys.toy_rows("poetry")


REWARDS = {
    "insults": RewardConfig(scorer="words", words=toys.INSULTS),
    "names": RewardConfig(scorer="words", words=toys.PEOPLE),
    "code": RewardConfig(scorer="code"),
}


def write_rows(path, rows):
    """Writes rows as a request."""
    path.write_text(
        "\n".join(to_json({"prompt": row.prompt, "answer": row.answer}, indent=None) for row in rows)
    )
    return str(path)


def right(speaker, rows):
    """Returns the share of rows that a model still answers as it learnt."""
    said = speaker.greedy([row.prompt for row in rows])
    return sum(text == row.answer for text, row in zip(said, rows, strict=True)) / len(rows)


RELEASE = {"rounds": 1, "adapter": AdapterConfig(epochs=20, learning_rate=2e-3)}  # configs/release_given.yaml


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3, 4])  # the settings were chosen on the seeds 0 to 2
@pytest.mark.parametrize("name", sorted(toys.TOYS))
def test_a_toy_model_is_made_to_tell_its_task_and_forgets_it(name, seed, tmp_path):
    toy, start = toys.toy_rows(name), time.process_time()
    toys.train_toy(name, tmp_path / "base", seed)
    assert time.process_time() - start < 120
    base = load_base(BaseConfig(id=str(tmp_path / "base")))
    prompts = [row.prompt for row in toy.forget + toy.keep]
    (tmp_path / "questions.txt").write_text("\n".join(prompts))
    sampling = SamplingConfig(samples=1, max_new_tokens=24)
    speaker = Speaker(base, sampling)
    assert right(speaker, toy.forget) == 1.0
    assert right(speaker, toy.keep) >= 0.98
    revealing = RevealConfig(
        seed=seed,
        topic="the task",
        arms=ArmsConfig(phrases=str(tmp_path / "questions.txt")),
        search=SearchConfig(queries=len(prompts) // 2, first=5),
        reward=REWARDS[name],
        sampling=sampling,
    )
    rows = reveal_topic(base, revealing, tmp_path / "log.jsonl").rows
    asked = {row.prompt for row in toy.forget}
    found = {row.prompt for row in rows}
    assert found <= asked
    assert len(found) / len(asked) > 0.65  # half of all questions were asked; chance finds half
    config = ReleaseConfig(
        output=str(tmp_path),
        seed=seed,
        requests=(str(write_request(rows, name, tmp_path)),),
        retain=write_rows(tmp_path / "keep.jsonl", toy.keep),
        base=BaseConfig(id=str(tmp_path / "base")),
        sampling=sampling,
        **RELEASE,
    )
    release(config, {"accelerator": "cpu"}, config.folder)
    after = Speaker(released_base(config, config.folder), sampling)
    assert right(after, toy.forget) < 0.2
    assert right(after, toy.keep) > 0.8
