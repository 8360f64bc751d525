"""Trainer, loggers, processes, and the folder that a run writes."""
