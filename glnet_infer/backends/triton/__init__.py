"""A model that a Triton server runs, here or on another machine."""

from glnet_infer.backends.triton.address import Address
from glnet_infer.backends.triton.backend import TritonBackend
from glnet_infer.backends.triton.clients import describe

__all__ = ["Address", "TritonBackend", "describe"]
