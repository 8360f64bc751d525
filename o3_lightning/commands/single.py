"""What the commands for one request alone share: choosing it, and where its files go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from o3_lightning.common.errors import InputError
from o3_lightning.run.config import RunConfig

if TYPE_CHECKING:
    from o3_lightning.data.requests import UnlearningRequest
    from o3_lightning.data.stream import RequestStream

__all__ = ["RequestChoice", "choose_request", "stage_folder"]


@dataclass(frozen=True)
class RequestChoice:
    """Which request a command works on.

    Args:
        request: its id; empty takes the first of the stream.
    """

    request: str = ""


def choose_request(config: RunConfig, identifier: str) -> tuple[RequestStream, UnlearningRequest]:
    """Returns the stream of a configuration and one request of it.

    Raises:
        InputError: the stream has no such request.
    """
    from o3_lightning.data.stream import load_stream

    stream = load_stream(config.data, config.seed)
    known = {request.id: request for request in stream.requests}
    name = identifier or next(iter(known))
    if name not in known:
        raise InputError(f"no request '{name}'; there are: {', '.join(known)}", field="request")
    return stream, known[name]


def stage_folder(config: RunConfig, identifier: str) -> Path:
    """Where the files of one request alone go."""
    return config.folder / "single" / identifier
