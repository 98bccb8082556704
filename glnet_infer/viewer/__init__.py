"""The page that plays a motion over its video: one file, which needs no network."""

from glnet_infer.viewer.page import write_page

__all__ = ["write_page"]
