"""Places where SMPL body files are looked for. The export reads them."""

import os
from pathlib import Path

SMPL_FILE_NAMES = (
    "SMPL_NEUTRAL.npz",
    "SMPL_NEUTRAL.pkl",
    "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl",
    "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
)
"""Names under which the neutral SMPL body is handed out."""

BODY_DIRECTORY_VARIABLE = "GLNET_BODY_DIR"


def body_search_path() -> list[Path]:
    """Directories searched for SMPL files, in order."""
    variable = os.environ.get(BODY_DIRECTORY_VARIABLE)
    return [*([Path(variable)] if variable else []), Path.cwd(), Path.cwd() / "smpl", Path.home() / ".glnet" / "bodies"]


def installed_body_files() -> list[Path]:
    """SMPL files found on the search path."""
    return [path for folder in body_search_path() for name in SMPL_FILE_NAMES if (path := folder / name).is_file()]
