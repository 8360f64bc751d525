"""What is measured after each request, always through the gated model."""
