"""Fitting a network: trainer, optimizer, monitor, comparison runs."""
