"""What tests of glnet-infer on videos share: times of frames, formats, and what is read back from results."""

from fractions import Fraction

from glnet_infer.results.motion import Motion

STEADY = [Fraction(i, 25) for i in range(8)]
EVERY_FORMAT = [part for name in ("overlay", "npz", "json", "glb", "bvh", "amass", "html") for part in ("-f", name)]
FORMATS = ["overlay.mp4", "npz", "json", "glb", "bvh", "amass.npz", "html"]


def stamps(av, path):
    """Exact times of the pictures, seconds."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


def motion(tmp_path, name="clip"):
    return Motion.load(tmp_path / f"out/{name}.npz")
