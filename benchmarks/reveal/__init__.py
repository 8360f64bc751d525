"""Measured studies of `o3_lightning.reveal`."""
