"""Teaching a base model what will be unlearned from it, such as TOFU's made-up authors."""

import copy
import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.requests import QuestionAnswer, read_rows
from o3_lightning.data.stream import taught_rows
from o3_lightning.data.templates import PromptTemplate
from o3_lightning.models.config import FictitiousBaseConfig, FinetuneConfig
from o3_lightning.models.fictitious import cached_model, without

logger = logging.getLogger(__name__)
EVERY_ROW = 10**9
LARGEST = {"tofu": "forget10"}  # with the rows that are kept beside it, all 4,000
RECIPE = 1  # of the cached models; a change of the training raises it


def finetuning_rows(config: FinetuneConfig, seed: int = 0) -> tuple[QuestionAnswer, ...]:
    """Returns the rows that a model is taught, each prompt once.

    Raises:
        InputError: a file is missing or malformed, a benchmark is neither local nor on the Hub, or `data` has
            a field that a benchmark lacks.
    """
    found: list[QuestionAnswer] = []
    for source in config.rows:
        if source in BENCHMARKS:
            whole = DataConfig(name=source, variant=LARGEST.get(source, ""), retain_rows=EVERY_ROW)
            found += taught_rows(whole, seed)
        else:
            found += [row for _, _, row in read_rows(source)]
    if config.data:
        try:
            part = DataConfig(**config.data)
        except TypeError as error:
            raise InputError(str(error), field="base.finetune_on.data") from error
        found += taught_rows(part, seed)
    return tuple({row.prompt: row for row in found}.values())


def finetuned_folder(
    model: Any,
    tokenizer: Any,
    template: PromptTemplate,
    digest: str,
    config: FinetuneConfig,
    seed: int,
    unseen: Collection[str] = (),
) -> Path:
    """Returns the folder of a model that has learned the rows, all its weights trained in float32, once.

    Args:
        model: the model before; it is not changed.
        tokenizer: its tokenizer.
        template: how prompts are written.
        digest: of the model's weights.
        config: rows and training.
        seed: of the order of rows.
        unseen: prompts that the model is never shown, with their answers.

    Raises:
        InputError: the rows cannot be read, or a prompt leaves no room for an answer.
        OSError: the cache folder may not be written.
    """
    rows = without(finetuning_rows(config, seed), unseen)
    key = {
        "recipe": RECIPE,
        "base": digest,
        "template": [template.format(""), template.answer_before, template.end],
        "config": {**asdict(config), "rows": [row.to_dict() for row in rows], "data": {}},
        "seed": seed,
    }
    return cached_model(
        "finetuned", key, lambda: (tokenizer, teach(model, tokenizer, template, rows, config, seed))
    )


def teach(
    model: Any,
    tokenizer: Any,
    template: PromptTemplate,
    rows: Sequence[QuestionAnswer],
    config: FinetuneConfig,
    seed: int,
) -> Any:
    """Returns a copy of the model that was trained on the rows."""
    import torch

    from o3_lightning.models.pretraining import learn_answers

    logger.info("teaching the base model %d rows once; kept in the cache", len(rows))
    settings = FictitiousBaseConfig(
        learning_rate=config.learning_rate,
        epochs=config.epochs,
        batch_size=config.batch_size,
        context_tokens=config.max_tokens,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = plain_copy(model).float().train().requires_grad_(True)
        learn_answers(learner, tokenizer, template, rows, settings, seed)
    return learner.eval().to(model.dtype)


def plain_copy(model: Any) -> Any:
    """Returns a copy without the marks of a quantised file: weights read from GGUF are ordinary tensors."""
    copied = copy.deepcopy(model)
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        vars(copied).pop(name, None)
    vars(copied.config).pop("quantization_config", None)
    return copied
