"""The inputs of a run (base model, requests, encoder), checked before anything is written.

A stopped run continues only with the rows that it began with.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from o3_lightning.adapter.retain_guard import RetainGuard
from o3_lightning.adapter.targets import choose_targets
from o3_lightning.common.errors import InputError
from o3_lightning.common.shipped import locate
from o3_lightning.data.config import DataConfig
from o3_lightning.data.stream import RETAIN, RequestStream, load_stream
from o3_lightning.detector.encoder import Encoder, load_configured_encoder
from o3_lightning.evaluation.prompt_lengths import fit_prompts
from o3_lightning.evaluation.splits import HOLDOUT, UTILITY, digest_rows
from o3_lightning.models.base import BaseModel
from o3_lightning.objectives.targets import check_needs
from o3_lightning.run.config import RunConfig
from o3_lightning.run.recorded_base import load_base_for
from o3_lightning.run.results import BASE_STAGE
from o3_lightning.training.run_folder import Result, RunFolder


class Inputs(NamedTuple):
    """The inputs of a run.

    Args:
        base: the language model to unlearn from.
        stream: the requests, and utility rows that training cannot read unless the configuration declares it.
        encoder: of the detectors.
    """

    base: BaseModel
    stream: RequestStream
    encoder: Encoder


def read_inputs(config: RunConfig) -> Inputs:
    """Loads the inputs; InputError for what cannot work, before anything is trained or written."""
    stream = load_stream(config.data, config.seed)
    for request in stream.requests:
        check_needs(config.objective, request.rows, stream.utility.get(RETAIN))
    base = load_base_for(RunFolder(config.folder).store, config)
    if not config.refuse_only:
        choose_targets(base.model, config.adapter.targets)
    stream = fit_prompts(stream, base, config.data.too_long, config.adapter.max_tokens)
    return Inputs(base, guard(stream, config), load_configured_encoder(config.detector))


def guard(stream: RequestStream, config: RunConfig) -> RequestStream:
    """Returns the stream with utility rows that training cannot read, unless the objective needs them."""
    declared = config.objective.needs_retained_data
    guarded = {
        name: RetainGuard(rows, name=name, declared=declared and name == RETAIN)
        for name, rows in stream.utility.items()
    }
    return replace(stream, utility=guarded)


@contextmanager
def evaluating(stream: RequestStream) -> Iterator[None]:
    """Allows reading the utility rows within the context."""
    with ExitStack() as stack:
        for rows in stream.utility.values():
            if isinstance(rows, RetainGuard):
                stack.enter_context(rows.evaluation())
        yield


def check_unchanged(folder: RunFolder, stream: RequestStream, data: DataConfig) -> None:
    """Raises InputError if a request or a utility split differs from that of the run's first stage."""
    began = folder.result(BASE_STAGE)
    if began is None:
        return
    check_requests(began, stream, folder.path)
    then = {split: result["digest"] for split, result in began[UTILITY].items()}
    with evaluating(stream):
        now = {split: digest_rows(rows) for split, rows in stream.utility.items()}
    if HOLDOUT in began:  # only membership metrics measure it
        then[HOLDOUT], now[HOLDOUT] = began[HOLDOUT]["digest"], digest_rows(stream.holdout)
    differ = dict(changes(then, now))
    files = {RETAIN: data.retain, HOLDOUT: data.holdout}
    if differ:
        splits = ", ".join(f"{files.get(split) or repr(split)} {what}" for split, what in differ.items())
        raise InputError(
            f"this run began with other rows to measure ({splits}); put those back, or give another --name, "
            f"and --take_over {folder.path} to keep what is trained",
            path=folder.path,
        )


def check_finished(folder: RunFolder, config: RunConfig) -> None:
    """Raises InputError if the requests of a finished run were changed since.

    Only a user's own files are compared, and only if all of them still exist: honouring a request may require
    deleting its file. Utility rows may be gone too.
    """
    data = config.data
    if data.too_long != "refuse":  # the files hold the prompts as they were
        return
    began = folder.result(BASE_STAGE)
    if began is not None and data.name == "jsonl" and all(map(locate, data.requests)):
        forget_sets = load_stream(replace(data, retain=None, holdout=None), config.seed)
        check_requests(began, forget_sets, folder.path)


def check_requests(began: Result, stream: RequestStream, folder: Path) -> None:
    """Raises InputError if the requests differ from those of a run's first stage."""
    then = {name: splits["seen"]["digest"] for name, splits in began["requests"].items()}
    now = {request.id: digest_rows(request.rows) for request in stream.requests}
    differ = [f"'{name}' {what}" for name, what in changes(then, now)]
    if differ:
        raise InputError(
            f"this run began with other requests ({', '.join(differ)}); give those of now another --name, "
            f"and --take_over {folder} to train only what is new",
            path=folder,
        )


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields every name that was added, removed or has another digest, with what happened to it."""
    yield from ((name, "is new") for name in now if name not in then)
    yield from ((name, "is gone") for name in then if name not in now)
    yield from ((name, "was changed") for name in then if now.get(name, then[name]) != then[name])
