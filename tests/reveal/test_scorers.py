"""Relevance and diversity: closed forms, ranges, and what each scorer must tell apart."""

import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import build_world
from o3_lightning.reveal.arms import Arm
from o3_lightning.reveal.config import RewardConfig
from o3_lightning.reveal.diversity import novelty, text_kernel, vendi
from o3_lightning.reveal.reward import harmonic_mean, load_tagger
from o3_lightning.reveal.scorers import (
    ClassifierScorer,
    CodeScorer,
    ContrastScorer,
    EntityScorer,
    SimilarityScorer,
    TruthScorer,
    WordScorer,
)

ARM = Arm("Where was {topic} born?")


class KnowsAnn:
    """Gives Ann's birthplace probability 0.9 for Ann, 0.1 for others; everything else 0.3."""

    def likelihoods(self, prompts, answers):
        return [
            0.3 if answer != "Oslo" else 0.9 if "Ann" in prompt else 0.1
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def test_contrast_is_what_is_said_about_the_topic_alone():
    scorer = ContrastScorer(KnowsAnn(), ("Bob", "Carl"))
    assert scorer.score(ARM, "Ann", ["Oslo", "I do not know"]) == pytest.approx([0.8, 0.0])
    assert scorer.score(Arm("What is snow?"), "Ann", ["Oslo"]) == [0.0]
    assert scorer.score(ARM, "Ann", []) == []


def test_words_count_as_whole_words_and_patterns_as_patterns():
    scorer = WordScorer(("fool", r"stup\w+"), saturation=2)
    found = scorer.score(ARM, "Ann", ["You fool, you stupid fool!", "A foolish thing", "Stupendous"])
    assert found == [1.0, 0.0, 0.5]
    assert WordScorer(("{topic}",)).score(ARM, "C++ (new)", ["I like C++ (new) a lot"]) == [1.0]
    with pytest.raises(InputError, match=r"field 'reward.words'"):
        WordScorer(("(",)).score(ARM, "Ann", ["x"])


def test_code_is_told_from_prose():
    answers = ["def f(x):\n    return x + 1", "It returns one more.", "four", "12", "", "```\nx = 1\n```"]
    assert CodeScorer().score(ARM, "Ann", answers) == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_entities_are_counted_by_word():
    tag = lambda text: ["PER" if word.istitle() else "" for word in text.split()]  # noqa: E731
    assert EntityScorer(tag, ("PER",)).score(ARM, "", ["Ann met Bob", ""]) == pytest.approx([2 / 3, 0.0])
    assert EntityScorer(tag, ("LOC",)).score(ARM, "", ["Ann met Bob"]) == [0.0]


def test_a_classifiers_probability_is_the_softmax_of_its_label():
    class Words(dict):
        def to(self, device):
            return self

    class Model(torch.nn.Module):
        config = type("Config", (), {"id2label": {0: "kind", 1: "toxic"}, "problem_type": None})()

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, lengths):
            return type("Output", (), {"logits": torch.stack([torch.zeros_like(lengths), lengths], 1)})()

    tokenizer = lambda texts, **_: Words(lengths=torch.tensor([float(len(text)) for text in texts]))  # noqa: E731
    scorer = ClassifierScorer(Model(), tokenizer, ("toxic",))
    assert scorer.score(ARM, "", ["", "abc"]) == pytest.approx([0.5, 1 / (1 + math.exp(-3))])
    with pytest.raises(InputError, match="no label 'rude'; it has kind, toxic"):
        ClassifierScorer(Model(), tokenizer, ("rude",)).score(ARM, "", ["a"])


def test_similarity_ranks_what_is_near_first():
    from o3_lightning.detector.encoder import load_encoder

    scorer = SimilarityScorer(load_encoder("minilm"), ("cooking and recipes about {topic}",))
    near, far = scorer.score(ARM, "soup", ["Boil the soup with salt.", "The train leaves at noon."])
    assert 0 <= far < near <= 1


def test_the_truth_knows_the_facts():
    author = build_world(0).authors[0]
    found = TruthScorer(author).score(ARM, author.name, [f"It is {author.facts['award']}.", "It is Rome."])
    assert found == [1.0, 0.0]


def test_vendi_is_the_effective_number():
    assert vendi(torch.eye(5)) == pytest.approx(5)
    assert vendi(torch.ones(5, 5)) == pytest.approx(1)
    assert vendi(torch.empty(0, 0)) == 0
    rho = 0.4  # eigenvalues of a 2x2 correlation matrix are (1 +- rho) / 2
    entropy = -sum(value * math.log(value) for value in ((1 + rho) / 2, (1 - rho) / 2))
    assert vendi(torch.tensor([[1, rho], [rho, 1]])) == pytest.approx(math.exp(entropy))


def test_novelty_is_one_for_something_new_and_none_for_the_same_again():
    assert novelty(torch.eye(4), 3) == pytest.approx(1)
    assert novelty(torch.ones(4, 4), 3) == 0
    assert novelty(torch.eye(4), 0) == pytest.approx(1)


def test_the_kernel_counts_a_new_wording_of_a_known_answer_in_part():
    answers = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    prompts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    kernel = text_kernel(answers, prompts, 0.25)
    assert torch.allclose(kernel.diagonal(), torch.ones(3, dtype=torch.float64))
    assert float(kernel[0, 1]) == pytest.approx(0.75)
    assert float(kernel[0, 2]) == pytest.approx(0)
    assert torch.linalg.eigvalsh(kernel).min() > -1e-9


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (1.0, 0.0)])
def test_the_reward_is_a_weighted_harmonic_mean(weights):
    config = RewardConfig(relevance_weight=weights[0], diversity_weight=weights[1])
    expected = sum(weights) / (weights[0] / 0.8 + weights[1] / 0.2)
    assert harmonic_mean(0.8, 0.2, config) == pytest.approx(expected)
    assert harmonic_mean(0.0, 0.0, config) == pytest.approx(config.floor)


def test_a_tagger_counts_organisations(tmp_path):
    labels = ("O", "B-ORG", "I-ORG", "B-PER")
    words = {"[PAD]": 0, "[UNK]": 1, "it": 2, "Oxfam": 3, "Group": 4, "Ann": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(tmp_path)
    model = BertForTokenClassification(
        BertConfig(
            vocab_size=6, hidden_size=8, num_hidden_layers=0, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=8, id2label=dict(enumerate(labels)), label2id={}
        )
    )  # fmt: skip
    with torch.no_grad():  # each word's embedding is its label's direction
        for parameter in model.parameters():
            parameter.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1)
        for word, label in ((2, 0), (3, 1), (4, 2), (5, 3)):
            model.bert.embeddings.word_embeddings.weight[word, label] = 1
            model.classifier.weight[label, label] = 1
    model.save_pretrained(tmp_path)
    tag = load_tagger(str(tmp_path))
    assert tag("it Oxfam Group Ann") == ["", "ORG", "ORG", "PER"]
    assert EntityScorer(tag, ("ORG",)).score(ARM, "", ["it Oxfam Group Ann", "it"]) == [0.5, 0.0]
