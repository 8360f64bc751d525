"""Base models, and the LoRA factors that change them."""
