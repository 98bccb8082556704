"""A motion in the rerun viewer: video, camera, meshes and confidence on one timeline.

    python examples/rerun_motion.py clip.npz BUNDLE [clip.mp4] [clip.rrd]

Needs rerun (``[rerun]``), and the bundle's ``skin.npz`` for the meshes. Without a name for a recording, the viewer opens.
"""

import sys

import numpy as np

try:
    import rerun as rr
except ImportError as error:
    sys.exit(f"rerun is not installed ({error}): pip install '.[rerun]'")

from glnet_infer import Motion, Skin
from glnet_infer.results.drawing import DEFAULT_COLORS, vertex_normals


def main(motion_file: str, bundle: str, *others: str) -> None:
    """Log every frame of a motion."""
    motion, skin = Motion.load(motion_file), Skin.load(bundle)
    recording = next((name for name in others if name.endswith(".rrd")), None)
    video = next((name for name in others if not name.endswith(".rrd")), None)
    rr.init("glnet-infer", spawn=recording is None)
    if recording is not None:
        rr.save(recording)
    rr.log("world", rr.ViewCoordinates.RDF, static=True)  # x right, y down, z forward
    camera = rr.Pinhole(image_from_camera=motion.intrinsics.matrix, resolution=motion.image_size)
    rr.log("world/camera", camera, static=True)
    if video is not None:
        film = rr.AssetVideo(path=video)
        rr.log("world/camera/video", film, static=True)
        stamps = film.read_frame_timestamps_nanos()
        references = rr.VideoFrameReference.columns_nanos(stamps)
        rr.send_columns("world/camera/video", [rr.TimeColumn("time", duration=1e-9 * stamps)], references)

    seen: set[int] = set()
    for frame, time in zip(motion.frame_numbers.tolist(), motion.frame_times.tolist(), strict=True):
        rr.set_time("time", duration=time)
        persons = motion.at(frame)
        for row, (track, vertices) in enumerate(zip(persons.track.tolist(), persons.vertices(skin), strict=True)):
            path = f"world/persons/{track}"
            color = DEFAULT_COLORS[motion.tracks.index(track) % len(DEFAULT_COLORS)][::-1]
            normals = vertex_normals(vertices, skin.faces)
            mesh = rr.Mesh3D(
                vertex_positions=vertices, vertex_normals=normals, triangle_indices=skin.faces, albedo_factor=color
            )
            rr.log(path, mesh)
            rr.log(f"confidence/{track}", rr.Scalars(float(persons.confidence[row])))
        for track in seen - set(persons.track.tolist()):
            rr.log(f"world/persons/{track}", rr.Clear(recursive=False))
        seen = set(persons.track.tolist())
    print(f"{len(motion)} persons in {len(np.unique(motion.frame))} frames")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
