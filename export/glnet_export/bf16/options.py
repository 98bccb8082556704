"""What may be asked of bfloat16."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bf16Options:
    """What bfloat16 may cost.

    Attributes:
        crops: Rendered persons that bfloat16 is compared with float32 and with the truth on.
        max_growth: Largest growth of MPJPE, PA-MPJPE and PVE, as a share of float32's.
    """

    crops: int = 256
    max_growth: float = 0.01
