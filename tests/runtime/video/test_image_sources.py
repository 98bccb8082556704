"""Numbered images as frames."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from glnet_infer import InputError
from glnet_infer.video.sources import open_source


@pytest.fixture
def write(tmp_path, clips):
    def write(names):
        for name in names:
            number = int("".join(filter(str.isdigit, name)))
            cv2.imwrite(str(tmp_path / name), clips.image(number))

    return write


def taken(spec, clips, **window):
    with open_source(spec, **window) as source:
        return [(frame.index, round(frame.time, 6), clips.number(frame.image)) for frame in source]


def test_a_folder_in_the_order_of_its_numbers(tmp_path, clips, write):
    write([f"img{number}.png" for number in (1, 2, 3, 10, 11)])
    (tmp_path / "notes.txt").write_text("no image")
    # Numbers that are missing leave a gap: 25 frames a second, the first at zero.
    expected = [(0, 0.0, 1), (1, 0.04, 2), (2, 0.08, 3), (9, 0.36, 10), (10, 0.4, 11)]
    assert taken(tmp_path, clips, fps=25) == expected
    assert taken(tmp_path, clips, fps=25, start=0.08, end=0.4) == expected[2:4]


def test_a_folder_of_other_names(tmp_path, clips, write):
    write(["b_20.png", "a_3.png", "a_10.jpg"])
    assert [frame[2] for frame in taken(tmp_path, clips)] == [3, 10, 20]
    assert [frame[1] for frame in taken(tmp_path, clips)] == [0.0, round(1 / 30, 6), round(2 / 30, 6)]


def test_a_pattern_takes_what_fits(tmp_path, clips, write):
    write(["frame_0001.png", "frame_0002.png", "frame_0004.png", "frame_3.png", "other_0005.png", "frame_0006.jpg"])
    assert taken(tmp_path / "frame_%04d.png", clips, fps=10) == [(0, 0.0, 1), (1, 0.1, 2), (3, 0.3, 4)]
    assert [frame[2] for frame in taken(tmp_path / "frame_%d.png", clips)] == [3]


def test_an_assumed_rate_is_said(tmp_path, write):
    write(["1.png", "2.png"])
    with open_source(tmp_path) as source:
        assert source.facts.rate == 30 and "30 per second" in source.facts.lost[0]
        assert source.expected == 2
    with open_source(tmp_path, fps=29.97) as source:
        assert source.facts.time_base == Fraction(100, 2997) and not source.facts.lost


def test_damaged_images_are_left_out_and_counted(tmp_path, clips, write):
    write([f"{number}.png" for number in range(1, 6)])
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "3.png").write_bytes(b"not a picture")
    with open_source(tmp_path) as source:
        assert [frame.index for frame in source] == [1, 3, 4]
        assert source.skipped == 2


def test_what_is_to_be_said_of_pictures_is_noted_once_with_the_first_ones_name(tmp_path, clips, write):
    write([f"{number}.png" for number in range(1, 8)])
    for number in (3, 5):
        alpha = np.full((48, 64, 1), 255, np.uint8)
        alpha[:number] = 0
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.dstack([clips.image(number), alpha]))
    for number, bits in ((4, 10), (6, 12)):
        deep = clips.image(number).astype(np.uint16) << (bits - 8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), deep)
    with open_source(tmp_path) as source:
        assert source.notes == ()
        assert len(list(source)) == 7
    assert source.notes == (
        f"{tmp_path / '3.png'}: it is transparent in part, and was laid over grey",
        f"{tmp_path / '4.png'}: its 16 bits hold values of 10 only, and were made brighter",
    )
    with open_source(tmp_path, fps=10, start=0.5) as source:  # 6 and 7
        assert len(list(source)) == 2
    assert [note.partition(":")[0] for note in source.notes] == [str(tmp_path / "6.png")]


def test_an_image_of_another_size_ends_the_source(tmp_path, write):
    write(["1.png", "2.png", "4.png"])
    cv2.imwrite(str(tmp_path / "3.png"), np.zeros((10, 20, 3), np.uint8))
    with open_source(tmp_path) as source:
        assert [frame.index for frame in source] == [0, 1]
        assert "20 x 10" in source.ended_early


def test_nothing_there(tmp_path):
    for spec in (tmp_path, tmp_path / "frame_%04d.png", tmp_path / "missing" / "frame_%04d.png"):
        with pytest.raises(InputError) as caught:
            open_source(spec)
        assert caught.value.fix
    (tmp_path / "1.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="None of the 1 images"):
        open_source(tmp_path)
