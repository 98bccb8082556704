"""Measuring: which cases, how long, in which order and process."""
