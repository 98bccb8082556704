"""What is typed, and the scenes that are made of it."""

import numpy as np
import pytest

from glnet_bench.measure import scene as scenes
from glnet_bench.measure.scene import Scene
from glnet_bench.settings import Frame, parse_counts, parse_frames
from glnet_infer import InputError
from glnet_infer.images import check_boxes, check_image


@pytest.mark.parametrize(
    "text, counts",
    [("1", (1,)), ("1,2,4", (1, 2, 4)), ("1..4", (1, 2, 3, 4)), ("8, 2..3,8", (2, 3, 8)), ("16..16", (16,))],
)
def test_counts(text, counts):
    assert parse_counts(text, "--batch") == counts


@pytest.mark.parametrize("text", ["", "0", "a", "4..2", "1..", "-1", "1.5", "1,,2", "99999"])
def test_counts_that_are_none(text):
    with pytest.raises(InputError, match="--batch"):
        parse_counts(text, "--batch")


def test_frames():
    assert parse_frames("1080p,4K, 800x600,4k") == (
        Frame("1080p", 1920, 1080),
        Frame("4k", 3840, 2160),
        Frame("800x600", 800, 600),
    )


@pytest.mark.parametrize("text", ["", "8k", "0x10", "800x", "99999x10"])
def test_frames_that_are_none(text):
    with pytest.raises(InputError, match="no frame"):
        parse_frames(text)


@pytest.mark.parametrize("persons", [1, 2, 16])
def test_a_scene_is_what_a_recoverer_takes(persons):
    frame = Frame("small", 320, 180)
    scene = Scene.make(frame, persons)
    assert check_image(scene.image).shape == (180, 320, 3)
    boxes = check_boxes(scene.boxes, 320, 180)
    assert len(boxes) == persons
    assert (boxes >= 0).all() and (boxes[:, 2] <= 320).all() and (boxes[:, 3] <= 180).all()
    decoded = scenes.decode(scene.encoded)
    assert decoded.shape == scene.image.shape
    assert np.abs(decoded.astype(int) - scene.image).mean() < 10  # grey levels; JPEG halves the resolution of colours
    np.testing.assert_array_equal(Scene.make(frame, persons).image, scene.image)


def test_a_batch_is_what_the_graph_takes():
    crops, cameras = scenes.batch(6, 64)
    assert crops.shape == (6, 64, 64, 3) and crops.dtype == np.uint8 and crops.flags["C_CONTIGUOUS"]
    assert cameras.shape == (6, 4) and cameras.dtype == np.float32
    assert crops.std() > 10
