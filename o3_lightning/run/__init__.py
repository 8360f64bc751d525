"""A whole run: its configuration, inputs, stages and results."""
