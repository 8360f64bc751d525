"""Low-rank updates of a linear layer, weighted per row."""
