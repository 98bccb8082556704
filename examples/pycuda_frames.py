"""Frames and results as PyCUDA's arrays: between your kernels and the meshes, nothing but boxes crosses the bus.

    python examples/pycuda_frames.py BUNDLE IMAGE x1,y1,x2,y2 [x1,y1,x2,y2 ...]

Needs a GPU, PyCUDA (``[pycuda]``) and a bundle with an engine for that GPU (``glnet-export ckpt.pth --trt``).
"""

import sys
from typing import Any

import cv2
import numpy as np

try:
    # The GPU's primary context, which the backend works in; arrays of pycuda.autoinit lie in a context of their own.
    import pycuda.autoprimaryctx  # noqa: F401
    from pycuda import gpuarray
except ImportError as error:
    sys.exit(f"PyCUDA is not installed ({error}): pip install '.[pycuda]', with a C++ compiler and CUDA's toolkit at hand")

from glnet_infer import MeshRecoverer


def as_gpuarray(view: Any) -> gpuarray.GPUArray:
    """PyCUDA's view of one of the results on the GPU: no copy, valid until the recoverer's next call."""
    return gpuarray.GPUArray(view.shape, view.dtype, gpudata=view.__cuda_array_interface__["data"][0])


def main(bundle: str, image: str, *boxes: str) -> None:
    """Recover the persons of one image, and go on with their vertices on the GPU."""
    frame = gpuarray.to_gpu(cv2.imread(image))  # stands for a decoder, or a kernel of yours, that leaves it there
    with MeshRecoverer(bundle, backend="tensorrt") as recoverer:
        meshes = recoverer(frame, np.array([[float(side) for side in box.split(",")] for box in boxes]))
        millimetres = 1000 * as_gpuarray(meshes.device.vertices)  # a kernel of PyCUDA's; the result is its own
    print(f"{len(meshes)} persons, first vertices (mm): {millimetres.get()[:, 0].round(1).tolist()}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
