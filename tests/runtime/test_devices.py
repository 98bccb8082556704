"""Which GPUs the driver tells of, and how many cores this process may use."""

import os
import subprocess
import sys
import types

import pytest

import glnet_infer.devices
from glnet_infer.devices import Gpu, cores, gpus, newest_cuda, physical_cores


def test_without_a_driver_there_are_no_gpus(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(glnet_infer.devices.ctypes, "CDLL", missing)
    assert gpus() == [] and newest_cuda() == ""


def driver(monkeypatch, *, start=0, names=("NVIDIA L4", "NVIDIA H200"), versions=((8, 9), (9, 0))):
    """A make-believe CUDA driver."""

    def initialise(flags):
        return start

    def count(pointer):
        pointer._obj.value = len(names)
        return 0

    def get(pointer, ordinal):
        pointer._obj.value = ordinal
        return 0

    def name(buffer, size, device):
        buffer.value = names[device.value].encode()
        return 0

    def attribute(pointer, which, device):
        pointer._obj.value = versions[device.value][which - 75]
        return 0

    def version(pointer):
        pointer._obj.value = 12080
        return 0

    calls = {
        "cuInit": initialise,
        "cuDriverGetVersion": version,
        "cuDeviceGetCount": count,
        "cuDeviceGet": get,
        "cuDeviceGetName": name,
        "cuDeviceGetAttribute": attribute,
    }
    monkeypatch.setattr(glnet_infer.devices.ctypes, "CDLL", lambda _: types.SimpleNamespace(**calls))


def test_gpus_are_what_the_driver_says(monkeypatch):
    driver(monkeypatch)
    assert gpus() == [Gpu("NVIDIA L4", "8.9"), Gpu("NVIDIA H200", "9.0")]
    assert newest_cuda() == "12.8"


def test_a_driver_without_a_device_has_no_gpus(monkeypatch):
    driver(monkeypatch, start=100)  # CUDA_ERROR_NO_DEVICE
    assert gpus() == []


def test_asking_this_machine_for_gpus_does_not_fail():
    assert all(isinstance(gpu, Gpu) and gpu.name for gpu in gpus())


HELD = """
import os, sys
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
from glnet_infer.bundle import Bundle
from glnet_infer.backends import open_backend
backend = open_backend("onnxruntime-cpu", Bundle.open(sys.argv[1]))
print(backend._session.get_session_options().intra_op_num_threads)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
@pytest.mark.skipif(cores() == 1, reason="needs two cores, of which one is taken away")
def test_a_process_that_is_held_to_one_core_computes_with_one_thread(shared_bundle):
    done = subprocess.run([sys.executable, "-c", HELD, shared_bundle], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] and done.stderr == ""


def test_two_hardware_threads_of_one_core_are_counted_once(monkeypatch):
    siblings = {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5", 7: "3,7"}
    files = {
        f"/sys/devices/system/cpu/cpu{each}/topology/thread_siblings_list": text.encode() for each, text in siblings.items()
    }
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 7, 5}, raising=False)

    def read(path):
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr("pathlib.Path.read_bytes", read)
    assert physical_cores() == 3
    files.clear()
    assert physical_cores() == 4
