"""Finding and loading SMPL-format body files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet.body.pickles import read_body_pickle
from glnet_infer.bodies import BODY_DIRECTORY_VARIABLE, SMPL_FILE_NAMES, body_search_path, installed_body_files
from glnet_infer.errors import BodyError, first_line
from glnet_infer.skeleton import BODY_JOINTS, PARENTS, SMPL_LEAF_VERTICES

SMPL_VERTICES = 6890
SHAPE_COMPONENTS = 10


@dataclass(frozen=True)
class BodyData:
    """An SMPL-format body, in metres, y up, facing +z, in T-pose.

    Attributes:
        name: ``demo``, ``smpl``, or the file's stem.
        v_template: Mean shape, V x 3.
        shapedirs: Shape blend shapes for ten betas, V x 3 x 10.
        posedirs: Pose blend shapes, V x 3 x 207, or None where they are all zero.
        joint_regressor: 24 x V.
        weights: Skinning weights, V x 24.
        faces: Triangles, F x 3, counter-clockwise seen from outside.
        leaf_vertices: Vertices at head top, left and right middle finger, left and right big toe.
    """

    name: str
    v_template: NDArray[np.float64]
    shapedirs: NDArray[np.float64]
    posedirs: NDArray[np.float64] | None
    joint_regressor: NDArray[np.float64]
    weights: NDArray[np.float64]
    faces: NDArray[np.int32]
    leaf_vertices: NDArray[np.int64]


def demo_directory() -> Path:
    """Directory of the demo body: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "demo"
    return inside if inside.is_dir() else package.parent / "demo"


def find_body(name: str) -> Path:
    """The file of a body.

    Args:
        name: ``demo`` for the body that ships with this library, ``smpl`` to search for the neutral SMPL file, or a path.

    Raises:
        BodyError: There is no such file. The message lists accepted names, searched directories and where to register.
    """
    if name == "demo":
        return demo_directory() / "body.npz"
    register = (
        "register at https://smpl.is.tue.mpg.de, download SMPL for Python and give its neutral model with --body FILE, "
        f"or put it in a directory named by ${BODY_DIRECTORY_VARIABLE} and use --body smpl; --body demo needs no licence"
    )
    if name == "smpl":
        if found := installed_body_files():
            return found[0]
        raise BodyError(
            "The neutral SMPL body was not found.",
            why=f"searched {', '.join(str(folder) for folder in body_search_path())} for {', '.join(SMPL_FILE_NAMES)}",
            fix=register,
        )
    path = Path(name)
    if path.is_dir():
        raise BodyError(f"{path} is a directory.", fix=f"give the file in it: one of {', '.join(SMPL_FILE_NAMES)}")
    if not path.is_file():
        raise BodyError(f"There is no body file {path}.", fix=f"check the path; to get SMPL, {register}")
    return path


def load_body(path: str | Path) -> BodyData:
    """Load an SMPL-format body from the original ``.pkl`` or an ``.npz`` with the same keys.

    Raises:
        BodyError: The file is missing, unsafe, damaged, lacks a key, or has shapes that do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise BodyError(f"There is no body file {path}.", fix="give an SMPL .pkl or .npz")
    if path.suffix == ".pkl":
        content = read_body_pickle(path)
    elif path.suffix == ".npz":
        content = _read_npz(path)
    else:
        raise BodyError(f"{path} is not a body file.", why=f"its suffix is {path.suffix!r}", fix="give a .pkl or .npz")
    try:
        return _checked(path, content)
    except (TypeError, ValueError, IndexError) as error:  # arrays that are not numbers, or have too few dimensions
        raise BodyError(
            f"{path} is not an SMPL-format body.", why=first_line(error), fix="use one of SMPL's models"
        ) from error


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except Exception as error:  # zip, format and pickle errors alike
        raise BodyError(
            f"The body file {path} was not read.", why=first_line(error), fix="use an .npz of plain numbers, undamaged"
        ) from error


def _checked(path: Path, content: dict[str, Any]) -> BodyData:
    """Body data from raw arrays, every shape checked before use."""
    missing = [key for key in ("v_template", "shapedirs", "J_regressor", "weights", "f") if key not in content]
    if missing:
        raise BodyError(
            f"{path} is not an SMPL-format body.",
            why=f"it lacks {', '.join(missing)}",
            fix="SMPL-H, SMPL-X and MANO files have other joints; use SMPL's own",
        )
    template = np.asarray(content["v_template"], dtype=np.float64)
    vertices = len(template)
    shapedirs = np.asarray(content["shapedirs"], dtype=np.float64)[..., :SHAPE_COMPONENTS]
    regressor = np.asarray(content["J_regressor"], dtype=np.float64)
    weights = np.asarray(content["weights"], dtype=np.float64)
    faces = np.asarray(content["f"]).astype(np.int64)
    leaves: Any = content.get("leaf_vertices", SMPL_LEAF_VERTICES if vertices == SMPL_VERTICES else None)
    expected = {
        "v_template": (template.shape, (vertices, 3)),
        "shapedirs": (shapedirs.shape, (vertices, 3, SHAPE_COMPONENTS)),
        "J_regressor": (regressor.shape, (BODY_JOINTS, vertices)),
        "weights": (weights.shape, (vertices, BODY_JOINTS)),
        "leaf_vertices": (np.shape(leaves), (len(PARENTS) - BODY_JOINTS,)),
    }
    posedirs = None
    if "posedirs" in content and np.any(content["posedirs"]):
        posedirs = np.asarray(content["posedirs"], dtype=np.float64)
        expected["posedirs"] = (posedirs.shape, (vertices, 3, 9 * (BODY_JOINTS - 1)))
    wrong = [f"{key} is {found}, not {wanted}" for key, (found, wanted) in expected.items() if found != wanted]
    if faces.ndim != 2 or faces.shape[1:] != (3,) or faces.min(initial=0) < 0 or faces.max(initial=0) >= vertices:
        wrong.append("f does not hold triangles of the template's vertices")
    if "kintree_table" in content:
        parents = np.asarray(content["kintree_table"])[0].astype(np.int64)[1:]
        if parents.tolist() != list(PARENTS[1:BODY_JOINTS]):
            wrong.append("kintree_table is not SMPL's tree")
    if not wrong:
        wrong = _implausible(template, shapedirs, regressor, weights, np.asarray(leaves, dtype=np.int64))
    if wrong:
        raise BodyError(f"{path} is not an SMPL-format body.", why="; ".join(wrong), fix="use one of SMPL's models")
    return BodyData(
        name=_body_name(path, vertices),
        v_template=template,
        shapedirs=shapedirs,
        posedirs=posedirs,
        joint_regressor=regressor,
        weights=weights,
        faces=faces.astype(np.int32),
        leaf_vertices=np.asarray(leaves, dtype=np.int64),
    )


def _implausible(
    template: NDArray[np.float64],
    shapedirs: NDArray[np.float64],
    regressor: NDArray[np.float64],
    weights: NDArray[np.float64],
    leaves: NDArray[np.int64],
) -> list[str]:
    """Faults of values whose shapes fit."""
    wrong = []
    for name, values in (
        ("v_template", template),
        ("shapedirs", shapedirs),
        ("J_regressor", regressor),
        ("weights", weights),
    ):
        if not np.isfinite(values).all():
            wrong.append(f"{name} is not finite")
    # SMPL's own weights are stored rounded; their rows sum to one within a millionth.
    for name, sums in (("weights", weights.sum(1)), ("J_regressor", regressor.sum(1))):
        if not np.allclose(sums, 1, atol=1e-3):
            wrong.append(f"rows of {name} do not sum to 1")
    if leaves.min() < 0 or leaves.max() >= len(template):
        wrong.append("leaf_vertices are not vertices of the template")
    return wrong


def _body_name(path: Path, vertices: int) -> str:
    if path.resolve() == (demo_directory() / "body.npz").resolve():
        return "demo"
    return "smpl" if vertices == SMPL_VERTICES else path.stem
