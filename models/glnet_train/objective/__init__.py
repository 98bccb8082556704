"""The training objective: losses, matching of positive pixels, guidance heads."""
