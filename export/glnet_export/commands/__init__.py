"""Command lines of the export: a checkpoint to a bundle, an engine for a bundle, the demonstration network."""
