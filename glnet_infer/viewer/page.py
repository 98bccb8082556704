"""Writing the page: the video, the meshes as animated glTF, three.js and the player, all in one HTML file."""

from __future__ import annotations

import base64
import html
import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError
from glnet_infer.files import read_file, replace_file
from glnet_infer.images import check_image
from glnet_infer.results.animated_glb import animated_glb, first_time
from glnet_infer.results.drawing import DEFAULT_COLORS
from glnet_infer.results.gltf import TO_GLTF
from glnet_infer.results.motion import needed
from glnet_infer.results.motion_data import MotionData
from glnet_infer.results.skin import Skin

_FOLDER = Path(__file__).parent

_VIDEO_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
"""What browsers play: H.264, VP9 or AV1 in these."""

LARGEST_VIDEO = 256 << 20
"""Bytes. Text of a third more, which a browser turns into bytes again while the page opens."""


def write_page(
    path: str | PathLike[str],
    motion: MotionData,
    skin: Skin | None,
    *,
    video: str | PathLike[str] | None = None,
    video_start: float = 0.0,
    picture: NDArray[np.uint8] | None = None,
    title: str = "",
) -> None:
    """Write a page that plays a motion.

    Args:
        path: Target file; replaced if it exists.
        motion: What is played.
        skin: The body's, from the bundle.
        video: An .mp4 or .webm to play it over, of the motion's image size or that shape.
        video_start: Time of the motion at which the video begins, seconds.
        picture: A BGR image to lie behind it where there is no video.
        title: Heading of the page; the target's name where empty.

    Raises:
        InputError: There is no skin, or it is of another body; the video cannot be read, is too large or of another kind.
        OutputError: The page cannot be written.
    """
    glb = animated_glb(motion, needed(skin))
    film, kind = (b"", "") if video is None else _read_video(Path(video))
    behind = ""
    if video is not None:
        behind = '<video id="video" playsinline></video>'
    elif picture is not None:
        encoded = cv2.imencode(".jpg", check_image(picture))[1].tobytes()
        behind = f'<img alt="" src="data:image/jpeg;base64,{_base64(encoded)}">'
    data = _document(motion) | {"video_type": kind, "video_start": video_start}
    parts = {
        "title": html.escape(title or Path(path).stem),
        "behind": behind,
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "glb": _base64(glb),
        "video": _base64(film),
        "three": in_script(_text("three.min.js")),
        "player": in_script(_text("player.js")),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _text("page.html"))
    replace_file(path, page.encode())


def in_script(source: str) -> str:
    """JavaScript that may stand between script tags: nothing in it ends the script, or looks like a comment of HTML."""
    return re.sub(r"</(?=script)", r"<\\/", source, flags=re.IGNORECASE).replace("<!--", "<\\!--")


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _read_video(path: Path) -> tuple[bytes, str]:
    """The video and its MIME type."""
    kind = _VIDEO_TYPES.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(_VIDEO_TYPES)
        raise InputError(f"{path} cannot be part of a page.", why=f"browsers play {known}", fix="convert it to .mp4, H.264")
    content = read_file(
        path,
        InputError,
        what=f"{path} cannot be part of a page.",
        fix="cut it with --start and --end, make it smaller, or write .glb",
        largest=LARGEST_VIDEO,
    )
    return content, kind


def _document(motion: MotionData) -> dict[str, Any]:
    """What the player must know beside the meshes."""
    camera = motion.intrinsics
    joints = motion.joints * TO_GLTF
    middle = np.median(joints[:, 0], axis=0) if len(motion) else np.zeros(3)
    about = [f"body: {motion.body}" if motion.body else "", f"bundle: {motion.bundle}" if motion.bundle else ""]
    about += [f"backend: {motion.backend}" if motion.backend else "", f"smoothing: {motion.smoothing or 'none'}"]
    return {
        "image_size": list(motion.image_size),
        "intrinsics": {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy},
        "numbers": motion.frame_numbers.tolist(),
        "times": motion.frame_times.tolist(),
        "glb_start": first_time(motion.frame_times),
        "middle": middle.tolist(),
        "floor": float(np.percentile(joints[:, :, 1].min(axis=1), 5)) if len(motion) else 0.0,
        "about": "; ".join(text for text in about if text),
        "tracks": [_track(motion, track, number) for number, track in enumerate(motion.tracks)],
    }


def _track(motion: MotionData, track: int, number: int) -> dict[str, Any]:
    person = motion.of(track)
    blue, green, red = DEFAULT_COLORS[number % len(DEFAULT_COLORS)]
    return {
        "track": track,
        "color": f"rgb({red},{green},{blue})",
        "times": person.time.tolist(),
        "confidence": np.round(person.confidence.astype(np.float64), 3).tolist(),
        "status": person.status.tolist(),
        "spans": _spans(np.searchsorted(motion.frame_numbers, person.frame), motion.frame_times),
    }


def _spans(places: NDArray[np.intp], times: NDArray[np.float64]) -> list[list[float]]:
    """From when to when a person is there, given the places of their frames among all: each frame lasts to the next."""
    breaks = np.flatnonzero(np.diff(places) > 1)
    starts, stops = places[np.r_[0, breaks + 1]], places[np.r_[breaks, len(places) - 1]]
    ends = np.where(stops + 1 < len(times), times[np.minimum(stops + 1, len(times) - 1)] - 1e-3, times[stops] + 1)
    return [[float(times[start]), float(end)] for start, end in zip(starts, ends, strict=True)]
