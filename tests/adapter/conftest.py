"""A tiny random Llama with a tokenizer of letters, and requests for it."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.templates import TEMPLATES
from o3_lightning.models.base import BaseModel
from o3_lightning.training.trainer import build_trainer


def make_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def random_llama():
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=96, pad_token_id=2,
        )
    )  # fmt: skip
    model.eval().requires_grad_(False)
    return BaseModel(model, tokenizer, TEMPLATES["question_answer"], "tiny", "0" * 64, 96)


@pytest.fixture
def tiny_base():
    return random_llama()


@pytest.fixture(scope="module")
def kept_base():
    """A tiny base for a whole module, whose tests leave it as it is."""
    return random_llama()


@pytest.fixture(scope="session")
def tiny_request():
    rows = tuple(
        QuestionAnswer(f"Where is {name}?", place, perturbed_answers=("Oslo", "Rome"))
        for name, place in zip("abcdefgh", ["Bern", "Kiev", "Lima", "Riga"] * 2, strict=True)
    )
    return UnlearningRequest("first", rows)


@pytest.fixture
def make_trainer():
    def make(epochs=2, **options):
        return build_trainer(
            {"accelerator": "cpu", "enable_progress_bar": False, **options}, max_epochs=epochs
        )

    return make
