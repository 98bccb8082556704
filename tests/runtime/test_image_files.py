"""Image files as cameras, tools and attackers write them: what is read, what is said of it, and what is refused."""

import io
import os
import queue
import struct
import subprocess
import sys
import threading
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from glnet_infer import InputError
from glnet_infer.image_files import GROUND, begins_like_an_image, decode_picture, is_image_name, read_image, read_picture

WIDTH, HEIGHT = 48, 32


def gradient(width=WIDTH, height=HEIGHT):
    """Smooth colours, no two corners alike: what lossy kinds change little, and what shows every turn."""
    x, y = np.meshgrid(np.linspace(20, 220, width), np.linspace(30, 200, height))
    return np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)


def saved(path, image, kind=None, **options):
    """Saved by Pillow, which takes RGB; the given image is BGR, with or without alpha."""
    order = [2, 1, 0, 3][: image.shape[2]] if image.ndim == 3 else slice(None)
    Image.fromarray(np.ascontiguousarray(image[..., order]) if image.ndim == 3 else image).save(path, kind, **options)
    return path


def refused(path, words, **options):
    with pytest.raises(InputError, match=words) as error:
        read_picture(path, **options)
    assert str(path) in error.value.what and error.value.fix
    return error.value


@pytest.mark.parametrize(
    "suffix, kind, off",
    [
        (".jpg", None, 12), (".jfif", "JPEG", 12), (".png", None, 0), (".tif", None, 0), (".bmp", None, 0),
        (".gif", None, 40), (".webp", None, 12), (".jp2", None, 12), (".avif", None, 12), (".ppm", None, 0),
    ],
)  # fmt: skip
def test_every_kind_is_read_without_a_word(tmp_path, suffix, kind, off):
    # Colours of lossy kinds at their usual quality; GIF has 256 colours for the whole picture.
    path = saved(tmp_path / f"a{suffix}", gradient(), kind)
    picture = read_picture(path, listening=True)
    assert picture.image.dtype == np.uint8 and picture.image.shape == (HEIGHT, WIDTH, 3) and picture.notes == ()
    assert np.abs(picture.image.astype(int) - gradient()).max() <= off


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".gif", ".webp", ".jp2", ".avif", ".ppm"])
def test_bytes_are_read_as_their_file_is(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", gradient())
    wanted, found = read_picture(path), decode_picture(path.read_bytes())
    assert (found.image == wanted.image).all() and found.notes == wanted.notes
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path / "turned.jpg", gradient(), exif=exif)
    assert (decode_picture(turned.read_bytes()).image == read_image(turned)).all()
    assert read_image(turned).shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is not an image"),
        (b"text", "is not an image"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 20, "cannot be decoded"),
        (b"II*\0\xff\xff\xff\xff", "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "cannot be decoded"),
    ],
)
def test_bytes_that_are_no_image_are_refused_by_the_name_that_is_given(content, words):
    for name in ("The picture", "upload 7"):
        with pytest.raises(InputError, match=f"^{name} {words}"):
            decode_picture(content, name=name)


def test_large_bytes_are_refused_before_they_are_decoded():
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    parts = (header, b"IDAT" + zlib.compress(b"\0"), b"IEND")
    chunks = b"".join(struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    with pytest.raises(InputError, match=r"^The picture is too large"):
        decode_picture(b"\x89PNG\r\n\x1a\n" + chunks)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".webp", ".jp2", ".avif"])
def test_opaque_images_are_what_opencv_reads(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", gradient())
    assert np.array_equal(read_image(path), cv2.imread(str(path)))


@pytest.mark.parametrize("oriented", [True, False])
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparent_images_are_turned_as_opencv_turns_opaque_ones(tmp_path, suffix, turn, oriented):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"exif": exif, **({"lossless": True} if suffix == ".webp" else {})}
    opaque = saved(tmp_path / f"opaque{suffix}", gradient(), **options)
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:4, :4] = 254  # which changes a colour by a level at most
    clear = saved(tmp_path / f"clear{suffix}", np.dstack([gradient(), alpha]), **options)
    found, expected = read_image(clear, oriented=oriented), read_image(opaque, oriented=oriented)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1
    if suffix != ".tif":  # of which OpenCV keeps nothing that would be turned, or turns it in any case
        flags = cv2.IMREAD_COLOR if oriented else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        assert np.array_equal(expected, cv2.imread(str(opaque), flags))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif"])
def test_what_nobody_sees_in_a_transparent_image_does_not_count(tmp_path, suffix):
    alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    alpha[8:24, 8:24] = 255
    found = []
    for name, junk in (("black", 0), ("white", 255)):
        image = np.where(alpha > 0, gradient(), np.uint8(junk))
        options = {"lossless": True, "exact": True} if suffix == ".webp" else {"quality": 100} if suffix == ".avif" else {}
        path = saved(tmp_path / f"{name}{suffix}", np.dstack([image, alpha]), **options)
        picture = read_picture(path)
        assert picture.notes == ("it is transparent in part, and was laid over grey",)
        found.append(picture.image)
    black, white = found
    if suffix != ".avif":  # which is lossy at the edge
        assert np.array_equal(black, white)
        assert np.array_equal(black[8:24, 8:24], gradient()[8:24, 8:24])
    assert (black[:4] == GROUND).all() and (white[:4] == GROUND).all()


def test_half_transparent_pixels_are_mixed_with_the_ground(tmp_path):
    image = np.dstack([np.full((4, 4, 3), 28, np.uint8), np.full((4, 4, 1), 128, np.uint8)])
    mixed = read_image(saved(tmp_path / "a.png", image))
    assert (np.abs(mixed - (28 * 128 + GROUND * 127) / 255) <= 1).all()  # rounding


@pytest.mark.parametrize("alpha, notes", [(255, ()), (0, ("it is transparent everywhere, which was ignored",))])
@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_an_alpha_channel_that_says_nothing_changes_nothing(tmp_path, suffix, alpha, notes):
    image = np.dstack([gradient(), np.full((HEIGHT, WIDTH, 1), alpha, np.uint8)])
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
    picture = read_picture(tmp_path / f"a{suffix}")
    assert np.array_equal(picture.image, gradient()) and picture.notes == notes


def test_a_transparent_colour_of_a_palette_is_laid_over_the_ground(tmp_path):
    Image.fromarray(np.full((8, 8), 3, np.uint8)).convert("P").save(tmp_path / "a.png", transparency=3)
    assert read_picture(tmp_path / "a.png").notes  # it is transparent everywhere
    two = Image.fromarray(np.repeat(np.uint8([[3, 9]]), 8, axis=0)).convert("P")
    two.save(tmp_path / "b.gif", transparency=two.getpixel((0, 0)))
    image = read_image(tmp_path / "b.gif")
    assert (image[:, 0] == GROUND).all() and (np.abs(image[:, 1].astype(int) - 9) <= 2).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_sixteen_bits_that_hold_fewer_are_brought_to_the_whole_range(tmp_path, suffix, bits):
    bright = gradient().copy()
    bright[:8, :8] = 255  # as a photograph's lights are
    deep = bright.astype(np.uint16) << (bits - 8)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), deep, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.notes == (f"its 16 bits hold values of {bits} only, and were made brighter",)
    off = 12 if suffix == ".jp2" else 0  # lossy
    assert np.abs(picture.image.astype(int) - bright).max() <= off


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_sixteen_bits_in_use_lose_the_lower_eight(tmp_path, suffix):
    deep = gradient().astype(np.uint16) * 257
    deep[0, 0] = 65535
    cv2.imwrite(str(tmp_path / f"a{suffix}"), deep)
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.notes == () and np.array_equal(picture.image, deep >> 8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pbm"])
def test_black_and_white_alone_is_said(tmp_path, suffix):
    Image.fromarray(gradient()[..., 0] > 100).save(tmp_path / f"a{suffix}")
    picture = read_picture(tmp_path / f"a{suffix}")
    assert set(np.unique(picture.image)) == {0, 255} and picture.notes == ("it has one bit a pixel: black and white alone",)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png", ".avif"])
def test_the_first_of_several_pictures_is_taken_and_said(tmp_path, suffix):
    pages = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (40, 90, 200)]
    pages[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=pages[1:])
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.notes == ("it holds several pictures, and the first was taken",)
    assert np.abs(picture.image.astype(int) - 40).max() <= 3  # lossy kinds


def test_a_photograph_with_previews_is_one_picture(tmp_path):
    whole, preview = (Image.fromarray(gradient(width, width)[..., ::-1]) for width in (64, 16))
    whole.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.notes == () and picture.image.shape == (64, 64, 3)


def with_a_hole(content, start=0.5, length=0.05):
    at, end = int(len(content) * start), int(len(content) * (start + length))
    return content[:at] + bytes(end - at) + content[end:]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_a_hole_in_an_image_is_said_and_nothing_else_is_printed(tmp_path, photograph, capfd, suffix):
    options = {".jpg": [], ".tif": [cv2.IMWRITE_TIFF_COMPRESSION, 5]}[suffix]
    whole = cv2.imencode(suffix, photograph, options)[1].tobytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(with_a_hole(whole))
    picture = read_picture(path, listening=True)
    assert picture.image.shape == photograph.shape
    assert len(picture.notes) == 1 and "damaged, and parts of it are made up" in picture.notes[0]
    assert capfd.readouterr() == ("", "")
    path.write_bytes(whole)
    assert read_picture(path, listening=True).notes == ()


def test_what_pillow_logs_is_not_printed(tmp_path):
    """In a process of its own: pytest's handlers would take it."""
    cv2.imwrite(str(tmp_path / "a.tif"), gradient(24, 20))
    tag = struct.pack("<HHI", 277, 3, 1)  # samples per pixel
    content = (tmp_path / "a.tif").read_bytes()
    assert content.count(tag + struct.pack("<H", 3)) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(tag + struct.pack("<H", 3), tag + struct.pack("<H", 5376)))
    code = "import sys; from glnet_infer.image_files import read_picture; read_picture(sys.argv[1], listening=True)"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.tif")], capture_output=True, text=True)
    assert "InputError" in ended.stderr and "samples per pixel than" not in ended.stderr


def test_what_others_say_on_stderr_afterwards_is_heard_again(tmp_path, capfd):
    path = saved(tmp_path / "a.jpg", gradient())
    read_picture(path, listening=True)
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width, height, colour=0):
    rows = zlib.compress(bytes(1024), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_of(width, height, passes=1):
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "JPEG", progressive=True)
    content = whole.getvalue()
    at = content.index(b"\xff\xc2") + 5
    content = content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (passes - 1) + content[-2:]


def tiff_of(entries):
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), *entries]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4)


def jp2_of(outer, inner):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG2000")
    content = file.getvalue()
    at = content.index(b"ihdr") + 4
    content = content[:at] + struct.pack(">II", *outer[::-1]) + content[at + 8 :]
    at = content.index(b"\xff\x4f\xff\x51") + 8
    return content[:at] + struct.pack(">II", *inner) + content[at + 8 :]


@pytest.mark.parametrize(
    "content, words",
    [
        (png_of(10_001, 10_000), "10001 x 10000 pixels, and at most 100 million"),
        (png_of(60_000, 60_000), "at most 100 million"),
        (png_of(5_657, 5_657, colour=6), "at most 32 million"),
        (png_of(1_000_001, 1), "1000001 x 1 pixels"),
        (png_of(0, 8), "cannot be decoded"),
        (png_of(8, 8).replace(struct.pack(">I", 17) + b"IDAT", b"\xff\0\0\0IDAT"), "longer than the file"),
        (jpeg_of(10_001, 10_000), "10001 x 10000 pixels, and at most 100 million"),
        (jpeg_of(8_000, 8_000, passes=40), "passes"),
        (b"BM" + struct.pack("<IHHIIIIHHIIIIII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0), "100 million"),
        (b"P6\n60000 60000\n255\n", "100 million"),
        (b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b"\x3b", "100 million|cannot be decoded"),
        (tiff_of([(256, 4, 1, 60_000)]), "its size twice"),
        (tiff_of([(322, 4, 1, 1 << 20), (323, 4, 1, 1 << 20)]), "tiles"),
        (jp2_of((8, 8), (60_000, 60_000)), "differ in its size"),
        (jp2_of((60_000, 60_000), (8, 8)), "at most 32 million"),
    ],
)  # fmt: skip
def test_an_announced_size_is_refused_before_it_costs_anything(tmp_path, content, words):
    (tmp_path / "a.img").write_bytes(content)
    refused(tmp_path / "a.img", words)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "it is empty"),
        (b"no image at all", "no kind that is read"),
        (b"\0\0\0\x18ftypheic\0\0\0\0heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isom", "a video"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"%PDF-1.7", "PDF"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ],
)
def test_what_is_often_taken_for_an_image_is_named(tmp_path, content, words):
    (tmp_path / "a.jpg").write_bytes(content)
    refused(tmp_path / "a.jpg", words)
    assert not begins_like_an_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".gif", ".webp", ".jp2", ".avif", ".ppm"])
def test_an_image_that_breaks_off_is_refused(tmp_path, capfd, suffix):
    whole = saved(tmp_path / f"whole{suffix}", gradient(200, 160)).read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / f"a{suffix}").write_bytes(whole[: int(len(whole) * share)])
        refused(tmp_path / f"a{suffix}", None, listening=True)
    assert capfd.readouterr() == ("", "")


def test_floating_point_is_no_grey_levels(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.float32(gradient()[..., 0]) / 255)
    refused(tmp_path / "a.tif", "no grey levels")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", "/dev/zero", tmp_path):
        answers = queue.Queue()
        threading.Thread(target=lambda path=path, to=answers: to.put(refused(path, None)), daemon=True).start()
        why = answers.get(timeout=20).why
        assert "not a regular file" in why or "directory" in why


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 300 + ".jpg", "gone.jpg", "gone/a.jpg"])
def test_paths_that_lead_nowhere_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="was not read"):
        read_picture(tmp_path / name)


def test_a_huge_file_is_refused_by_its_size(tmp_path):
    path = saved(tmp_path / "a.png", gradient())
    os.truncate(path, (1 << 30) + 1)  # with a hole: it takes no place on the disk
    refused(path, "at most 1073741824 are read")


def test_names_of_images():
    assert all(map(is_image_name, ("a.jpg", "a.JPG", "b.jfif", "c.AVIF", "d.gif", "e.jp2", "f.JPE")))
    assert not any(map(is_image_name, ("._a.jpg", ".hidden.png", "a.HEIC", "a.txt", "jpg", "a.jpg.tmp")))


def test_images_are_known_by_their_first_bytes(tmp_path):
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "AVIF", "PPM"):
        assert begins_like_an_image(saved(tmp_path / "a", gradient(), kind))
    assert not begins_like_an_image(tmp_path) and not begins_like_an_image(tmp_path / "gone")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_large_images_cost_little_beyond_themselves(tmp_path):
    """In a process of its own: the peak of memory is the process's."""
    rows = zlib.compressobj(9)
    data = rows.compress(bytes((1 + 9_000 * 3) * 9_000)) + rows.flush()
    head = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    code = (
        "import sys; from pathlib import Path; from glnet_infer.image_files import read_image\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) >> 10\n"
        "before = peak(); assert read_image(sys.argv[1]).shape == (9000, 9000, 3); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2.5 * 9_000 * 9_000 * 3 / (1 << 20)  # OpenCV decodes into one copy and hands out another
