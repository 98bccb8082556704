"""What large persons gain by averages, and what these cost: ``python -m glnet_train.scores.large BUNDLE``.

Rendered persons fill squares of 1 to 8 times the crop's side, with and without a camera's noise. They are cut as
``glnet_infer.crops`` does, and with one sample for each pixel. Then a photograph is enlarged, and its joints are compared
with those of the picture without noise. At last, cutting is timed.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from glnet.body import Body, find_body, load_body
from glnet.position_errors import mpjpe, pa_mpjpe
from glnet_infer.backends import Backend, open_backend
from glnet_infer.bundle import Bundle
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.image_files import read_image
from glnet_infer.skeleton import BODY_JOINTS
from glnet_render import SyntheticSource
from glnet_render.seeds import HELD_OUT
from glnet_train.scores.answers import recovered

SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 3.9, 4.0, 6.0, 8.0)
NOISES = (0, 8, 16)
"""Standard deviations of grey levels of 255."""

BATCH = 4
"""Persons rendered at a time, at the largest scale."""

PHOTOGRAPH = (4800, 3200)
"""Width and height that the photograph is enlarged to."""

SEEDS, REPEATS = 6, 40

Image = NDArray[np.uint8]
Cut = Callable[[Image, CropSquares], Image]


@dataclass(frozen=True)
class OneSample(CropSquares):
    """Squares that are never averaged."""

    @property
    def _levels(self) -> NDArray[np.intp]:
        return np.zeros(len(self.sides), np.intp)


def one_sample(image: Image, squares: CropSquares) -> Image:
    """The crops by one bilinear sample for each pixel."""
    return cut_crops(image, OneSample(squares.centers, squares.sides, squares.size))


WAYS: dict[str, Cut] = {"one sample": one_sample, "averaged": cut_crops}


def noisy(image: Image, deviation: float, generator: np.random.Generator) -> Image:
    """An image with a camera's noise, independent in all pixels and channels."""
    if not deviation:
        return image
    noise = generator.standard_normal(image.shape, dtype=np.float32) * deviation
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def whole(side: int, size: int) -> CropSquares:
    """The square that a crop of a whole square image shows."""
    return CropSquares(np.array([[side / 2, side / 2]]), np.array([float(side)]), size)


def rendered(
    backend: Backend, body: Body, crop: CropSpec, persons: int
) -> Iterator[tuple[float, int, NDArray[np.float64]]]:
    """For each scale and noise, errors in millimetres: ways x MPJPE and PA-MPJPE x persons."""
    source = SyntheticSource(body, replace(crop, size=round(SCALES[-1] * crop.size)), seed=HELD_OUT)
    generator = np.random.default_rng(0)
    errors: dict[tuple[float, int], list[NDArray[np.float64]]] = {}
    for start in range(0, persons, BATCH):
        sample = source.sample(min(BATCH, persons - start))
        truth = body.pose(sample.rotations, sample.betas).joints[:, :BODY_JOINTS]
        for scale in SCALES:
            side = round(scale * crop.size)
            images = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in sample.crops.numpy()]
            for deviation in NOISES:
                given = [noisy(np.asarray(image[..., ::-1], np.uint8), deviation, generator) for image in images]
                found = []
                for cut in WAYS.values():
                    crops = np.concatenate([cut(image, whole(side, crop.size)) for image in given])
                    joints = recovered(backend, crops, sample.cameras.numpy()).joints[:, :BODY_JOINTS]
                    found.append([mpjpe(joints, truth).numpy(), pa_mpjpe(joints, truth).numpy()])
                errors.setdefault((scale, deviation), []).append(np.array(found))
    for (scale, deviation), parts in errors.items():
        yield scale, deviation, np.concatenate(parts, axis=-1)


def photograph(
    backend: Backend, crop: CropSpec, path: Path, box: NDArray[np.float64]
) -> Iterator[tuple[int, list[float], list[float]]]:
    """For each noise, millimetres of the joints from those without it, for each way: median and worst of some seeds."""
    image = read_image(path)
    height, width = image.shape[:2]
    large = np.asarray(cv2.resize(image, PHOTOGRAPH, interpolation=cv2.INTER_CUBIC), np.uint8)
    squares = CropSquares.around(box[None] * np.tile(np.array(PHOTOGRAPH) / [width, height], 2), crop)
    camera = np.array([[1000 / 256, 1000 / 256, 0, 0]], np.float32)

    def joints(cut: Cut, image: Image) -> torch.Tensor:
        return recovered(backend, cut(image, squares), camera).joints[:, :BODY_JOINTS]

    clean = {name: joints(cut, large) for name, cut in WAYS.items()}
    for deviation in NOISES[1:]:
        images = [noisy(large, deviation, np.random.default_rng(seed)) for seed in range(SEEDS)]
        moved = [[float(mpjpe(joints(cut, each), clean[name])) for each in images] for name, cut in WAYS.items()]
        yield deviation, [float(np.median(each)) for each in moved], [max(each) for each in moved]


def milliseconds(cut: Cut, scale: float, size: int) -> float:
    """Least time of a crop."""
    side = round(scale * size)
    image = np.random.default_rng(0).integers(0, 256, (side + 64, side + 64, 3), dtype=np.uint8)
    squares = CropSquares(np.array([[side / 2 + 20.3, side / 2 + 21.7]]), np.array([scale * size]), size)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        cut(image, squares)
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--persons", type=int, default=160, help="Rendered persons.")
    parser.add_argument("--photograph", type=Path, default=Path("examples/person.jpg"))
    parser.add_argument(
        "--box", type=float, nargs=4, default=(639, 30, 955, 736), help="The person's box in the photograph."
    )
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    crop, body = bundle.manifest.crop, Body(load_body(find_body(bundle.manifest.body.name)))
    backend = open_backend("onnxruntime-cpu", bundle)
    print(f"{options.persons} rendered persons, MPJPE / PA-MPJPE in mm; change of each person: mean, standard error")
    for scale, deviation, errors in rendered(backend, body, crop, options.persons):
        change = errors[1] - errors[0]
        error = change.std(axis=-1, ddof=1) / change.shape[-1] ** 0.5
        means = ", ".join(
            f"{name} {a:.1f} / {b:.1f}" for name, (a, b) in zip(WAYS, errors.mean(axis=-1).tolist(), strict=True)
        )
        said = " / ".join(f"{a:+.2f} ({b:.2f})" for a, b in zip(change.mean(axis=-1), error, strict=True))
        print(f"  scale {scale:<3g} noise {deviation:>2}: {means}; {said}")
    print(f"{options.photograph} at {PHOTOGRAPH[0]} x {PHOTOGRAPH[1]}, joints from those without noise, mm, {SEEDS} seeds")
    for deviation, medians, worst in photograph(backend, crop, options.photograph, np.array(options.box, np.float64)):
        each = ", ".join(f"{name} {a:.1f} (worst {b:.1f})" for name, a, b in zip(WAYS, medians, worst, strict=True))
        print(f"  noise {deviation:>2}: {each}")
    print(f"least milliseconds of a crop of {crop.size} and of 256 pixels, {cv2.getNumThreads()} threads of OpenCV")
    for scale in (1, 1.9, 2, 4, 8, 16):
        each = ", ".join(
            f"{name} {milliseconds(cut, scale, crop.size):.2f} and {milliseconds(cut, scale, 256):.2f}"
            for name, cut in WAYS.items()
        )
        print(f"  scale {scale:<3g}: {each}")


if __name__ == "__main__":
    main()
