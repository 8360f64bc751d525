"""Release: unlearns by subtracting adapters from the weights, reversibly and within a budget of utility."""
