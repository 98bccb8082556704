"""Results: meshes, drawings of them, files."""
