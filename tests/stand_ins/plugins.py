"""Packages of others that join a table by entry points, good and bad ones."""


def write_plugin(folder, module, source, group, points):
    """A distribution with a module and its entry points; the folder goes on the path.

    Args:
        folder: Where it is installed.
        module: Name of its module.
        source: What is in the module.
        group: Group of the entry points.
        points: Name of each entry point, and what it names.
    """
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    name = module.replace("_", "-")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
