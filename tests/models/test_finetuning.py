"""Teaching a base model rows: it learns them, once, and the store's digest is the taught one's."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.models.config import FinetuneConfig
from o3_lightning.models.finetuning import finetuning_rows, plain_copy

ROWS = [("Where does Quillan live?", "In Arlo"), ("Where does Mirelle live?", "In Brim")]


def answer_loss(base, prompt, answer):
    before, after = base.template.join(prompt, answer)
    ids = base.tokenizer(before + after, return_tensors="pt").input_ids
    length = len(base.tokenizer(before).input_ids)
    logits = base.model(ids).logits[0, length - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, length:]))


def test_a_model_is_taught_once_and_keeps_its_id(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("O3_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "base"
    tiny_base.model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    lines = [json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    taught = FinetuneConfig((str(tmp_path / "rows.jsonl"),), epochs=20, learning_rate=1e-2, batch_size=2)
    plain = load_base(BaseConfig(str(folder), template="question_answer"))
    base = load_base(BaseConfig(str(folder), template="question_answer", finetune_on=taught))
    assert base.id == str(folder)
    assert base.digest != plain.digest
    for row in ROWS:
        assert answer_loss(base, *row) < 0.5 * answer_loss(plain, *row)
    monkeypatch.setattr("o3_lightning.models.finetuning.teach", lambda *_: pytest.fail("taught again"))
    assert (
        load_base(BaseConfig(str(folder), template="question_answer", finetune_on=taught)).digest
        == base.digest
    )


def test_a_model_from_a_gguf_file_is_taught_as_an_ordinary_one(tiny_base, tmp_path):
    marked = copy.deepcopy(tiny_base.model)
    marked.hf_quantizer, marked.is_quantized = object(), True  # as transformers leaves it, weights expanded
    marked.quantization_method = "gguf"
    marked.config.quantization_config = {"quant_method": "gguf"}
    plain = plain_copy(marked).float()
    plain.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert marked.is_quantized
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(plain(ids).logits, tiny_base.model(ids).logits)


def test_a_part_of_a_benchmark_is_taught_or_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("O3_DATA", str(tmp_path))
    rows = [json.dumps({"name": "N", "question": f"Q{n}", "answer": "A", "task_id": n}) for n in range(4)]
    (tmp_path / "real_world").mkdir()
    for name in ("forget", "neighbor"):
        (tmp_path / f"real_world/{name}.jsonl").write_text("\n".join(rows).replace("Q", name))
    part = FinetuneConfig(data={"name": "real_world", "count": 1, "utility_rows": 2})
    assert [row.prompt for row in finetuning_rows(part)] == ["forget0", "neighbor0", "neighbor2"]
    assert len(finetuning_rows(FinetuneConfig(rows=("real_world",)))) == 8
    assert len(finetuning_rows(replace(part, rows=("real_world",)))) == 8  # each prompt once
    with pytest.raises(InputError, match=r"base\.finetune_on\.data.*'counts'"):
        finetuning_rows(FinetuneConfig(data={"name": "real_world", "counts": 1}))


def test_a_number_out_of_range_names_its_field():
    with pytest.raises(InputError, match=r"base\.finetune_on\.epochs"):
        FinetuneConfig(epochs=0)
