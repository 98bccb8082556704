"""Rendered persons: an SMPL-format body, posed, dressed and rendered on the fly, with exact labels.

Look at it with ``glnet-train sheet -o contact-sheet.png``.
"""

from glnet_render.source import SyntheticSample, SyntheticSource
from glnet_render.spread import Spread

__all__ = ["Spread", "SyntheticSample", "SyntheticSource"]
