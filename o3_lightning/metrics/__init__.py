"""Metrics of unlearning: pure functions over values per example, each with its source."""
