"""From frames to motion: sources, tracks, smoothing, following, writers."""
