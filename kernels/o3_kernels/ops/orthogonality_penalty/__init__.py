"""The squared overlap of new adapters with all earlier ones."""
