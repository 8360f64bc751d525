"""The study of overlap: what the penalty does to the adapters, and what is written."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.release.overlap import overlap_study, overlap_table, write_study
from o3_lightning.common.errors import InputError

CPU = {"accelerator": "cpu"}
PENALTIES = (0.0, 1000.0)


def update_vectors(folder):
    """Returns the weight updates B A of an adapter, all modules in one vector."""
    tensors = load_file(folder / "adapter_model.safetensors")
    stems = sorted(key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight"))
    factors = [[tensors[f"{stem}.lora_{side}.weight"].astype(float) for side in "BA"] for stem in stems]
    return np.concatenate([(b @ a).ravel() for b, a in factors])


def test_a_penalty_parts_the_adapters_the_cosine_is_that_of_their_updates_and_all_is_written(
    tiny, config, tmp_path
):
    config = replace(config, adapter=replace(config.adapter, epochs=30))
    rows = overlap_study(config, CPU, config.folder / "overlap", PENALTIES)
    assert [(row["penalty"], row["lambda"]) for row in rows] == [
        (p, v) for p in PENALTIES for v in (0.5, 2.0)
    ]
    free, parted = rows[0], rows[-1]
    assert parted["row_overlap"] < 0.5 * free["row_overlap"]
    assert parted["column_overlap"] < 0.5 * free["column_overlap"]
    folder = config.folder / "overlap"
    for penalty in PENALTIES:
        one = update_vectors(folder / f"penalty_{penalty:g}" / "forget")
        two = update_vectors(folder / "shared" / "retain")
        expected = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
        found = [row["update_cosine"] for row in rows if row["penalty"] == penalty]
        assert found == pytest.approx([expected] * 2, abs=1e-5)
    write_study(rows, tmp_path / "study" / "overlap.json")
    table = (tmp_path / "study" / "overlap.md").read_text()
    assert table == overlap_table(rows)
    assert table.count("\n| ") == len(rows)
    assert (tmp_path / "study" / "overlap.png").read_bytes()[:4] == b"\x89PNG"


def test_a_study_without_given_rows_is_refused(tiny, config):
    with pytest.raises(InputError, match="field 'requests'"):
        overlap_study(replace(config, requests=(), topic="Ann"), CPU, config.folder, PENALTIES)
