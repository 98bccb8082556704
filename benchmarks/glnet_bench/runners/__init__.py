"""What runs a network: backends of the product, and PyTorch as the baseline."""
