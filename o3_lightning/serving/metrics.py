"""Counters of the server, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What the server counts; every server has its own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.calls = Counter(
            "o3_calls", "Calls by endpoint and status.", ["endpoint", "status"], registry=registry
        )
        self.decisions = Counter(
            "o3_decisions", "Prompts by what the gate decided.", ["decision"], registry=registry
        )
        self.refusals = Counter("o3_refusals", "Refused prompts by request.", ["request"], registry=registry)
        self.gate_seconds = Histogram("o3_gate_seconds", "Time of the gate on one batch.", registry=registry)
        self.batch_rows = Histogram(
            "o3_batch_rows", "Rows generated together.", buckets=BATCH_ROWS, registry=registry
        )
        self.tokens = Counter("o3_tokens", "Tokens read and generated.", ["kind"], registry=registry)
        self.waiting = Gauge("o3_waiting_rows", "Rows that wait for a batch.", registry=registry)
