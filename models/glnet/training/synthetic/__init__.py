"""Synthetic training data: an SMPL-format body, posed, dressed and rendered on the fly, with exact labels.

Look at it with ``python -m glnet.training.synthetic -o contact-sheet.png``.
"""

from glnet.training.synthetic.source import SyntheticSample, SyntheticSource

__all__ = ["SyntheticSample", "SyntheticSource"]
