"""Stand-ins for TensorRT's module and for cuda-core, to drive the engine runtime where there is no GPU."""

# They keep the names and the habits of the real ones: failures come as None or False with the reason in the log, nothing on
# a stream happens before it is waited for, a graph holds on to its context's shapes, and memory has bounds and an end. What
# begins with an underscore is the stand-in's own.

from tensorrt_stand_in.arrays import Tensor, on_gpu, put, read, tensor
from tensorrt_stand_in.bundles import bundle_of, crop_plan, engine_record, make_bundle, plan
from tensorrt_stand_in.checks import public_names, refused, right, ways
from tensorrt_stand_in.computing import FRAME, OUTPUTS, SHAPES, SIDE, cut, results
from tensorrt_stand_in.cuda import cuda_core, cuda_driver
from tensorrt_stand_in.install import install_machine, install_tensorrt
from tensorrt_stand_in.pictures import BOXES, HEIGHT, WIDTH, batch, frame_of, inputs
from tensorrt_stand_in.trt import SCRATCH, STEP, tensorrt

__all__ = [
    "BOXES", "FRAME", "HEIGHT", "OUTPUTS", "SCRATCH", "SHAPES", "SIDE", "STEP", "WIDTH", "Tensor", "batch", "bundle_of",
    "crop_plan", "cuda_core", "cuda_driver", "cut", "engine_record", "frame_of", "inputs", "install_machine",
    "install_tensorrt", "make_bundle", "on_gpu", "plan", "public_names", "put", "read", "refused", "results", "right",
    "tensor", "tensorrt", "ways",
]  # fmt: skip
