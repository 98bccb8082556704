"""How a training reports what it is doing, without knowing who listens."""


class Progress:
    """Hears how far a training is, and shows nothing. The command line overrides the methods with a bar."""

    def rendered(self, done: int, blocks: int) -> None:
        """The first crops are being rendered, ``done`` of so many blocks."""

    def trained(self, step: int, seconds: float, losses: dict[str, float]) -> None:
        """A step has been trained.

        Args:
            step: Number of the step, the first one is 1.
            seconds: Time since this process began to train.
            losses: Weighted loss terms of the step by name.
        """

    def note(self, text: str) -> None:
        """A message to whoever watches."""
