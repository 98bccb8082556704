"""The result of a recording: persons' tracks over time, with the files that they are saved to and loaded from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glnet_infer.errors import InputError, OutputError
from glnet_infer.results.amass import write_amass
from glnet_infer.results.animated_glb import write_animated_glb
from glnet_infer.results.bvh import write_bvh
from glnet_infer.results.motion_data import MotionData
from glnet_infer.results.motion_files import read_motion, write_motion_json, write_motion_npz
from glnet_infer.results.resampling import SteadyTrack, steady
from glnet_infer.results.skin import Skin

SUFFIXES = (".npz", ".json", ".glb", ".bvh", ".amass.npz")
"""Suffixes of the files that :meth:`Motion.save` writes."""


@dataclass(frozen=True, eq=False, repr=False)
class Motion(MotionData):
    """Persons' tracks over time: rows of :class:`MotionData`, with files.

    Raises:
        InputError: Columns do not fit together, or hold what cannot be.
    """

    def save(self, path: str | Path, *, skin: Skin | None = None, rate: float | None = None) -> tuple[Path, ...]:
        """Write the motion; the suffix says how.

        ``.npz`` and ``.json`` hold everything. ``.glb`` is a skinned, animated mesh for each person. ``.bvh`` and
        ``.amass.npz`` hold one person at a constant rate: of several persons, each has a file ``NAME.track-3.bvh``.

        Args:
            path: Target file.
            skin: The body's, from the bundle; for ``.glb``.
            rate: Frames per second of ``.bvh`` and ``.amass.npz``; the recording's own where None.

        Returns:
            The files that were written; none where a file is of one person and there is nobody.

        Raises:
            InputError: There is no skin, it is of another body, or the rate cannot be.
            OutputError: The suffix is unknown, or a file cannot be written; then a file already there is kept.
        """
        path = Path(path)
        name = path.name.lower()
        suffix = next((each for each in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(each)), None)
        if suffix is None or name == suffix:
            raise OutputError(
                f"A motion cannot be saved as {path.name!r}.",
                why="its suffix is not known",
                fix=f"use one of {', '.join(SUFFIXES)}; glnet_infer.viewer writes .html",
            )
        if suffix == ".bvh":
            return self._save_each(path, suffix, write_bvh, rate)
        if suffix == ".amass.npz":
            return self._save_each(path, suffix, write_amass, rate)
        if suffix == ".glb":
            write_animated_glb(path, self, needed(skin))
        elif suffix == ".json":
            write_motion_json(path, self)
        else:
            write_motion_npz(path, self)
        return (path,)

    def _save_each(
        self, path: Path, suffix: str, write: Callable[[Path, SteadyTrack], None], rate: float | None
    ) -> tuple[Path, ...]:
        tracks = self.tracks
        stem, ending = path.name[: -len(suffix)], path.name[-len(suffix) :]
        paths = [path.with_name(f"{stem}.track-{track}{ending}") for track in tracks] if len(tracks) > 1 else [path]
        for track, target in zip(tracks, paths, strict=False):
            write(target, steady(self.of(track), rate))
        return tuple(paths[: len(tracks)])

    @classmethod
    def load(cls, path: str | Path) -> Motion:
        """Read what :meth:`save` wrote as ``.npz`` or ``.json``. Files of strangers are safe to load.

        Raises:
            InputError: The file is missing, damaged, too large, or not a motion.
        """
        values = read_motion(path)
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(
                f"{path} does not hold a motion.", why=error.why, fix="give an .npz or .json of Motion.save"
            ) from error


def needed(skin: Skin | None) -> Skin:
    """The skin.

    Raises:
        InputError: There is none.
    """
    if skin is None:
        raise InputError(
            "An animated mesh needs the body's skin.",
            why="a motion holds joints and rotations alone, and the bundle has no skin.npz, or it was not given",
            fix="export the bundle again without --no-skin, and pass skin=Skin.load(BUNDLE)",
        )
    return skin
