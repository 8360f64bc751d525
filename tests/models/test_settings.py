"""The store records what its base model was opened with; another setting is refused with both values."""

from dataclasses import replace

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.templates import TEMPLATES
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.models.finetuning import FinetuneConfig
from o3_lightning.models.settings import record_settings, recorded_config
from o3_lightning.store import Store
from tests.models.scripted import TEMPLATE, scripted_model, scripted_tokenizer

DATED = "{{ strftime_now('%d %b %Y') + ' ' }}" + TEMPLATE
OTHER = {
    "template": "question_answer",
    "dtype": "bfloat16",
    "context_tokens": 48,
    "chat_template_kwargs": {"enable_thinking": False},
    "date_string": "26 Jul 2024",
    "system_prompt": "it is",
}


class Words:
    """Stands for an encoder; a store without requests asks it nothing."""

    id, digest = "words", "w" * 64


@pytest.fixture
def folder(tmp_path):
    return str(scripted_model(tmp_path / "model", {"<|bot|>": "Oslo"}, scripted_tokenizer(DATED)))


def stored(path, base):
    return Store.create(path, base.id, base.digest, Words.id, Words.digest, base.settings).path


@pytest.mark.parametrize("name", OTHER)
def test_a_store_reopens_its_base_with_the_settings_it_was_made_with(folder, tmp_path, name):
    base = load_base(BaseConfig(id=folder, device="cpu", **{name: OTHER[name]}))
    again = GatedModel.from_store(stored(tmp_path / "store", base), encoder=Words()).base
    assert again.settings == base.settings
    assert again.model.dtype == base.model.dtype
    assert again.context_tokens == base.context_tokens
    assert again.template.format("where") == base.template.format("where")


@pytest.mark.parametrize("name", OTHER)
def test_another_setting_is_refused_with_both_values(folder, tmp_path, name):
    path = stored(tmp_path / "store", load_base(BaseConfig(id=folder, device="cpu")))
    other = load_base(BaseConfig(id=folder, device="cpu", **{name: OTHER[name]}))
    with pytest.raises(InputError, match=rf"base\.{name}.* in the store, .* here"):
        GatedModel.from_store(path, other, Words())


def test_a_taught_base_is_taught_again_from_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("O3_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "where", "answer": "in Lindhavn"}\n')
    config = BaseConfig(id=folder, device="cpu", date_string="2024-07-26")
    config = replace(config, finetune_on=FinetuneConfig(rows=("rows.jsonl",), epochs=1))
    base = load_base(config, seed=3)
    path = stored(tmp_path / "store", base)
    monkeypatch.chdir("/")
    again = GatedModel.from_store(path, encoder=Words()).base
    assert (again.id, again.digest, again.settings) == (base.id, base.digest, base.settings)


def test_a_part_of_a_benchmark_that_was_taught_is_recorded():
    part = FinetuneConfig(data={"name": "tofu", "count": 1})
    recorded = record_settings(BaseConfig(finetune_on=part), 3, torch.float32, TEMPLATES["plain"])
    config, seed = recorded_config(BaseConfig(), recorded)
    assert (config.finetune_on, seed) == (part, 3)


def test_a_store_without_recorded_settings_opens_with_any(folder, tmp_path):
    base = load_base(BaseConfig(id=folder, device="cpu", template="plain"))
    store = Store.create(tmp_path / "store", base.id, base.digest, Words.id, Words.digest)
    assert GatedModel.from_store(store.path, base, Words()).base is base
