"""The splits of a request stream: order, digests, a check of their prompts, finished results."""

import logging
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json, read_result, write_json
from o3_lightning.data.requests import QuestionAnswer, read_rows
from o3_lightning.data.stream import RequestStream
from o3_lightning.metrics.registry import Kind
from o3_lightning.models.base import BaseModel
from o3_lightning.training.processes import ALONE, Processes

logger = logging.getLogger(__name__)

UTILITY = "utility"
HOLDOUT = "holdout"  # rows that no model was trained on, where the stream has some


def splits_of(stream: RequestStream) -> Iterator[tuple[str, str, Sequence[QuestionAnswer], Kind]]:
    """Yields owner, name, rows and kind of every split; the owner is a request id or "utility".

    A request has the split "seen", and "held_out", "test" and "verbmem" where it has such rows.
    """
    for request in stream.requests:
        for split, rows in (
            ("seen", request.rows),
            ("held_out", request.held_out),
            ("test", stream.test.get(request.id, ())),
            ("verbmem", stream.verbmem.get(request.id, ())),
        ):
            if rows:
                yield request.id, split, rows, "forget"
    for split, kept in stream.utility.items():
        yield UTILITY, split, kept, "keep"


def sample_rows(rows: Sequence[QuestionAnswer], limit: int, seed: int) -> Sequence[QuestionAnswer]:
    """Returns at most `limit` rows in their order, drawn by the seed; all of them if the limit is 0.

    Evenly spaced rows could all ask for one attribute.
    """
    if not limit or len(rows) <= limit:
        return rows
    places = random.Random(f"rows-{seed}").sample(range(len(rows)), limit)  # noqa: S311
    return [rows[place] for place in sorted(places)]


def digest_rows(rows: Sequence[QuestionAnswer]) -> str:
    """Returns the SHA-256 of the rows of a split."""
    return digest_json([asdict(row) for row in rows])


def check_prompts(stream: RequestStream, base: BaseModel, training_tokens: int = 0) -> None:
    """Checks that every prompt of the splits and of their files leaves room for an answer in the context.

    Args:
        stream: the splits, and the files that their rows were read from.
        base: the model that will answer.
        training_tokens: longest prompt and answer together in training, which the rows of requests have to
            fit; 0 takes the context.

    Raises:
        InputError: a prompt is at least as long as the context, or as training allows; the message names file
            and line, or the row.
    """
    for path in stream.files:
        for _ in read_rows(path, count_tokens=base.count_tokens, context_tokens=base.context_tokens):
            pass
    for owner, split, rows, _ in splits_of(stream):
        limit, name = base.context_tokens, "the model's context"
        if split == "seen" and 0 < training_tokens < limit:
            limit, name = training_tokens, "adapter.max_tokens"
        for number, row in enumerate(rows, start=1):
            tokens = base.count_tokens(row.prompt)
            if tokens >= limit:
                message = f"{owner}/{split}, row {number}: {tokens} tokens, {name} is {limit}"
                raise InputError(f"{message}: {row.prompt[:60]!r}", field="prompt")


@dataclass(frozen=True)
class FinishedSplits:
    """The results of finished splits, one JSON file each, so that an interrupted evaluation continues.

    Args:
        folder: holds one folder per digest; may be missing.
        digest: of everything that determines the results; files of another digest are ignored.
        processes: the first one reads and writes.
    """

    folder: Path
    digest: str
    processes: Processes = ALONE

    def resume(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns a split's JSON object from its file, or stores that of `work`; every process calls it."""
        path = self.folder / self.digest[:16] / f"{name.replace('/', '--')}.json"
        found = self.processes.once(lambda: read_result(path) if path.is_file() else None)
        if found is not None:
            logger.info("  %s: already finished", name)
            return found
        result = work()
        if self.processes.is_first:
            write_json(path, result, private=True)
        return result

    def remove(self) -> None:
        """Deletes all files, once the whole evaluation is written."""
        if self.processes.is_first:
            shutil.rmtree(self.folder, ignore_errors=True)
