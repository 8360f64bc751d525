"""Benchmarks as streams of requests, prompt templates, and token batches."""
