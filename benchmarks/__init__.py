"""Measured studies, run from a checkout by `python -m benchmarks.NAME`; not in the installed package."""
