"""Release: unlearns by subtracting adapters from the weights, within a budget and with a way back."""
