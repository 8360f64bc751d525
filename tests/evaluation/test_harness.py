"""The backend of lm-evaluation-harness: a task from local files, and the weights that a context decides."""

import json

import pytest
import torch

pytest.importorskip("lm_eval")

from o3_lightning.evaluation import harness
from o3_lightning.evaluation.harness import O3LM
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.store.store import Store
from tests.models.scripted import scripted_model, scripted_tokenizer

ROWS = [
    {"question": "Who wrote the blue book?", "choices": ["Ann Lee", "Bo Ray"], "label": 1},
    {"question": "Where is the old mill?", "choices": ["in the north", "by the sea"], "label": 0},
    {"question": "Which colour is snow?", "choices": ["white", "black"], "label": 0},
]


class Chosen:
    """Stands for lm_eval's request: only its arguments are read."""

    def __init__(self, *args):
        self.args = args


@pytest.fixture
def lm(tiny_base):
    return O3LM(model=plain_model(tiny_base), batch_size=2)


def own_likelihood(base, context, continuation):
    start = base.tokenizer(context, add_special_tokens=base.template.adds_special_tokens)["input_ids"]
    whole = base.tokenizer(context + continuation, add_special_tokens=base.template.adds_special_tokens)[
        "input_ids"
    ]
    likely = base.model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(float(likely[place - 1, whole[place]]) for place in range(len(start), len(whole)))


def test_likelihood_is_the_models_own(lm, tiny_base):
    pairs = [("Question: Who?\nAnswer:", " Ann Lee"), ("Question: Where is it now?\nAnswer:", " north")]
    found = lm.loglikelihood([Chosen(*pair) for pair in pairs])
    for (value, greedy), pair in zip(found, pairs, strict=True):
        assert value == pytest.approx(own_likelihood(tiny_base, *pair), abs=1e-4)
        assert greedy in (True, False)


@pytest.mark.parametrize("words", [1, 15, 16, 60])
def test_texts_of_any_length_score_as_with_the_harness_own_backend(words, lm, tiny_base):
    from lm_eval.models.huggingface import HFLM

    tokenizer, text = tiny_base.tokenizer, "Where is the old mill? " * words
    options = {"max_length": tiny_base.context_tokens - 1, "device": "cpu"}
    theirs = HFLM(tiny_base.model, tokenizer=tokenizer, add_bos_token=False, **options)  # once, as prefix
    (expected,) = theirs.loglikelihood_rolling([Chosen(text)], disable_tqdm=True)
    assert lm.loglikelihood_rolling([Chosen(text)]) == pytest.approx([expected], rel=1e-5)


def test_generation_stops_where_the_task_says(lm):
    (text,) = lm.generate_until([Chosen("Question: Who?\nAnswer:", {"until": ["e"], "max_gen_toks": 8})])
    assert "e" not in text


def test_the_base_model_of_a_store_is_loaded_as_it_was_asked_for(tiny_base, tmp_path, monkeypatch):
    Store.create(tmp_path, "some/model", tiny_base.digest, "encoder", "0" * 64)
    asked = []
    monkeypatch.setattr(harness, "load_base", lambda config: asked.append(config) or tiny_base)
    monkeypatch.setattr(harness.GatedModel, "from_store", lambda store, base, *_: plain_model(base))
    O3LM(store=str(tmp_path), dtype="bfloat16", device="cpu")
    assert [(one.id, one.dtype, one.device) for one in asked] == [("some/model", "bfloat16", "cpu")]


def test_the_start_token_stands_before_a_text_but_not_before_an_applied_template(tmp_path):
    folder = scripted_model(tmp_path, {}, scripted_tokenizer(adds_start=True))
    model = O3LM(base=str(folder), device="cpu")
    chat = model.apply_chat_template([{"role": "user", "content": "where is it"}])
    start = model.gated.tokenizer.bos_token_id
    assert model.tok_encode("where is it").count(start) == 1
    assert model.tok_encode(chat).count(start) == 0
    assert model.tok_encode(chat) == model.gated.tokens.encode("where is it")


def test_the_device_follows_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = O3LM(base=str(scripted_model(tmp_path, {})), device="cuda:0")
    assert model.gated.device.type == "cpu"


def test_a_limit_is_its_own_request_s(lm, tiny_base):
    room = tiny_base.context_tokens
    asked = [("Where? " * room, {"max_gen_toks": 2}), ("Who?", {"max_gen_toks": 12})]
    alone = [lm.generate_until([Chosen(*each)])[0] for each in asked]
    assert lm.generate_until([Chosen(*each) for each in asked]) == alone
    counts = [len(tiny_base.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in alone]
    assert counts[0] <= 2 < counts[1]


def test_the_context_alone_decides_the_weights(lm, monkeypatch):
    asked = []

    def weights(chats):
        asked.extend(chats)
        return torch.zeros(len(chats), 0)

    monkeypatch.setattr(lm.gated, "weights", weights)
    lm.loglikelihood([Chosen("Question: Who?\nAnswer:", " Ann"), Chosen("Question: Who?\nAnswer:", " Bo")])
    assert asked == [[{"role": "user", "content": "Who?"}]] * 2


def test_a_task_from_local_files_runs(lm, tmp_path, tiny_base):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "local_choice.yaml").write_text(
        f"""task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list:
  - metric: acc
"""
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    result = lm_eval.simple_evaluate(lm, tasks=["local_choice"], task_manager=manager, bootstrap_iters=0)
    likely = [
        [
            own_likelihood(tiny_base, f"Question: {row['question']}\nAnswer:", f" {choice}")
            for choice in row["choices"]
        ]
        for row in ROWS
    ]
    expected = (
        sum(
            max(range(2), key=each.__getitem__) == row["label"]
            for each, row in zip(likely, ROWS, strict=True)
        )
        / 3
    )
    assert result["results"]["local_choice"]["acc,none"] == pytest.approx(expected)
