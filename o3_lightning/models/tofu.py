"""A small base model that knows part of TOFU by heart, so that a processor can unlearn from it in seconds.

It shows how methods compare on long, natural answers. It is no language model: it knows these rows and
refusals, nothing else, and its figures say nothing about those of a large model that was fine-tuned on TOFU.
"""

from collections.abc import Collection
from pathlib import Path

from o3_lightning.data.config import DataConfig
from o3_lightning.data.fictitious import in_all_phrasings, refused_rows
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.stream import load_stream
from o3_lightning.models.config import FictitiousBaseConfig
from o3_lightning.models.fictitious import small_base_folder

# Five requests of one author each, in both phrasings, and 60 rows of each utility split.
KNOWN = DataConfig(name="tofu", variant="forget01", count=5, rows_per_request=20, utility_rows=60)
TRAINING = FictitiousBaseConfig(epochs=30, vocabulary=4096, learning_rate=2e-3, common_repeats=1)


def tofu_base_folder(seed: int, unseen: Collection[str] = ()) -> Path:
    """Returns the folder of the small model that knows `KNOWN`, trained now if it is not cached.

    Args:
        seed: of the initial weights and the order of rows; the rows are the same for all.
        unseen: prompts that the model is never shown, with their answers.

    Raises:
        InputError: TOFU's files are neither in `O3_DATA` nor to be had from the Hub.
        OSError: the cache folder may not be written.
    """
    return small_base_folder("tofu", known_rows(), TRAINING, seed, unseen)


def known_rows() -> tuple[QuestionAnswer, ...]:
    """Returns what the model learns, each prompt once."""
    stream = load_stream(KNOWN, 0)
    rows = [asked for request in stream.requests for row in request.rows for asked in in_all_phrasings(row)]
    rows += [QuestionAnswer(row.prompt, row.answer) for split in stream.utility.values() for row in split]
    unique = {row.prompt: row for row in reversed(rows)}
    return (*reversed(unique.values()), *refused_rows(0))
