"""``glnet-infer``: meshes of the persons in photographs, and their motion in videos."""

from pathlib import Path
from typing import Annotated, Any

import typer

from glnet_infer.backends import backend_names
from glnet_infer.commands.console import Version, errors_reported, new_app, start
from glnet_infer.commands.typed import PHOTOGRAPH_FORMATS, VIDEO_FORMATS, parse_camera, refuse
from glnet_infer.detection import DEFAULT_DETECTOR, DEFAULT_THRESHOLD, detector_names
from glnet_infer.devices import cores
from glnet_infer.video.following import CONFIDENCE, DETECT_EVERY
from glnet_infer.video.sources import is_video

app = new_app()


@app.command()
def infer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Photographs, or folders of them; or videos: files, a webcam's number, rtsp:// or http:// addresses, "
            "patterns of numbered images such as frames/%04d.png.",
            show_default=False,
        ),
    ],
    bundle: Annotated[
        Path,
        typer.Option(
            "--bundle",
            "-b",
            help="Bundle from glnet-export.",
            envvar="GLNET_BUNDLE",
            show_default=False,
            readable=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the results.", readable=False)] = Path(
        "glnet-output"
    ),
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            help=f"Kind of file, repeatable. Of photographs: {', '.join(PHOTOGRAPH_FORMATS)}. "
            f"Of videos: {', '.join(VIDEO_FORMATS)}.",
            show_default="overlay, npz; of photographs glb, too",
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help=f"What finds the persons: {', '.join(detector_names())} or FILE.onnx. none: one person fills each image.",
            show_default=DEFAULT_DETECTOR,
        ),
    ] = None,
    detector_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least score of what counts as a person.", show_default=str(DEFAULT_THRESHOLD)),
    ] = None,
    max_persons: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most persons at a time: the surest; in videos, who is there already.",
            show_default="all",
        ),
    ] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option(help="The camera fx,fy,cx,cy in pixels.", show_default="focal length = image diagonal"),
    ] = None,
    backend: Annotated[str, typer.Option(help=f"What runs the network: {', '.join(backend_names())}.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of CPU kernels.", show_default="the backend's")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            help="A person's box x1,y1,x2,y2 in a photograph's pixels, repeated for each. None: the detector finds them.",
            show_default=False,
        ),
    ] = None,
    boxes_file: Annotated[
        Path | None,
        typer.Option(
            help='JSON with boxes by file name: {"photo.jpg": [[x1, y1, x2, y2], ...], ...}.',
            show_default=False,
            readable=False,
        ),
    ] = None,
    start: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds to leave out at a video's beginning.", show_default=False),
    ] = None,
    end: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds from a video's beginning at which to end.", show_default=False),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Stride of a video's frames: 2 takes every second one.", show_default="1"),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames per second of numbered images.", show_default="30"),
    ] = None,
    detect_every: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds of a video from one detection to the next; 0: every frame.",
            show_default=f"{DETECT_EVERY:g}",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Confidence of the network below which a frame of a person is marked and bridged.",
            show_default=f"{CONFIDENCE:g}",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster that shares the work of an archive, host:port or auto; local: this machine alone.",
            show_default=False,
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Processes of --ray, one thread each.", show_default="cores of this machine"),
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(min=0, max=16, help="GPUs of each process of --ray; 0.5: two processes share one.", show_default="0"),
    ] = None,
    no_smooth: Annotated[bool, typer.Option("--no-smooth", help="Leave a video's poses as they are recovered.")] = False,
    _: Version = False,
) -> None:
    """Recover human meshes from photographs and videos.

    A photograph gives an overlay and mesh files. A video gives an overlay with its sound, and the motion of its persons.

    Written files are listed on stdout, everything else goes to stderr. An input that fails is reported, the others are
    still done, and the exit code is the first failure's (docs/errors.md).
    """
    with errors_reported(as_json):
        camera = None if intrinsics is None else parse_camera(intrinsics)
        of_videos = {
            "--start": start,
            "--end": end,
            "--every": every,
            "--detect-every": detect_every,
            "--confidence": confidence,
            "--no-smooth": no_smooth or None,
        }
        if ray is None:
            refuse({"--actors": actors, "--gpus-per-actor": gpus_per_actor}, "it is for --ray")
            many = None
        else:
            from glnet_infer.commands import archives

            many = archives.Actors(ray, actors or cores(), gpus_per_actor or 0.0, backend, threads or 1)
            formats = formats or ["npz"]  # of an archive nobody looks at the overlays
        common: dict[str, Any] = {
            "output": output,
            "detector": detector,
            "threshold": detector_threshold,
            "most": max_persons,
            "intrinsics": camera,
            "formats": formats or [],
        }
        running: dict[str, Any] = {"backend": backend, "threads": threads, "as_json": as_json}
        if fps is not None or any(map(is_video, inputs)):
            refuse({"--boxes": boxes, "--boxes-file": boxes_file}, "boxes are those of one photograph")
            from glnet_infer.commands import video_jobs, videos

            video_job = video_jobs.VideoJob.parse(
                sources=inputs,
                start=start,
                end=end,
                every=every,
                fps=fps,
                detect_every=detect_every,
                confidence=confidence,
                smooth=not no_smooth,
                **common,
            )
            if many is not None:
                code = archives.videos(video_job, bundle, many, as_json=as_json)
            else:
                code = videos.run(video_job, bundle, **running)
        else:
            refuse(of_videos, "it is for videos, and there is none")
            from glnet_infer.commands import photographs

            job = photographs.Job.parse(images=list(map(Path, inputs)), boxes=boxes or [], boxes_file=boxes_file, **common)
            if many is not None:
                code = archives.photographs(job, bundle, many, as_json=as_json)
            else:
                failure = photographs.run(job, bundle, **running)
                code = 0 if failure is None else failure.exit_code
        if code:
            raise typer.Exit(code)


def main() -> None:
    """Entry point."""
    start(app)
