"""Training GLNet: losses, data, metrics and the trainer."""
