"""Requests from a user's own JSON-lines files."""

from o3_lightning.common.shipped import locate
from o3_lightning.data.config import BENCHMARKS, DataConfig
from o3_lightning.data.requests import QuestionAnswer, read_requests, read_rows
from o3_lightning.data.stream import RequestStream


@BENCHMARKS.register("jsonl")
def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns the requests in the configured files and, where there is one, the retain file as utility.

    Args:
        config: `requests` names the files in the order of unlearning, `retain` the file of what stays,
            `holdout` that of what no model was shown; paths, or names of shipped files.
        seed: not used; nothing is drawn.

    Raises:
        InputError: a file, line or field is not as it has to be.
    """
    files = [str(locate(path) or path) for path in config.requests]
    requests = tuple(read_requests(files))
    others: dict[str, tuple[QuestionAnswer, ...]] = {}
    for name, given in (("retain", config.retain), ("holdout", config.holdout)):
        if given is not None:
            files.append(str(locate(given) or given))
            others[name] = tuple(row for _, _, row in read_rows(files[-1]))
    holdout = others.pop("holdout", ())
    return RequestStream("jsonl", requests, others, holdout=holdout, files=tuple(files))
