"""SMPL-format body models: safe loading, and decoding to vertices."""

from glnet.body.data import BodyData
from glnet.body.files import find_body, load_body
from glnet.body.smpl import Body

__all__ = ["Body", "BodyData", "find_body", "load_body"]
