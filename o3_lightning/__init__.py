"""Continual unlearning of language models: a detector, an orthogonal adapter and a soft gate per request."""

__version__ = "0.2.0"
