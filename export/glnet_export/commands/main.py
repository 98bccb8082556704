"""``glnet-export``: a checkpoint to a bundle, unless another command is named."""

from typing import Any

import typer.core

from glnet_export.commands.checkpoint import checkpoint_command
from glnet_export.commands.demo import demo_command
from glnet_export.commands.engine import engine_command
from glnet_export.commands.triton import triton_command
from glnet_infer.commands.console import new_app, start

DEFAULT = "checkpoint"


_OTHERS = "Other commands: glnet-export engine --help, glnet-export triton --help, glnet-export demo --help."


class _DefaultGroup(typer.core.TyperGroup):
    """Takes ``glnet-export ckpt.pth`` for ``glnet-export checkpoint ckpt.pth``. A file called engine is ``./engine``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else [DEFAULT, *args])


app = new_app(cls=_DefaultGroup)
app.command(DEFAULT, epilog=_OTHERS)(checkpoint_command)
app.command("engine")(engine_command)
app.command("triton")(triton_command)
app.command("demo")(demo_command)


def main() -> None:
    """Entry point."""
    start(app)
