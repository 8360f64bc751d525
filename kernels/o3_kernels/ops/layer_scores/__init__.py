"""Distances and cosines of pooled layer features to every request, and their weighted sum."""
