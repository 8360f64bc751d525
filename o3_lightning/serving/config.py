"""Settings of the server."""

from __future__ import annotations

from dataclasses import dataclass

from o3_lightning.common.checks import ANY_POSITIVE, AT_LEAST_0, check_ranges

POSITIVE = (
    "max_batch_rows",
    "max_waiting_rows",
    "max_body_bytes",
    "max_connections",
    "max_completion_tokens",
    "audit_bytes",
    "audit_files",
    "timeout_seconds",
    "gate_timeout_seconds",
    "refresh_seconds",
)
LARGEST_PORT = 65535


@dataclass(frozen=True)
class ServeConfig:
    """How the server listens, what it allows, and where it writes its audit log.

    Args:
        host: address to listen on; the default is reachable from this machine only.
        port: TCP port; 0 takes a free one.
        token_variable: environment variable with the bearer token of the operator's endpoints (`/requests`
            and `/inspect`); if it is unset or empty, these endpoints do not exist.
        served_model: name of the model in the interface; empty takes the base model's id.
        max_batch_rows: rows that are generated together; 1 or more.
        max_waiting_rows: rows that wait for a batch; further ones are refused with status 429.
        batch_wait_seconds: longest time that a batch waits for further rows while several clients are active;
            a twentieth of the last batch's time if that is less.
        max_body_bytes: largest body of a call, in bytes; larger ones get status 413.
        max_connections: open connections; further ones get status 503.
        max_completion_tokens: longest answer, in tokens; calls that ask for more get status 400.
        timeout_seconds: time from the arrival of a call to the end of its answer, in seconds; a call that is
            still waiting then gets status 503, and an answer that is being generated ends.
        gate_timeout_seconds: time for the detectors on one batch, in seconds, where `gate.timeout_seconds`
            sets none; then its rows are refused.
        train_requests: train the adapter of a request that was added over HTTP, in a process of its own that
            loads the base model again; false leaves it to `requests train`.
        refresh_seconds: time between two looks at the store, in seconds.
        audit: file of the audit log; empty writes none.
        audit_bytes: size at which the audit log is rotated, in bytes.
        audit_files: rotated files that are kept; 1 or more.

    Raises:
        InputError: a field is outside its range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_variable: str = "O3_SERVE_TOKEN"  # noqa: S105 - the name of a variable
    served_model: str = ""
    max_batch_rows: int = 16
    max_waiting_rows: int = 128
    batch_wait_seconds: float = 0.1
    max_body_bytes: int = 1_000_000
    max_connections: int = 512
    max_completion_tokens: int = 512
    timeout_seconds: float = 120.0
    gate_timeout_seconds: float = 10.0
    train_requests: bool = True
    refresh_seconds: float = 1.0
    audit: str = ""
    audit_bytes: int = 50_000_000
    audit_files: int = 10

    def __post_init__(self) -> None:
        ranges = {**dict.fromkeys(POSITIVE, ANY_POSITIVE), "port": (0, LARGEST_PORT)}
        check_ranges(self, batch_wait_seconds=AT_LEAST_0, **ranges)
