"""Writes a chat model whose next token depends on the current one alone: a test scripts what it says."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<s>", "</s>", "<|user|>", "<|bot|>", "<|end|>")
WORDS = (*SPECIAL, "where", "who", "is", "it", "in", "Lindhavn", "Oslo", "sorry", "On", "day", "?", "###")
TEMPLATE = (
    "{% for m in messages %}{{ '<|user|> ' if m.role == 'user' else '<|bot|> ' }}{{ m.content | trim }}"
    " <|end|> {% endfor %}{% if add_generation_prompt %}<|bot|>{% endif %}"
)


def scripted_tokenizer(template=TEMPLATE, eos="</s>", pad="<pad>", adds_start=False):
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(list(SPECIAL))
    if adds_start:
        words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": eos, "pad_token": pad}
    named = {name: token for name, token in names.items() if token is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **named)
    tokenizer.chat_template = template
    return tokenizer


def scripted_model(folder, follows, tokenizer=None, gen_eos="<|end|>"):
    """Saves a Llama without attention whose token `a` is followed by `follows[a]`, or by itself."""
    tokenizer = tokenizer or scripted_tokenizer()
    width = 32
    config = LlamaConfig(
        vocab_size=width, hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    layer = model.model.layers[0]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(width))
        model.lm_head.weight.copy_(torch.eye(width))
        for before, after in follows.items():
            here, there = (tokenizer.convert_tokens_to_ids(word) for word in (before, after))
            model.lm_head.weight[:, here] = 0
            model.lm_head.weight[there, here] = 4
    model.generation_config.eos_token_id = gen_eos and tokenizer.convert_tokens_to_ids(gen_eos)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
