"""Finding and loading SMPL-format body files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from glnet.body.data import BodyData, check_model, checked
from glnet.body.likeness import SMPL_VERTICES, gender_in_name
from glnet.body.pickles import read_body_pickle
from glnet_infer.archives import ArraySpec, read_archive
from glnet_infer.bodies import BODY_DIRECTORY_VARIABLE, SMPL_FILE_NAMES, body_search_path, installed_body_files
from glnet_infer.errors import BodyError, first_line

GENDERED_NAMES = {
    "smpl-male": (
        "SMPL_MALE.npz",
        "SMPL_MALE.pkl",
        "basicmodel_m_lbs_10_207_0_v1.1.0.pkl",
        "basicmodel_m_lbs_10_207_0_v1.0.0.pkl",
    ),
    "smpl-female": (
        "SMPL_FEMALE.npz",
        "SMPL_FEMALE.pkl",
        "basicmodel_f_lbs_10_207_0_v1.1.0.pkl",
        "basicModel_f_lbs_10_207_0_v1.0.0.pkl",
    ),
}
"""Names under which SMPL's other two bodies are handed out."""

_NUMBERS = ArraySpec(None, "number", optional=True)
_SMALL = dict.fromkeys(("v_template", "J_regressor", "weights", "f", "kintree_table", "leaf_vertices"), _NUMBERS)
_LARGE = dict.fromkeys(("shapedirs", "posedirs"), _NUMBERS)
_MOST_SMALL, _MOST_LARGE = 1 << 26, 1 << 28  # bytes; SMPL's own have 3 and 36 million


def demo_directory() -> Path:
    """Directory of the demo body: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "demo"
    return inside if inside.is_dir() else package.parent / "demo"


def find_body(name: str) -> Path:
    """The file of a body.

    Args:
        name: ``demo`` for the body that ships with this library, a path, or a name to search SMPL's file by: ``smpl`` for
            the neutral body, ``smpl-male``, ``smpl-female``.

    Raises:
        BodyError: There is no such file. The message lists accepted names, searched directories and where to register.
    """
    if name == "demo":
        return demo_directory() / "body.npz"
    register = (
        "get SMPL for Python from https://smpl.is.tue.mpg.de and give its neutral model: --body FILE, or put it into "
        f"${BODY_DIRECTORY_VARIABLE}; --body demo needs no licence"
    )
    if name == "smpl":
        if found := installed_body_files():
            return found[0]
        raise BodyError(
            "The neutral SMPL body was not found.",
            why=f"searched {', '.join(str(folder) for folder in body_search_path())} for {', '.join(SMPL_FILE_NAMES)}",
            fix=register,
        )
    if name in GENDERED_NAMES:
        for folder in body_search_path():
            for each in GENDERED_NAMES[name]:
                if os.path.isfile(folder / each):  # noqa: PTH113 - Path.is_file may raise
                    return folder / each
        raise BodyError(
            f"SMPL's body {name!r} was not found.", why=f"searched for {', '.join(GENDERED_NAMES[name])}", fix=register
        )
    path = Path(name)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir may raise
        raise BodyError(f"{path} is a directory.", fix=f"give the file in it: one of {', '.join(SMPL_FILE_NAMES)}")
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file may raise
        raise BodyError(f"There is no body file {path}.", fix=f"check the path; to get SMPL, {register}")
    return path


def load_body(path: str | Path) -> BodyData:
    """Load an SMPL-format body from the original ``.pkl`` or an ``.npz`` with the same keys.

    Raises:
        BodyError: The file is missing, unsafe, damaged, lacks a key, or has shapes that do not fit together.
    """
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file may raise
        raise BodyError(f"There is no body file {path}.", fix="give an SMPL .pkl or .npz")
    if path.suffix not in (".pkl", ".npz"):
        raise BodyError(f"{path} is not a body file.", why=f"its suffix is {path.suffix!r}", fix="give a .pkl or .npz")
    content = read_body_pickle(path) if path.suffix == ".pkl" else _read_npz(path)
    try:
        return checked(path, content, lambda vertices: _name_of(path, vertices))
    except (TypeError, ValueError, IndexError, OverflowError, MemoryError) as error:  # no numbers, too few dimensions
        raise BodyError(
            f"{path} is not an SMPL-format body.", why=first_line(error), fix="use one of SMPL's models"
        ) from error


def _read_npz(path: Path) -> dict[str, Any]:
    """Arrays of an ``.npz`` by the names that are needed."""
    what = f"The body file {path} was not read."
    fix = (
        "use an undamaged .npz of plain numbers; to convert objects, load the file with numpy where you trust it, and save "
        "numpy.asarray(value), or value.toarray() of a sparse matrix"
    )
    found = read_archive(path, _SMALL, BodyError, what=what, fix=fix, limit=_MOST_SMALL)
    check_model(path, found)  # before what is large
    return found | read_archive(path, _LARGE, BodyError, what=what, fix=fix, limit=_MOST_LARGE)


def _name_of(path: Path, vertices: int) -> str:
    """The body's name in manifests."""
    if path.resolve() == (demo_directory() / "body.npz").resolve():
        return "demo"
    if vertices != SMPL_VERTICES:
        return path.stem
    gender = gender_in_name(path)
    return f"smpl-{gender}" if gender else "smpl"
