"""A backend on a server is measured where its address is given, in a row named by the protocol."""

import json
from pathlib import Path

import pytest

from glnet_bench.measure import run as runs
from glnet_bench.measure.processes import run_alone
from glnet_bench.record.results import Soak, StartSeconds
from glnet_bench.runners.base import Options
from glnet_bench.runners.registry import backend_names
from glnet_bench.settings import Frame
from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle

pytest.importorskip("tritonclient", reason="install the extra triton")
from triton_stand_in import GrpcServer, Model

FEW = ["--batch", "1,2", "--persons", "1", "--frame", "160x120", "--samples", "3", "--seconds", "0.02", "--threads", "1"]


@pytest.fixture
def address(shared_bundle):
    opened = Bundle.open(shared_bundle)
    backend = open_backend("onnxruntime-cpu", opened, 1)
    server = GrpcServer(Model(backend, opened))
    yield f"triton://127.0.0.1:{server.port}/glnet"
    server.stop()
    backend.close()


def test_it_has_a_row_and_its_address_is_kept(bench, address, shared_bundle, tmp_path, monkeypatch):
    asked = []

    def alone(bundle, name, options, frame, persons, **_):
        asked.append((name, options.addresses))
        seconds = StartSeconds(importing=0.1, loading=0.2, first_call=0.3, total=0.6, later_call=0.01)
        return Soak(seconds=seconds, host_peak=1 << 20, persons=persons)

    monkeypatch.setattr(runs, "run_alone", alone)
    file = tmp_path / "run.json"
    printed = bench(shared_bundle, "--backend", f"onnxruntime-cpu,{address}", *FEW, "-o", file)
    document = json.loads(file.read_text())
    assert set(document["rows"]["batch/2"]) == {"onnxruntime-cpu", "triton"}
    assert document["settings"]["addresses"] == [address] and ("triton", (address,)) in asked
    assert document["backends"]["triton"]["device"] == "server"  # this machine's floor is not the server's
    assert "triton" in printed.stdout
    other = address.replace("127.0.0.1", "localhost")
    bench(shared_bundle, "--backend", f"onnxruntime-cpu,{other}", *FEW, "-o", file, code=3)  # another run


def test_a_process_of_its_own_is_given_the_address(address, shared_bundle):
    found = run_alone(shared_bundle, "triton", Options(threads=1, addresses=(address,)), Frame("160x120", 160, 120), 1)
    assert found.seconds.first_call > 0


@pytest.mark.parametrize(
    "names, code, words",
    [
        ("triton", 8, "needs an address"),
        ("triton://host", 8, "not the address"),
        ("tritons://host/glnet", 8, "There is no backend"),
        ("triton://a/glnet,triton://b/glnet", 3, "named twice"),
        ("onnxruntime-cpu://host/glnet", 8, "There is no backend"),
    ],
)
def test_what_is_no_address_is_refused(bench, names, code, words, shared_bundle, tmp_path):
    result = bench(shared_bundle, "--backend", names, *FEW, "-o", tmp_path / "run.json", code=code)
    assert words in result.stderr and not list(Path(tmp_path).glob("run.*"))


def test_no_default_run_waits_for_a_server(bench, bundle, tmp_path):
    assert backend_names()[-2:] == ("triton", "triton+http")
    bench(bundle, *FEW, "-o", tmp_path / "run.json")  # a copy: OpenVINO keeps what it compiles beside the graph
    backends = json.loads((tmp_path / "run.json").read_text())["settings"]["backends"]
    assert "onnxruntime-cpu" in backends and not {"triton", "triton+http"} & set(backends)
