"""MUSE: news articles or books to forget, or its sequence of four requests."""

from collections.abc import Sequence

from o3_lightning.common.errors import InputError
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.records import Record
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.sources import HubFile, load_records
from o3_lightning.data.stream import RequestStream, with_retain

REPOSITORIES = {
    "news": "muse-bench/MUSE-News",
    "books": "muse-bench/MUSE-Books",
    "sust": "muse-bench/MUSE-News",
}
SUSTAINED = ("forget_1", "forget_2", "forget_3", "forget_4")
PROMPT_WORDS = 100  # at the start of a passage; the rest is the answer
ANSWER_WORDS = 100
PASSAGES = 20  # at most per text; a book would give thousands


@BENCHMARKS.register("muse")
def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns MUSE as requests of passages, with its questions about retained texts as utility.

    Variants: "news" and "books" are one request each, "sust" is the sequence of four requests. Texts are
    split into passages of a prompt and its continuation.

    Args:
        config: variant, folder, and whether the Hub may be used.
        seed: not used.

    Raises:
        InputError: an unknown variant, or the data is not available.

    Source: Shi et al. 2024, "MUSE: Machine unlearning six-way evaluation"; it trains on whole texts, we on
        prompts and continuations, because the gate needs a prompt.
    """
    variant = config.variant or "news"
    if variant not in REPOSITORIES:
        raise InputError(f"expected one of {', '.join(REPOSITORIES)}, got {variant!r}", field="data.variant")
    subset, splits = ("sust", SUSTAINED) if variant == "sust" else ("raw", ("forget",))
    requests = tuple(
        UnlearningRequest(
            f"{variant}_{split}",
            tuple(
                row
                for record in read(config, variant, subset, split, ("text",))
                for row in split_text(record.text("text"))
            ),
        )
        for split in splits
    )
    questions = read(config, variant, "knowmem", "retain_qa", ("question", "answer"))
    kept = tuple(QuestionAnswer(record.text("question"), record.text("answer")) for record in questions)
    utility: dict[str, Sequence[QuestionAnswer]] = {"retained_knowledge": kept}
    if config.retain_rows:
        texts = read(config, variant, "raw", "retain1", ("text",))
        passages = [row for record in texts for row in split_text(record.text("text"))]
        utility = with_retain(utility, passages, config.retain_rows)
    return RequestStream(f"muse/{variant}", requests, utility)


def read(config: DataConfig, variant: str, subset: str, split: str, fields: Sequence[str]) -> list[Record]:
    """Returns a split of MUSE."""
    hub = HubFile(REPOSITORIES[variant], subset, split)
    return load_records(config, f"muse/{variant}/{subset}_{split}.jsonl", fields, hub)


def split_text(text: str) -> list[QuestionAnswer]:
    """Returns the first passages of a text; an incomplete last passage is dropped.

    Example:
        >>> len(split_text("word " * 250))
        1
    """
    words = text.split()
    size = PROMPT_WORDS + ANSWER_WORDS
    starts = range(0, max(1, len(words) - size + 1), size)
    pieces = [words[start : start + size] for start in list(starts)[:PASSAGES]]
    rows = []
    for piece in pieces:
        border = min(PROMPT_WORDS, len(piece) // 2)
        if border:
            rows.append(QuestionAnswer(" ".join(piece[:border]), " ".join(piece[border:])))
    return rows
