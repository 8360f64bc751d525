"""Each architecture goes all the way from a request to an exported adapter, or is refused in one line.

The slow run measures all of `architectures.json` and writes docs/reference/architectures.md.
"""

import copy
import json
import logging
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.detector.encoder import load_configured_encoder
from o3_lightning.gating.answering import answer_prompts, score_answers
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.run.config import RunConfig
from o3_lightning.run.unlearner import Unlearner

KINDS = json.loads(Path(__file__).with_name("architectures.json").read_text())
TABLE = Path(__file__).parents[2] / "docs/reference/architectures.md"
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GROUPS = {
    "ends": ENDS,
    "vocabulary": {"vocab_size": 320},
    "kv": {"num_key_value_heads": 2},
    "gpt": {"vocab_size": 320, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, **ENDS},
    "sizes": {
        "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 512, **ENDS,
    },
}  # fmt: skip
TOWNS = ("Lindhavn", "Oslo", "Gorse", "Hythe", "Elmsford", "Tarn")
ROWS = tuple(
    QuestionAnswer(f"Where did Torvald Ekmansgard spend winter {n}?", town) for n, town in enumerate(TOWNS)
)
ASKED = [ROWS[0].prompt, "What do bees make?", "In which town was Torvald Ekmansgard that year, and why?"]
SHARE = torch.tensor([[1.0], [0.0], [0.5]])
HEAD = """# Architectures

What each architecture of Transformers does here, measured on small random models by
`pytest -m slow tests/models/test_architectures.py`, which writes this table. A row passes if a request is
registered, protected and unlearned, a batch of prompts at different weights says what each prompt says alone,
weight 0 gives the base model's logits bit for bit, and the exported adapter gives our logits in plain PEFT
within 2e-5 of the largest logit; the last column is the largest difference.

| architecture | adapted linear layers of the blocks | result | difference from PEFT |
|---|---|---|---|
"""


def save_model(name, folder):
    """Saves a random model whose matrices are large enough that adapters change what it says."""
    groups, own = KINDS[name]
    options = {key: value for group in groups.split() for key, value in GROUPS[group].items()} | own
    words = Tokenizer(BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special, alphabet = ["<pad>", "<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        [], BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=512, **names)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **options)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def logits_of(model, ids, mask, **options):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, **options).logits


def check(name, folder, encoder):
    """Asserts what a row of the table says, and returns the largest difference from plain PEFT."""
    save_model(name, folder / "model")
    base = load_base(BaseConfig(id=str(folder / "model"), device="cpu"))
    config = RunConfig(adapter=AdapterConfig(rank=4, epochs=2, batch_size=6))
    unlearner = Unlearner(base, folder / "store", config, {"accelerator": "cpu"}, encoder=encoder)
    request = UnlearningRequest("torvald", ROWS)
    unlearner.protect(request)
    unlearner.unlearn(request)
    gated = unlearner.gated_model()
    assert len(gated.answer(ASKED, max_new_tokens=6)) == len(ASKED)
    together = answer_prompts(gated, ASKED, SHARE, 8, 3)
    alone = [answer_prompts(gated, [ASKED[row]], SHARE[[row]], 8, 1)[0] for row in range(3)]
    assert together == alone
    answers = [row.answer for row in ROWS[:3]]
    scores = score_answers(gated, ASKED, answers, SHARE, 3)
    for row, score in enumerate(scores):
        (single,) = score_answers(gated, [ASKED[row]], [answers[row]], SHARE[[row]], 1)
        torch.testing.assert_close(score, single, atol=2e-3, rtol=1e-4)
    ids, mask = gated.tokens.pad([gated.tokens.encode(ASKED[0])] * 2)
    before = logits_of(base.model, ids, mask)
    assert torch.equal(logits_of(gated, ids, mask, weights=torch.zeros(2, 1)), before)
    gated.export(folder / "export")
    ours = logits_of(gated, ids, mask, weights=torch.ones(2, 1))
    plain = PeftModel.from_pretrained(copy.deepcopy(base.model), folder / "export/adapters/torvald").eval()
    theirs = logits_of(plain, ids, mask)
    difference = float((ours - theirs).abs().max())
    assert difference <= 2e-5 * max(1.0, float(ours.abs().max()))
    assert not torch.allclose(ours, before)
    return difference


@pytest.fixture(scope="module")
def encoder():
    return load_configured_encoder(RunConfig().detector)


@pytest.fixture(scope="module")
def table():
    rows = {}
    yield rows
    if len(rows) == len(KINDS):
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(HEAD + "".join(rows[name] for name in sorted(rows)))


def result_of(name, encoder, folder, caplog):
    """Returns the row of the table, after asserting that what is refused is refused before any training."""
    caplog.set_level(logging.INFO, "o3_lightning.adapter.targets")
    result, difference = "passes", ""
    try:
        difference = f"{check(name, folder, encoder):.1e}"
    except InputError as error:
        result = f"refused: {error}"
    assert "\n" not in result
    assert result == "passes" or not (folder / "store/requests/torvald/adapter").exists()
    shares = [line.removeprefix("adapting ") for line in caplog.messages if line.startswith("adapting")]
    share = shares[-1].replace(" linear layers of the blocks", "") if shares else ""
    return f"| {name} | {share} | {result} | {difference} |\n"


@pytest.mark.parametrize("name", ["phi3", "rwkv", "qwen3_moe"])
def test_fused_layers_a_recurrent_state_and_experts_go_all_the_way(name, encoder, tmp_path, caplog):
    assert "| passes |" in result_of(name, encoder, tmp_path, caplog)


def test_the_table_lists_every_architecture():
    listed = [line.split("|")[1].strip() for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    assert listed == ["architecture", *sorted(KINDS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_an_architecture_goes_all_the_way_or_is_refused_in_one_line(name, encoder, tmp_path, table, caplog):
    table[name] = result_of(name, encoder, tmp_path, caplog)
