"""The real-world split of the closer-look benchmark: real people are forgotten, their neighbours retained."""

from __future__ import annotations

from collections.abc import Sequence

from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.records import Record
from o3_lightning.data.sources import load_records, try_records
from o3_lightning.data.stream import RequestStream
from o3_lightning.data.tofu import group_by_task, merge_perturbed, to_row

__all__ = ["load"]

FIELDS = ("name", "question", "answer")


@BENCHMARKS.register("real_world")
def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns one request per task id, and the neighbours as utility.

    Only local files are read: the benchmark is not on the Hugging Face Hub.

    Args:
        config: folder of local files.
        seed: not used.

    Raises:
        InputError: a file is missing or malformed.

    Source: Yuan et al. 2025, "A closer look at machine unlearning for large language models".
    """
    requests = group_by_task(read_split(config, "forget", (*FIELDS, "task_id")), "person")
    neighbours = tuple(to_row(record) for record in read_split(config, "neighbor", FIELDS))
    return RequestStream("real_world", requests, {"neighbours": neighbours})


def read_split(config: DataConfig, name: str, fields: Sequence[str]) -> list[Record]:
    """Returns a split, with perturbed answers if they are available."""
    perturbed = try_records(config, f"real_world/{name}_perturbed.jsonl", FIELDS)
    plain = load_records(config, f"real_world/{name}.jsonl", fields)
    return merge_perturbed(plain, perturbed or [])
