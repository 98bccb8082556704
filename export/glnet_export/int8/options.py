"""What may be asked of the int8 graph."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Int8Options:
    """How to make an int8 graph, and what it may cost.

    Attributes:
        calibration: Folder of photographs of persons that the ranges of values are taken from; None: rendered persons.
        crops: Rendered persons that int8 is compared with float32 and with the truth on.
        max_growth: Largest growth of MPJPE, PA-MPJPE and PVE, as a share of float32's.
    """

    calibration: Path | None = None
    crops: int = 256
    max_growth: float = 0.03
