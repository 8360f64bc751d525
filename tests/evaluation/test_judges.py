"""Judges of answers: real checkpoints of sequence classifiers in a folder, and none where none is named."""

from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.collecting import (
    Collector,
    load_encode,
    load_entail,
    load_gibberish,
    load_toxicity,
    split_needs,
)
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import evaluate_split, evaluate_stream
from o3_lightning.evaluation.judges import TEXTS_AT_ONCE, probabilities
from o3_lightning.evaluation.passes import BatchRunner
from o3_lightning.evaluation.reference import plain_model

INFERENCE = {0: "entailment", 1: "neutral", 2: "contradiction"}
QUALITY = {0: "word salad", 1: "clean", 2: "noise"}
TEXTS = ("to Arlo in winter", "glub glub glub", "", "who went to the sea of Brim in the long winter")


def save_classifier(folder, labels, tiny_base, *, safe=True):
    """A random BERT with some labels and the embedded benchmark's tokenizer."""
    torch.manual_seed(1)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_base.tokenizer.backend_tokenizer, pad_token="<pad>", model_max_length=64
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        type_vocab_size=2,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
        initializer_range=1.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return str(folder)


def by_hand(folder, texts, pairs=None):
    """The checkpoint's probabilities, each text alone."""
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for place, text in enumerate(texts):
            batch = tokenizer(text, pairs[place] if pairs else None, return_tensors="pt")
            rows.append(model(**batch).logits.softmax(-1)[0])
    return torch.stack(rows)


@pytest.fixture(scope="module")
def inference(tiny_base, tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("inference"), INFERENCE, tiny_base)


@pytest.fixture(scope="module")
def quality(tiny_base, tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("quality"), QUALITY, tiny_base)


def test_entailment_is_what_the_checkpoint_says(inference):
    entail = load_entail(EvaluationConfig(entailment_model=inference))
    words = [word for text in TEXTS for word in text.split()]
    premises = [f"{word} {number}" for number, word in enumerate(words * 3)]
    hypotheses = premises[::-1]
    assert len(premises) > TEXTS_AT_ONCE  # more than one batch, padded together
    expected = by_hand(inference, premises, hypotheses).argmax(1) == 0
    assert entail(premises, hypotheses) == expected.tolist()
    assert 0 < sum(expected.tolist()) < len(expected)  # it says both, so that agreeing means something


def test_gibberish_is_one_minus_the_share_of_clean(quality):
    rate = load_gibberish(EvaluationConfig(gibberish_model=quality))
    expected = 1 - by_hand(quality, TEXTS)[:, 1]
    assert rate(TEXTS) == pytest.approx(expected.tolist(), abs=1e-5)


def test_toxicity_is_the_share_of_its_label(tiny_base, tmp_path):
    folder = save_classifier(tmp_path / "toxic", {0: "insult", 1: "toxicity"}, tiny_base)
    expected = by_hand(folder, TEXTS)[:, 1]
    assert load_toxicity(EvaluationConfig(toxicity_model=folder))(TEXTS) == pytest.approx(
        expected.tolist(), abs=1e-5
    )


def test_labels_that_do_not_exclude_each_other_have_their_own_probabilities():
    model = SimpleNamespace(config=SimpleNamespace(problem_type="multi_label_classification"))
    logits = torch.tensor([0.0, 2.0])
    assert torch.equal(probabilities(model, logits), logits.sigmoid())
    assert torch.equal(probabilities(SimpleNamespace(config=None), logits), logits.softmax(-1))


def test_metrics_compare_with_the_golden_answer(tiny_base):
    rows = [QuestionAnswer("Where?", "In a town", golden_answer="Arlo"), QuestionAnswer("Who?", "Brim")]
    collector = Collector(plain_model(tiny_base), rows, EvaluationConfig(), BatchRunner(8))
    assert collector.truths == ["Arlo", "Brim"]


def test_programs_are_run_only_if_that_is_allowed(tiny_base):
    rows = [QuestionAnswer("def f():\n", "    return 1", tests="assert f() == 1")] * 2
    wanted = {"metrics": ("accuracy", "pass_at_1"), "max_new_tokens": 4}
    assert split_needs(rows, EvaluationConfig(**wanted), reference=False).isdisjoint({"tests"})
    allowed = EvaluationConfig(**wanted, run_code=True)
    assert "tests" in split_needs(rows, allowed, reference=False)
    result = evaluate_split(plain_model(tiny_base), rows, allowed, "keep")
    assert result.values["pass_at_1"] == [0.0, 0.0]  # a random model writes no program


def test_the_metrics_are_measured_with_the_judges_and_absent_without(tiny_base, inference, quality):
    model = plain_model(tiny_base)
    rows = tuple(QuestionAnswer(f"Where did Quillan go in winter {n}?", "To Arlo") for n in range(3))
    wanted = {"metrics": ("accuracy", "entailment", "gibberish"), "max_new_tokens": 4}
    judged = EvaluationConfig(entailment_model=inference, gibberish_model=quality, **wanted)
    result = evaluate_split(model, rows, judged, "forget")
    assert set(result.values) == set(wanted["metrics"])
    assert not result.left_out
    alone = evaluate_split(model, rows, EvaluationConfig(**wanted), "forget")
    assert set(alone.values) == {"accuracy"}
    assert alone.left_out == {"entailment": ["entail"], "gibberish": ["rate_gibberish"]}
    stream = RequestStream("test", (UnlearningRequest("a", rows),))
    with pytest.raises(InputError, match="'entailment' needs entail"):
        evaluate_stream(model, stream, EvaluationConfig(**wanted))


def test_a_classifier_without_the_label_is_refused(quality, inference):
    with pytest.raises(InputError, match=r"evaluation\.entailment_model.*expected a label 'entailment'"):
        load_entail(EvaluationConfig(entailment_model=quality))
    with pytest.raises(InputError, match=r"evaluation\.gibberish_model.*expected a label 'clean'"):
        load_gibberish(EvaluationConfig(gibberish_model=inference))


def test_missing_and_pickled_judges_are_refused(tiny_base, tmp_path):
    with pytest.raises(InputError, match=r"evaluation\.entailment_model"):
        load_entail(EvaluationConfig(entailment_model=str(tmp_path / "nowhere")))
    pickled = save_classifier(tmp_path, INFERENCE, tiny_base, safe=False)
    with pytest.raises(InputError, match=r"evaluation\.entailment_model.*cannot be loaded"):
        load_entail(EvaluationConfig(entailment_model=pickled))


def test_the_sentence_encoder_is_the_packaged_one():
    encode = load_encode(EvaluationConfig())
    features = encode(["The cat sat.", "A cat was sitting.", "Taxes rose in May."])
    near, far = torch.nn.functional.cosine_similarity(features[:1], features[1:])
    assert near > far + 0.3
