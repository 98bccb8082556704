"""Places where SMPL body files are looked for. The export reads them."""

import os
from collections.abc import Callable
from pathlib import Path

from glnet_infer.files import is_file

SMPL_FILE_NAMES = (
    "SMPL_NEUTRAL.npz",
    "SMPL_NEUTRAL.pkl",
    "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl",
    "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
)
"""Names under which the neutral SMPL body is handed out."""

BODY_DIRECTORY_VARIABLE = "GLNET_BODY_DIR"


def body_search_path() -> list[Path]:
    """Directories searched for SMPL files, in order. A place that this process has not, such as a home, is left out."""
    variable = os.environ.get(BODY_DIRECTORY_VARIABLE)
    return [
        *([Path(variable)] if variable else []),
        *(here for find in (Path.cwd, lambda: Path.cwd() / "smpl") if (here := _place(find))),
        *(home / ".glnet" / "bodies" for home in [_place(Path.home)] if home),
    ]


def installed_body_files() -> list[Path]:
    """SMPL files found on the search path."""
    return [path for folder in body_search_path() for name in SMPL_FILE_NAMES if is_file(path := folder / name)]


def _place(find: Callable[[], Path]) -> Path | None:
    try:
        return find()
    except (OSError, RuntimeError):  # the working directory was removed; there is no HOME, and no entry in passwd
        return None
