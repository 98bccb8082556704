"""Command lines of the runtime: the only rooms with typer and rich."""
