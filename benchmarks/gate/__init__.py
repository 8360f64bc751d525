"""Measured studies of the gate."""
