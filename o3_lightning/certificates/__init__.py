"""Signed certificates of unlearning: what was done for a request, what was measured, and what was not."""
