"""Measures the operations against what a user would write otherwise: `python -m o3_kernels.benchmarks`."""
