"""Reveal: makes a model say what it knows about a topic, with instructions that a bandit finds."""
