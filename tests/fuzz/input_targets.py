"""Readers of what is recovered from: images, videos, boxes, cameras, detectors."""

from __future__ import annotations

import io
import itertools
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import Target
from making import IMAGE, file_target
from mutations import (
    Rng,
    change_bytes,
    change_document,
    change_json,
    pick,
)


def boxes_seeds() -> list[bytes]:
    return [b'{"case.png": [[1, 2, 30.5, 40], [5, 5, 60, 47]]}', b'\xef\xbb\xbf{"folder/case.png": [[0, 0, 10, 10]]}']


@cache
def open_recoverer() -> Any:
    from glnet_infer import MeshRecoverer

    return MeshRecoverer(os.environ["GLNET_SMALL_BUNDLE"], "onnxruntime-cpu", threads=1)


def read_boxes(path: Path) -> None:
    from glnet_infer.commands.photographs import Job

    image = path.with_name("case.png")
    if not image.exists():
        cv2.imwrite(str(image), IMAGE)
    job = Job.parse(
        images=[image],
        output=path.parent,
        boxes=[],
        boxes_file=path,
        detector=None,
        threshold=None,
        most=None,
        intrinsics=None,
        formats=[],
    )
    open_recoverer().prepare(IMAGE, job.boxes[image], None)


def valid_arguments() -> list[dict[str, Any]]:
    return [{"boxes": [[1.0, 2, 30, 40], [5, 5, 60, 47]], "camera": [[500.0, 0, 32], [0, 500, 24], [0, 0, 1]]}]


def make_arguments(rng: Rng) -> dict[str, Any]:
    """Boxes and a camera as callers have them, then changed."""
    made: Any = change_document(rng, valid_arguments()[0])
    made = made if isinstance(made, dict) else {"boxes": made}
    for key in ("boxes", "camera"):
        if key in made and rng.random() < 0.5:
            kind = pick(rng, ("f4", "f8", "f2", "i4", "u1", "?", "c8", "U9", "O", "M8[s]", "m8[s]", "S4"))
            with suppress(TypeError, ValueError, OverflowError, Warning):
                made[key] = np.asarray(made[key]).astype(kind)
    return made


def use_arguments(made: dict[str, Any], folder: Path) -> None:
    recoverer = open_recoverer()
    recoverer.recover([recoverer.prepare(IMAGE, made.get("boxes"), made.get("camera"))])


def image_seeds() -> list[bytes]:
    small = IMAGE[:20, :24]
    kinds = {
        ".jpg": small, ".png": small, ".tif": small, ".webp": small, ".bmp": small, ".ppm": small, ".pgm": small[..., 0],
        ".jp2": IMAGE, ".gif": small, ".avif": IMAGE,
    }  # fmt: skip
    found = []
    for suffix, image in kinds.items():
        try:
            written, encoded = cv2.imencode(suffix, image)
        except cv2.error:  # not in every build
            continue
        if written:
            found.append(encoded.tobytes())
    found += [cv2.imencode(".png", np.dstack([small, small[..., :1]]))[1].tobytes()]
    found += [cv2.imencode(".png", small.astype(np.uint16) * 16)[1].tobytes()]
    found += [cv2.imencode(".tif", small.astype(np.uint16) * 16)[1].tobytes()]
    found += [cv2.imencodemulti(".tiff", [small, small])[1].tobytes()]
    return [*found, cv2.imencode(".jpg", cv2.resize(IMAGE, (640, 480)))[1].tobytes()]


def read_image(path: Path) -> None:
    from glnet_infer.image_files import read_picture

    read_picture(path, listening=True)  # as command lines do, which print nothing of libraries


def detector_seeds() -> list[bytes]:
    from detector_graphs import FLOAT, constant_graph

    boxes, logits = np.full((1, 30, 4), 0.3, np.float32), np.zeros((1, 30, 91), np.float32)
    labels, scores = np.zeros((1, 30), np.int64), np.full((1, 30), 0.9, np.float32)
    image = (FLOAT, [1, 3, 64, 64])
    graphs = (
        constant_graph({"input": image}, {"dets": boxes, "labels": logits}),
        constant_graph({"images": image}, {"output": np.full((1, 84, 85), 0.4, np.float32)}),
        constant_graph({"pixel_values": image}, {"logits": logits[..., :80], "pred_boxes": boxes}),
        constant_graph(
            {"images": image, "orig_target_sizes": (7, ["N", 2])}, {"labels": labels, "boxes": boxes * 60, "scores": scores}
        ),
    )
    return [graph.SerializeToString() for graph in graphs]


def read_detector(path: Path) -> None:
    from glnet_infer.detection import find_persons, open_detector

    find_persons(open_detector(path, threads=1), IMAGE)


def video_seeds() -> list[bytes]:
    import av

    found = []
    for container, codec in (("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libvpx-vp9"), ("avi", "mjpeg")):
        output = io.BytesIO()
        with av.open(output, "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for shift in range(6):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(IMAGE, shift, 0), "bgr24")))
            file.mux(stream.encode())
        found.append(output.getvalue())
    return found


def read_video(path: Path) -> None:
    from glnet_infer.video.sources import open_source

    with open_source(path) as source:
        for frame in itertools.islice(source, 100):
            frame.image.sum()


TARGETS = [
    file_target("boxes", boxes_seeds, change_json, ".json", read_boxes),
    file_target("image", image_seeds, change_bytes, ".img", read_image),
    file_target("detector", detector_seeds, change_bytes, ".onnx", read_detector),
    file_target("video", video_seeds, change_bytes, ".mp4", read_video),
    Target("arguments", valid_arguments, make_arguments, use_arguments),
]
