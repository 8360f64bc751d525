"""The gate: the right adapter for each row at the right strength, on any causal language model."""
