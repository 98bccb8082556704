"""docs/licences.md: a licence for every package that is named as a dependency."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"[\w.-]+")
ROW = re.compile(r"^\| (\w[\w.-]*) \| (.+) \| (.+) \|$", re.MULTILINE)


def dependencies() -> dict[str, set[str]]:
    """The extras that bring a package; "always" for what is not optional, "builds" for what makes the wheel."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    groups = {
        "always": project["dependencies"],
        "builds": document["build-system"]["requires"],
        **project["optional-dependencies"],
    }
    found: dict[str, set[str]] = {}
    for group, requirements in groups.items():
        for requirement in requirements:
            found.setdefault(NAME.match(requirement)[0], set()).add(group)
    del found[project["name"]]
    return found


def rows() -> dict[str, tuple[str, str]]:
    table = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    return {package: (licence, where) for package, licence, where in ROW.findall(table) if package != "package"}


def test_every_dependency_has_its_licence_and_its_extras():
    said = {package: set(re.findall(r"always|builds|(?<=`)[\w-]+(?=`)", where)) for package, (_, where) in rows().items()}
    assert said == dependencies()


def test_licences_are_those_that_the_packages_state():
    """Where a package that is installed states its licence as an SPDX expression."""
    checked = 0
    for package, (licence, _) in rows().items():
        try:
            stated = importlib.metadata.metadata(package).get("License-Expression")
        except importlib.metadata.PackageNotFoundError:
            continue
        if stated:
            assert re.match(r"[\w.-]+", licence)[0] in re.findall(r"[\w.-]+", stated), package
            checked += 1
    assert checked > 5  # numpy, typer and pytest among them
