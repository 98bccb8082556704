"""Persons that the ranges of int8 are taken from: a user's photographs, cut as the runtime cuts them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glnet_infer.camera import Intrinsics
from glnet_infer.commands.photograph_inputs import find_photographs
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.detection import DEFAULT_DETECTOR, find_persons, open_detector
from glnet_infer.errors import ExportError, InputError
from glnet_infer.image_files import read_image

MOST, FEWEST = 256, 16
"""Persons that are taken, and that are needed: ranges of fewer are chance."""


def photographed(folder: Path, crop: CropSpec) -> tuple[tuple[NDArray[np.uint8], NDArray[np.float32]], list[str]]:
    """Crops of the persons in a folder's photographs, RGB, with their cameras; and what could not be read.

    Photographs are taken evenly from the whole folder, whose neighbours are often of one scene.

    Raises:
        InputError: The folder has no photographs.
        ExportError: There are too few persons on them.
    """
    detector = open_detector(DEFAULT_DETECTOR)
    files = find_photographs([folder]).files
    crops: list[NDArray[np.uint8]] = []
    cameras: list[NDArray[np.float32]] = []
    unread: list[str] = []
    for index in np.random.default_rng(0).permutation(len(files)):
        try:
            image = read_image(files[index])
        except InputError as error:
            unread.append(error.what)
            continue
        boxes = find_persons(detector, image).boxes
        if not len(boxes):
            continue
        squares = CropSquares.around(boxes, crop)
        crops.append(cut_crops(image, squares))
        cameras.append(squares.cameras(Intrinsics.guess(image.shape[1], image.shape[0])))
        if sum(map(len, crops)) >= MOST:
            break
    found = sum(map(len, crops))
    if found < FEWEST:
        raise ExportError(
            f"The photographs in {folder} show {found} persons.",
            why="; ".join((f"ranges of values need at least {FEWEST}", *unread[:3])),
            fix="give more photographs, or leave --calibration out: then persons are rendered",
        )
    return (np.concatenate(crops)[:MOST], np.concatenate(cameras)[:MOST]), unread
