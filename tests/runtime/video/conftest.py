"""Clips whose frames carry their own numbers, made by PyAV: no program and no file from elsewhere."""

import os
from fractions import Fraction

import numpy as np
import pytest
from video_runs import STEADY

try:
    import av  # before a test takes it away
except ImportError:
    av = None

# FFmpeg inside OpenCV reads it when the first video of a process is opened. That may be another test's.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

BITS = 8


def numbered_image(number, width=64, height=48):
    """A picture that says its number in eight columns, white for one and black for zero, on a red ground."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = 200
    for bit in range(BITS):
        column = slice(bit * width // BITS, (bit + 1) * width // BITS)
        image[height // 4 : 3 * height // 4, column] = 255 * (number >> bit & 1)
    return image


def read_number(image):
    """The number that a picture says, after compression."""
    height, width = image.shape[:2]
    row = image[height // 2, [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]].mean(-1)
    return sum(1 << bit for bit, value in enumerate(row) if value > 128)


def _need_pyav():
    if av is None:
        pytest.skip("PyAV makes the clips")
    return av


def write_clip(
    path,
    times,
    *,
    size=(64, 48),
    base=Fraction(1, 12800),
    codec="libx264",
    pixels="yuv420p",
    rotation=0,
    sound=None,
    rate=25,
    options=None,
    container=None,
):
    """Write a clip: frame i at times[i] seconds says i. ``sound`` is a codec; its tone lasts as long as the pictures."""
    _need_pyav()
    with av.open(str(path), "w", options=container or {}) as file:
        video = file.add_stream(codec, rate=rate, options=options or {"g": "12"})
        video.width, video.height = size
        video.pix_fmt = pixels
        video.time_base = video.codec_context.time_base = base
        if rotation:
            if not hasattr(video, "set_display_rotation"):
                pytest.skip("this PyAV writes no rotation")
            video.set_display_rotation(rotation)
        audio = file.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_image(number, *size), "bgr24")
            frame.pts, frame.time_base = round(time / base), base
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if audio:
            _write_tone(file, audio, float(times[-1]))
    return path


def _write_tone(file, audio, seconds):
    """440 Hz, mono or what the codec wants."""
    resampler = av.AudioResampler(format=audio.codec_context.format, layout="mono", rate=48000)
    for start in range(0, int(seconds * 48000), 1024):
        samples = np.sin(2 * np.pi * 440 * (start + np.arange(1024)) / 48000)
        frame = av.AudioFrame.from_ndarray((samples * 20000).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        for each in resampler.resample(frame):
            file.mux(audio.encode(each))
    file.mux(audio.encode(None))


@pytest.fixture(scope="session")
def clips():
    """The functions that make and read clips."""

    class Clips:
        pyav = staticmethod(_need_pyav)
        image = staticmethod(numbered_image)
        number = staticmethod(read_number)
        write = staticmethod(write_clip)

    return Clips


@pytest.fixture
def without_pyav(monkeypatch):
    """A machine on which only OpenCV reads and writes videos; clips are made by PyAV all the same."""
    monkeypatch.setitem(__import__("sys").modules, "av", None)


@pytest.fixture
def one(infer):
    """Runs glnet-infer where one person fills each frame: no detector costs time."""
    return lambda *arguments, **named: infer("--detector", "none", *arguments, **named)


@pytest.fixture
def clip(tmp_path, clips):
    """Eight frames of 64 x 48 with a tone."""
    return clips.write(tmp_path / "clip.mp4", STEADY, sound="aac")
