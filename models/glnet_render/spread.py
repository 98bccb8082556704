"""How far samples spread from an easy one."""

from dataclasses import dataclass, fields

from glnet_infer.errors import InputError


@dataclass(frozen=True)
class Spread:
    """How far samples spread, in shares from 0 to 1.

    Attributes:
        difficulty: 0 (whole, frontal, standing persons, clear pictures) to 1 (everything).
        tilted: Share of persons who are the less upright of two that are drawn, as the camera sees them.
        bystanders: Share of crops with another person beside, before or behind the one who is looked for; at less than
            full difficulty fewer. One in eleven is out of sight.

    Raises:
        InputError: One is outside 0 to 1.
    """

    difficulty: float = 1.0
    tilted: float = 0.0
    bystanders: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            share = getattr(self, field.name)
            if not 0 <= share <= 1:
                raise InputError(f"{field.name} is {share}.", why="it is a share of the full spread", fix="give 0 to 1")


SCORED = Spread()
"""What networks are scored on: one person, and nobody chosen."""
