"""Arrays of the machine's GPU: as other libraries hand them in, and as results are read there."""

import numpy as np


class Interface:
    """An array that speaks ``__cuda_array_interface__``, as PyCUDA's do."""

    def __init__(self, **interface):
        self.__cuda_array_interface__ = interface


class Tensor:
    """An array that speaks DLPack alone."""

    def __init__(self, machine, **values):
        self._machine, self._values, self.asked = machine, values, []

    def __dlpack_device__(self):
        return 2, self._values["device_id"]

    def __dlpack__(self, *, stream=None, max_version=None):
        self.asked.append(stream)
        self._machine.wait(stream, "torch")
        return self._values


def put(machine, frame, offset=0, stream=None, kind="device"):
    """The address of a frame that another library makes on a stream of its own, or has made."""
    address = machine.new(kind, frame.size + offset) + offset

    def work():
        machine.at(address, frame.size)[:] = frame.ravel()

    if stream is None:
        work()
    else:
        machine.foreign.append((stream, work))
    return address


def on_gpu(machine, frame, offset=0, stream=None, kind="device", **changes):
    address = put(machine, frame, offset, stream, kind)
    interface = {"shape": frame.shape, "typestr": frame.dtype.str, "data": (address, False), "strides": None}
    return Interface(**{**interface, "stream": stream, "version": 3, **changes})


def tensor(machine, frame, **changes):
    values = {"shape": frame.shape, "dtype": frame.dtype, "strides": None, "device_id": 0, "readonly": False}
    return Tensor(machine, **{"address": put(machine, frame, stream="torch"), **values, **changes})


def read(machine, view):
    interface = view.__cuda_array_interface__
    assert interface["version"] == 3 and interface["stream"] is None and interface["strides"] is None
    address, readonly = interface["data"]
    assert not readonly and interface["shape"] == view.shape
    dtype = np.dtype(interface["typestr"])
    size = int(np.prod(view.shape)) * dtype.itemsize
    return machine.at(address, size).view(dtype).reshape(view.shape)
