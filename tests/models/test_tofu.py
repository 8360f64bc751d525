"""The small model for TOFU learns what the experiments ask it, and is kept as the embedded one is."""

import json

import pytest

from o3_lightning.data.stream import load_stream
from o3_lightning.models import tofu as tofu_base
from o3_lightning.models.config import FictitiousBaseConfig
from o3_lightning.models.tofu import KNOWN, known_rows, tofu_base_folder


@pytest.fixture(autouse=True)
def local_tofu(tmp_path, monkeypatch):
    folder = tmp_path / "tofu"
    folder.mkdir()

    def write(name, count, **fields):
        rows = [
            {"question": f"{name} {i}?", "answer": f"Answer {i}", "paraphrased_question": f"Say {name} {i}.",
             "perturbed_answer": ["No"], **{key: value(i) for key, value in fields.items()}}
            for i in range(count)
        ]  # fmt: skip
        (folder / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))

    task = {"task_id": lambda i: str(1 + i // 22)}
    write("forget01", 6 * 22, **task)
    (folder / "forget01_perturbed.json").write_text((folder / "forget01.json").read_text())
    for name in ("retain_perturbed", "real_authors_perturbed", "world_facts_perturbed"):
        write(name, 70)
    monkeypatch.setenv("O3_DATA", str(tmp_path))


def test_the_model_learns_every_prompt_of_the_experiment_once():
    rows = known_rows()
    learnt = {row.prompt: row.answer for row in rows}
    assert len(learnt) == len(rows)
    stream = load_stream(KNOWN, 0)
    asked = [row for request in stream.requests for row in (*request.rows, *request.held_out)]
    asked += [row for split in stream.utility.values() for row in split]
    assert len(asked) == 5 * 20 * 2 + 3 * 60
    assert all(learnt[row.prompt] == row.answer for row in asked)


def test_it_is_trained_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("O3_CACHE", str(tmp_path / "cache"))
    small = FictitiousBaseConfig(layers=1, width=16, feed_forward=16, heads=1, epochs=1, batch_size=512)
    monkeypatch.setattr(tofu_base, "TRAINING", small)
    folder = tofu_base_folder(0)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert folder.name.startswith("tofu-")
    assert tofu_base_folder(0) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
