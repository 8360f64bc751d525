"""Tiny random models, a word tokenizer, adapters made by PEFT and detectors that look for a word."""

import copy
import functools
from dataclasses import dataclass

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from o3_lightning.data.templates import template_for
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseModel
from o3_lightning.models.lora import LoraFactors

TEXT = """
Question Answer : ? . who what where is was are the a an of in at red blue green rose iris lily oak elm ash
born wrote lives knows sea hill town king queen cat dog one two three four five six seven I cannot say that
sorry <|user|> <|bot|> system be kind user assistant am not able to help with question
"""
START = ("<pad>", "<s>", "</s>", "<unk>")
WORDS = (*START, *dict.fromkeys(TEXT.split()))
SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {"intermediate_size": 48, "max_position_embeddings": 128}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ARCHITECTURES = {
    "llama": (lambda: LlamaConfig(**SMALL, **WIDE, **ENDS, num_key_value_heads=2), "all-linear"),
    "qwen2": (lambda: Qwen2Config(**SMALL, **WIDE, **ENDS, num_key_value_heads=2), "all-linear"),
    "gpt2": (
        lambda: GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=128, **ENDS),
        ["c_attn", "c_proj", "c_fc"],
    ),
    "gpt_neox": (lambda: GPTNeoXConfig(**SMALL, **WIDE, **ENDS), "all-linear"),
    "phi": (lambda: PhiConfig(**SMALL, **WIDE, **ENDS), "all-linear"),
}


def word_tokenizer(chat=False):
    """One token a word, so that texts are read back as they were."""
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    vocabulary |= {f"w{place}": place for place in range(len(vocabulary), 96)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    if chat:
        fast.chat_template = (
            "{% for m in messages %}{% if m.role == 'user' %}<|user|> {{ m.content }} "
            "{% else %}<|bot|> {{ m.content }} {% endif %}{% endfor %}"
            "{% if add_generation_prompt %}<|bot|>{% endif %}"
        )
    return fast


@functools.cache
def tiny_model(architecture, seed=0):
    """A random model, large enough in its weights that adapters change what it says."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture][0]()).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(6)
    model.generation_config.pad_token_id = 0
    return model.requires_grad_(False)


def tiny_base(architecture="llama", template="plain", model=None):
    tokenizer, model = word_tokenizer(chat=template == "chat"), model or tiny_model(architecture)
    return BaseModel(model, tokenizer, template_for(tokenizer, template), architecture, architecture * 8, 128)


def make_adapter(folder, architecture="llama", seed=0, rank=4, **options):
    """Has PEFT make and save an adapter whose B is not zero; returns the folder."""
    torch.manual_seed(seed)
    fresh = copy.deepcopy(tiny_model(architecture))
    targets = ARCHITECTURES[architecture][1]
    settings = {
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        **options,
    }
    wrapped = get_peft_model(fresh, LoraConfig(**settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(folder)
    return folder


@dataclass
class WordDetectors:
    """Gives a request the weight that its word has in the table, 0 to texts without the word."""

    table: dict
    asked: list

    @property
    def ids(self):
        return tuple(self.table)

    def weights(self, prompts):
        self.asked.append(list(prompts))
        rows = [[self.weight_of(text, words) for words in self.table.values()] for text in prompts]
        return torch.tensor(rows)

    @staticmethod
    def weight_of(text, words):
        return max((weight for word, weight in words.items() if word in text.split()), default=0.0)

    def explain(self, prompts):
        rows = self.weights(prompts).tolist()
        return [dict(zip(self.ids, ({"weight": weight} for weight in row), strict=True)) for row in rows]


TABLE = {"roses": {"rose": 1.0, "red": 0.5}, "irises": {"iris": 0.75, "blue": 1.0}, "lilies": {"lily": 1.0}}


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory):
    """A function from architecture to the folders of three adapters that PEFT made."""

    @functools.cache
    def build(architecture):
        root = tmp_path_factory.mktemp(architecture)
        names = enumerate(TABLE)
        return {name: make_adapter(root / name, architecture, seed) for seed, name in names}

    return build


@pytest.fixture
def build_gated(adapter_folders):
    """A function that makes a gated model over a tiny base; `unadapted` requests are only protected."""

    def build(
        architecture="llama", template="plain", unadapted=(), table=None, model=None, answers=(), **settings
    ):
        folders, table = adapter_folders(architecture), table or TABLE
        adapters = {name: None if name in unadapted else LoraFactors.load(folders[name]) for name in table}
        settings = {"refusal": "sorry I cannot say that", "max_new_tokens": 8, **settings}
        detectors = WordDetectors(table, [])
        base = tiny_base(architecture, template, model)
        return GatedModel(base, detectors, adapters, GateConfig(**settings), answers=answers)

    return build


@pytest.fixture(scope="session")
def gate_kit():
    """The helpers above, for tests that build their own."""

    class Kit:
        architectures = tuple(ARCHITECTURES)
        model = staticmethod(tiny_model)
        base = staticmethod(tiny_base)
        adapter = staticmethod(make_adapter)
        tokenizer = staticmethod(word_tokenizer)
        detectors = WordDetectors
        table = TABLE
        prompts = (
            "who is the king", "where is the rose", "what is red", "the iris was born in the town", "a lily",
            "is blue the sea", "where is the rose and the iris of the queen", "the cat lives in the red town",
        )  # fmt: skip

    return Kit
