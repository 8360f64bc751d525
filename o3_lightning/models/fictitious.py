"""The embedded base model: a small Llama with its own tokenizer, trained once per seed and cached.

A finished model is a folder in Hugging Face form. It is built under another name and renamed into place, so
that a kill at any moment leaves no model or a whole one; a lock lets only one process build it.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from o3_lightning.common.files import cache_folder, digest_file, digest_json, sync_folder, write_json
from o3_lightning.data.fictitious import in_all_phrasings, training_rows
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.templates import TEMPLATES
from o3_lightning.data.words import general_knowledge
from o3_lightning.models.config import FictitiousBaseConfig

RECIPE = 3  # raise it when the model's training changes in a way that its configuration does not show
MANIFEST = "manifest.json"
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
logger = logging.getLogger(__name__)


def fictitious_base_folder(
    seed: int, config: FictitiousBaseConfig | None = None, unseen: Collection[str] = ()
) -> Path:
    """Returns the folder of the embedded base model of a seed, trained now if it is not cached.

    Args:
        seed: of the world, the initial weights and the order of rows.
        config: the model's shape and training; None takes the default.
        unseen: prompts that the model is never shown, with their answers.

    Raises:
        OSError: the cache folder may not be written.
    """
    rows = training_rows(seed)
    return small_base_folder("fictitious", rows, config or FictitiousBaseConfig(), seed, unseen)


def small_base_folder(
    name: str,
    rows: tuple[QuestionAnswer, ...],
    config: FictitiousBaseConfig,
    seed: int,
    unseen: Collection[str] = (),
) -> Path:
    """Returns the folder of a small model that learns some rows by heart, trained now if it is not cached.

    Args:
        name: begins the folder's name.
        rows: what it learns; each prompt with one answer.
        config: the model's shape and training.
        seed: of the initial weights and the order of rows.
        unseen: prompts of rows that are left out; the tokenizer stays that of all rows, so that what the
            models give each token can be compared.

    Raises:
        OSError: the cache folder may not be written.
    """
    learnt = without(rows, unseen)
    key = {"recipe": RECIPE, "config": asdict(config), "seed": seed, "rows": [row.to_dict() for row in rows]}
    if len(learnt) < len(rows):
        key["learnt"] = [row.to_dict() for row in learnt]

    def make() -> tuple[Any, Any]:
        logger.info("training a small base model once, a few minutes; kept in %s", cache_folder())
        tokenizer = train_tokenizer(rows, config.vocabulary)
        return tokenizer, train_model(tokenizer, learnt, config, seed)

    return cached_model(name, key, make)


def without(rows: tuple[QuestionAnswer, ...], unseen: Collection[str]) -> tuple[QuestionAnswer, ...]:
    """Returns the rows that ask none of some prompts."""
    hidden = frozenset(unseen)
    return tuple(row for row in rows if row.prompt not in hidden)


def cached_model(name: str, key: dict[str, Any], make: Callable[[], tuple[Any, Any]]) -> Path:
    """Returns the folder of a model in Hugging Face form, made now if it is not cached whole.

    Args:
        name: begins the folder's name.
        key: plain JSON, all that decides the model; it gives the rest of the name.
        make: gives tokenizer and model; of several processes one makes them, and the others wait.

    Raises:
        OSError: the cache folder may not be written.
    """
    folder = cache_folder() / f"{name}-{digest_json(key)[:16]}"
    if is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not is_whole(folder):
            build(folder, make)
    return folder


def is_whole(folder: Path) -> bool:
    """Whether every file of a finished model is there with the content it was written with."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return all(digest_file(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


def build(folder: Path, make: Callable[[], tuple[Any, Any]]) -> None:
    """Makes a model beside its place and renames it there; leftovers of killed builds are removed."""
    building = folder.with_name(f".{folder.name}.building")
    for leftover in (building, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    building.mkdir()
    tokenizer, model = make()
    tokenizer.save_pretrained(building)
    model.save_pretrained(building, safe_serialization=True)
    names = sorted(path.name for path in building.iterdir())
    write_json(building / MANIFEST, {name: digest_file(building / name) for name in names})
    for name in names:
        sync_folder(building / name)
    os.replace(building, folder)
    sync_folder(folder.parent)


def train_tokenizer(rows: tuple[QuestionAnswer, ...], vocabulary: int) -> Any:
    """Returns a byte-level BPE tokenizer with start, end and padding tokens, trained on the rows' text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    template = TEMPLATES["question_answer"]
    texts = ["".join(template.join(row.prompt, row.answer)) for row in rows]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, padding_side="left")


def make_model(tokenizer: Any, config: FictitiousBaseConfig) -> Any:
    """Returns an untrained Llama for a tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.context_tokens,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train_model(
    tokenizer: Any, rows: tuple[QuestionAnswer, ...], config: FictitiousBaseConfig, seed: int
) -> Any:
    """Returns a model trained on the rows; the same seed gives the same weights on the same machine."""
    import torch

    from o3_lightning.models.pretraining import learn_answers

    common = {row.prompt for fact in general_knowledge() for row in in_all_phrasings(fact)}
    rows = tuple(row for row in rows for _ in range(config.common_repeats if row.prompt in common else 1))
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(config.threads)
        try:
            model = make_model(tokenizer, config)
            learn_answers(model, tokenizer, TEMPLATES["question_answer"], rows, config, seed)
        finally:
            torch.set_num_threads(threads)
    return model.eval()
