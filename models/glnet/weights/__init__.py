"""Weights in files of any origin: read without running code, found among what else a checkpoint holds."""

from glnet.weights.finding import find_weights
from glnet.weights.opening import CheckpointFile, open_checkpoint

__all__ = ["CheckpointFile", "find_weights", "open_checkpoint"]
