"""Attacks on a gated model: disguises of a prompt behind one registry, and attacks on the weights."""
