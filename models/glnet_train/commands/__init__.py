"""Command lines of the training."""
