"""Adapters: one plain PEFT LoRA a request, trained to unlearn it and to stay out of the others' way."""
