"""Measures the operations against what a user would write otherwise: `python -m benchmarks.kernels`."""
