"""glnet-infer ended from outside: Ctrl-C keeps what is done, and a killed run leaves no half file under a final name."""

import os
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from glnet_infer.results.motion import Motion

TOLD = """
import sys
from glnet_infer.commands.infer import main
from glnet_infer.video.writers import VideoWriter
write = VideoWriter.write
def told(self, *arguments):
    write(self, *arguments)
    print("frame", self.frames, file=sys.stderr, flush=True)
VideoWriter.write = told
main()
"""

FRAMES = 8
EVERY_FORMAT = [part for name in ("overlay", "npz", "json", "glb", "bvh", "amass", "html") for part in ("-f", name)]


@pytest.fixture
def begin(shared_bundle, tmp_path, plain_output_and_nobodys_files):
    """Starts glnet-infer as a process of its own, and waits until it has written so many frames."""
    started = []

    def start(frame, *arguments):
        command = [sys.executable, "-c", TOLD, *map(str, arguments), "-b", shared_bundle, "-o", tmp_path / "out"]
        command += ["--detector", "none", "--backend", "onnxruntime-cpu"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, **pipes)
        started.append(process)
        assert any(line == f"frame {frame}\n" for line in process.stderr)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stamps(av, path, kind="video"):
    """Exact times of the pictures, or of the packets of sound; seconds."""
    with av.open(str(path)) as file:
        packets = file.demux(**{kind: 0})
        return sorted(packet.pts * packet.time_base for packet in packets if packet.size)


def test_an_interrupt_keeps_what_is_done(begin, tmp_path, clips):
    times = [Fraction(i, 25) for i in range(1000)]
    clip = clips.write(tmp_path / "clip.mp4", times, sound="aac")
    process = begin(20, clip, "-f", "overlay", "-f", "npz", "-f", "glb")
    process.send_signal(signal.SIGINT)
    listed, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; the files hold what was done" in said and "Traceback" not in said
    ends = ("overlay.mp4", "npz", "glb")
    assert [Path(path).name for path in listed.split()] == [f"clip.{end}" for end in ends]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"clip.{end}" for end in ends)
    shown, found = stamps(clips.pyav(), tmp_path / "out/clip.overlay.mp4"), Motion.load(tmp_path / "out/clip.npz")
    assert 20 <= len(shown) < 500 and shown == times[: len(shown)]
    assert found.frame_numbers.tolist() == found.frame.tolist() == list(range(len(shown)))
    heard = stamps(clips.pyav(), tmp_path / "out/clip.overlay.mp4", "audio")
    assert shown[-1] - Fraction(1, 25) < heard[-1] < shown[-1] + Fraction(1, 25)  # a packet lasts half as long


def test_a_killed_run_leaves_no_half_file(begin, tmp_path, clips):
    clip = clips.write(tmp_path / "clip.mp4", [Fraction(i, 25) for i in range(FRAMES)], sound="aac")
    generator = random.Random(4)
    for frame in (2, 6, FRAMES, FRAMES, FRAMES, FRAMES):  # after the last frame come the other files
        process = begin(frame, clip, *EVERY_FORMAT)
        time.sleep(generator.uniform(0, 0.3))
        process.kill()
        process.communicate()
        for path in (tmp_path / "out").iterdir():
            if not path.name.startswith("."):
                assert_whole(clips.pyav(), path)
            path.unlink()


def assert_whole(av, path):
    """Refuse half of a file."""
    if path.name.endswith(".mp4"):
        assert len(stamps(av, path)) == FRAMES
    elif path.name.endswith(".html"):
        assert path.read_text().rstrip().endswith("</html>")
    elif path.name.endswith(".amass.npz"):
        with np.load(path) as arrays:
            assert len(arrays["poses"]) == len(arrays["trans"]) == FRAMES
    elif path.name.endswith((".json", ".npz")):
        assert len(Motion.load(path)) == FRAMES
    elif path.name.endswith(".glb"):
        content = path.read_bytes()
        assert int.from_bytes(content[8:12], "little") == len(content)
    else:
        lines = path.read_text().splitlines()
        place = lines.index("MOTION")
        assert lines[place + 1] == f"Frames: {FRAMES}" and len(lines) == place + 3 + FRAMES
