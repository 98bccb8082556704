"""Synthetic training data: an SMPL-format body, posed, dressed and rendered on the fly, with exact labels.

Look at it with ``python -m glnet.training.synthetic -o contact-sheet.png``.
"""

from glnet.training.synthetic.source import SyntheticSample, SyntheticSource
from glnet.training.synthetic.spread import Spread

__all__ = ["Spread", "SyntheticSample", "SyntheticSource"]
