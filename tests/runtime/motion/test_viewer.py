"""The page: complete, safe, offline; and in a browser, the mesh lies on the person."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from glnet_infer import InputError, OutputError
from glnet_infer.results.drawing import draw_meshes
from glnet_infer.viewer import page, write_page

CLOSE = 3
"""Pixels between the mesh on the page and the person in the picture: the issue's bound."""


class Parts(HTMLParser):
    """A page's elements, and what is in those with a name."""

    def __init__(self):
        super().__init__()
        self.tags, self.content, self._inside = [], {}, []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = [dict(attrs).get("id", tag)]

    def handle_data(self, data):
        if self._inside:
            self.content[self._inside[0]] = self.content.get(self._inside[0], "") + data

    def handle_endtag(self, tag):
        self._inside = []


def parts(path) -> Parts:
    parser = Parts()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_a_page_holds_everything_and_asks_for_nothing(motion, skin, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"a film")
    path = tmp_path / "clip.html"
    write_page(path, motion, skin, video=tmp_path / "clip.mp4", video_start=0.25)
    found = parts(path)
    assert base64.b64decode(found.content["video-bytes"]) == b"a film"
    assert base64.b64decode(found.content["glb"])[:4] == b"glTF"
    assert not any({"src", "href"} & set(attrs) for _, attrs in found.tags)
    (policy,) = (attrs["content"] for _, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "http" not in policy
    text = path.read_text(encoding="utf-8")
    assert "Permission is hereby granted" in text and "{{" not in text.replace(page._text("three.min.js"), "")
    data = json.loads(found.content["data"])
    assert (data["video_type"], data["video_start"], data["image_size"]) == ("video/mp4", 0.25, [640, 480])
    assert data["intrinsics"]["fx"] == motion.intrinsics.fx and data["times"] == motion.frame_times.tolist()


def test_tracks_are_listed_with_confidence_and_when_they_are_there(motion, skin, tmp_path):
    write_page(tmp_path / "clip.html", motion.filled(0.1), skin)
    first, second = json.loads(parts(tmp_path / "clip.html").content["data"])["tracks"]
    assert (first["track"], second["track"]) == (1, 3) and first["color"] != second["color"]
    assert first["confidence"] == pytest.approx(motion.of(1).confidence, abs=1e-3)
    assert first["status"] == motion.of(1).status.tolist()
    assert first["spans"] == [pytest.approx([0, 39 / 25 + 1])]
    assert second["spans"] == [pytest.approx([5 / 25, 20 / 25 - 1e-3]), pytest.approx([26 / 25, 39 / 25 + 1])]


def test_names_of_strangers_are_text(motion, skin, tmp_path):
    import dataclasses

    nasty = "</script><script>alert(1)</script><!-- <b>&amp;"
    write_page(tmp_path / "clip.html", dataclasses.replace(motion.at(7), bundle=nasty, smoothing=nasty), skin, title=nasty)
    found = parts(tmp_path / "clip.html")
    assert sum(tag == "script" for tag, _ in found.tags) == 5 and not any(tag == "b" for tag, _ in found.tags)
    assert found.content["title"] == nasty and nasty in json.loads(found.content["data"])["about"]


def test_scripts_cannot_end_themselves():
    source = 'a = "</SCRIPT>"; b = "<!-- </script"; c = "</div>"'
    safe = page.in_script(source)
    assert not re.search("</script|<!--", safe, re.IGNORECASE) and "</div>" in safe


def test_what_browsers_do_not_play_is_refused(motion, skin, tmp_path, monkeypatch):
    (tmp_path / "clip.avi").write_bytes(b"a film")
    (tmp_path / "clip.mp4").write_bytes(b"a film")
    for video, said in (("clip.avi", "browsers play"), ("none.mp4", "No such file")):
        with pytest.raises(InputError, match=said):
            write_page(tmp_path / "clip.html", motion, skin, video=tmp_path / video)
    monkeypatch.setattr(page, "LARGEST_VIDEO", 5)
    with pytest.raises(InputError, match="at most"):
        write_page(tmp_path / "clip.html", motion, skin, video=tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="--no-skin"):
        write_page(tmp_path / "clip.html", motion, None)
    with pytest.raises(OutputError, match="no directory"):
        write_page(tmp_path / "gone" / "clip.html", motion, skin)
    assert not (tmp_path / "clip.html").exists()


# In a browser


@pytest.fixture(scope="module")
def browser():
    """The path of Chromium: ``apt-get install chromium``."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium")
    return found


def screenshot(browser, path, place, *, size=(640, 480)):
    """The page as the browser shows it after # and a place, BGR."""
    picture = path.with_suffix(".png")
    done = subprocess.run(
        [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            "--hide-scrollbars",
            f"--user-data-dir={path.parent / 'profile'}",
            "--virtual-time-budget=8000",
            f"--window-size={size[0]},{size[1] + 100}",
            f"--screenshot={picture}",
            f"{path.as_uri()}#{place}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    image = cv2.imread(str(picture))
    assert image is not None, done.stderr
    return image[: size[1], : size[0]]


def farthest(first, second):
    """Pixels from a place of one mask to the nearest of the other, whichever way is longer."""
    assert first.any() and second.any()
    ways = []
    for one, other in ((first, second), (second, first)):
        away = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        ways.append(away[one].max())
    return max(ways)


def silhouettes(motion, truth, faces, frame):
    """The persons of a frame in white on black, by the overlay's own drawing."""
    width, height = motion.image_size
    black = np.zeros((height, width, 3), np.uint8)
    rows = motion.frame == frame
    white = np.full((rows.sum(), 3), 255.0)
    drawn = draw_meshes(black, truth[rows], faces, motion.intrinsics.matrix, colors=white, opacity=1.0)
    return np.where(drawn.max(axis=2, keepdims=True) > 60, 255, 0).astype(np.uint8).repeat(3, axis=2)


@pytest.mark.browser
@pytest.mark.parametrize("frame", [7, 22, 39])
def test_the_mesh_lies_on_the_person(motion, truth, skin, browser, tmp_path, frame):
    """Frame 22 is without the second person, 39 is the last."""
    path = tmp_path / "clip.html"
    write_page(path, motion, skin, picture=np.zeros((480, 640, 3), np.uint8))
    shown = screenshot(browser, path, f"bare&opacity=1&t={frame / 25 + 1e-3}")
    person = silhouettes(motion, truth, skin.faces, frame)[..., 0] > 0
    assert farthest(shown.max(axis=2) > 40, person) <= CLOSE


@pytest.mark.browser
def test_video_and_mesh_show_the_same_frame(motion, truth, skin, browser, tmp_path):
    """The video's frames are the silhouettes: what the browser decodes at a time is where it draws the mesh."""
    film = tmp_path / "clip.webm"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"VP80"), 25, motion.image_size)
    if not writer.isOpened():
        pytest.skip("OpenCV writes no VP8 here")
    for frame in motion.frame_numbers.tolist():
        writer.write(silhouettes(motion, truth, skin.faces, frame))
    writer.release()
    write_page(tmp_path / "clip.html", motion, skin, video=film)
    place = f"bare&t={30 / 25 + 1e-3}"
    person = screenshot(browser, tmp_path / "clip.html", f"{place}&opacity=0").max(axis=2) > 128
    assert farthest(person, silhouettes(motion, truth, skin.faces, 30)[..., 0] > 0) <= CLOSE
    shown = screenshot(browser, tmp_path / "clip.html", f"{place}&opacity=1").astype(int)
    colored = np.ptp(shown, axis=2) > 30  # the film is black and white
    assert farthest(colored, person) <= CLOSE


@pytest.mark.browser
def test_the_orbit_view_shows_persons_over_a_grid(motion, skin, browser, tmp_path):
    path = tmp_path / "clip.html"
    write_page(path, motion, skin, picture=np.full((480, 640, 3), 255, np.uint8))
    shown = screenshot(browser, path, f"bare&orbit&t={7 / 25}").astype(int)
    assert (shown.max(axis=2) < 200).mean() > 0.5  # the picture is hidden
    assert 0.01 < (np.ptp(shown, axis=2) > 30).mean() < 0.5
    grey = (np.ptp(shown, axis=2) < 25) & (shown.max(axis=2) > 50)
    assert grey.mean() > 0.005  # the grid
