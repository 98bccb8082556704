"""Fitting a network: trainer, optimizer, inheritance of weights, monitor."""
