"""The spread of rendered crops, from easy ones to all."""

from dataclasses import dataclass, fields

from glnet_infer.errors import InputError


@dataclass(frozen=True)
class Spread:
    """Spread of rendered crops, in shares from 0 to 1.

    Attributes:
        difficulty: Spread of poses, views and pictures, from 0 (whole, frontal, standing persons in clear pictures) to 1
            (all).
        tilted: Share of persons who are the less upright of two that are drawn, as the camera sees them.
        bystanders: Share of crops with another person beside, before or behind the one who is looked for, at full
            difficulty. One in eleven of these is out of sight.

    Raises:
        InputError: A share is outside 0 to 1.
    """

    difficulty: float = 1.0
    tilted: float = 0.0
    bystanders: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            share = getattr(self, field.name)
            if not 0 <= share <= 1:
                raise InputError(f"The share {field.name} is {share}.", fix="give a number from 0 to 1")


SCORED = Spread()
"""The spread that networks are scored on: one person in a crop, drawn from all."""
