"""Files that are no usable checkpoint: refused by name, at once, before a number of them is read."""

import io
import itertools
import os
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from glnet.checkpoint import Checkpoint
from glnet_infer.errors import CheckpointError


def first(state, dimensions=4):
    return next(name for name, value in state.items() if value.dim() == dimensions)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 95\n", "Git LFS pointer"),
        (b"\n <!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>", "a web page"),
        (b"<HTML><body>Sign in</body></HTML>", "a web page"),
        (b"<!-- saved from a browser --><html></html>", "a web page"),
        ("<!DOCTYPE html><html></html>".encode("utf-16"), "a web page"),
        (b"/annex/objects/SHA256E-s9--ab.pth\n", "a git-annex pointer"),
        (b"outs:\n- md5: 22a1\n  path: network.pth\n", "a DVC pointer"),
        (b'{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}', "the list of a checkpoint"),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 64, "compressed by zstd"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (b'{"message": "Not Found"}', "a text, such as JSON"),
        (b"", "it is empty"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 64, "compressed by gzip"),
        (b"\0" * 257 + b"ustar\0" + b"\0" * 249, "a tar archive"),
        (b"\x08\x0a\x12\x07pytorch", "a graph such as ONNX"),
        (b"\x93NUMPY\x01\0", "a single array of NumPy"),
        (b"just some words", "not a file of PyTorch weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_often_taken_for_a_checkpoint_is_called_by_its_name(path, refused, content, words):
    path.write_bytes(content)
    assert words in refused()


@pytest.mark.parametrize("name", ["a.npy", "x/weights.pth", "readme.txt"])
def test_other_zip_files_are_called_by_their_names(path, refused, name):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"content")
    words = {"a.npy": "a NumPy archive", "x/weights.pth": "a zip file with x/weights.pth in it"}
    assert words.get(name, "a zip file of something else") in refused()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["new", "old", "safetensors"])
def test_cut_files_are_called_so(state, path, refused, kind, share):
    if kind == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "new")
    written = path.read_bytes()
    path.write_bytes(written[: int(share * len(written))])
    assert "cut short" in refused() or "breaks off" in refused()


def test_a_damaged_storage_is_noticed(state, path, refused):
    torch.save(state, path)
    written = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
        written[largest.header_offset + 200 + largest.file_size // 2] ^= 1
    path.write_bytes(written)
    assert "CRC" in refused()


class Net(torch.nn.Sequential):
    """A network whose class whoever reads it need not have."""


def test_a_program_of_torch_export_is_called_so(path, refused):
    with path.open("wb") as file:
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
    assert "torch.export" in refused()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_programs_and_whole_modules_are_refused_with_what_to_save(path, refused):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert "TorchScript" in refused()
    assert "state_dict()" in refused()
    for document in (Net(torch.nn.Linear(2, 2)), {"epoch": 1, "model": Net(torch.nn.Linear(2, 2))}):
        for legacy in (False, True):
            torch.save(document, path, _use_new_zipfile_serialization=not legacy)
            text = refused()
            assert "Net" in text
            assert "state_dict" in text


ODD = {
    "complex64": lambda value: value.to(torch.complex64),
    "int8": lambda value: (value * 100).to(torch.int8),
    "bool": lambda value: value > 0,
    "int64": lambda value: value.to(torch.int64),
    "float8_e4m3fn": lambda value: value.to(torch.float8_e4m3fn),
    "a sparse tensor": lambda value: value.to_sparse(),
    "of the meta device": lambda value: value.to("meta"),
    "a nested tensor": lambda value: torch.nested.nested_tensor([value[0], value[0]]),
    "not (": lambda value: value[..., :1].expand(*value.shape[:-1], 4 * 10**8),
    "not numbers": lambda value: "text",
}


@pytest.mark.filterwarnings("ignore")  # of prototypes and types that torch means to drop
@pytest.mark.parametrize("kind", ODD)
def test_weights_of_a_kind_that_means_something_else_are_refused(state, path, refused, kind):
    name = first(state)
    torch.save({**state, name: ODD[kind](state[name])}, path)
    text = refused()
    assert name in text or kind == "not numbers"
    assert kind in text or kind == "not numbers"


@pytest.mark.parametrize("layout", ["sparse", "meta", "quantised"])
@pytest.mark.filterwarnings("ignore")
def test_weights_given_by_hand_are_looked_at_too(checkpoint, state, layout):
    name = first(state)
    odd = {
        "sparse": lambda value: value.to_sparse(),
        "meta": lambda value: value.to("meta"),
        "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    }[layout](state[name])
    with pytest.raises(CheckpointError, match="no plain tensor"):
        Checkpoint(checkpoint.config, {**state, name: odd}).network()


def test_values_that_no_network_has_are_refused(state, path, refused):
    variance = next(name for name in state if name.endswith("running_var"))
    torch.save({**state, variance: -state[variance] - 1e-3}, path)
    assert "a variance below zero" in refused()
    for bad in (float("nan"), float("inf")):
        torch.save({**state, variance: state[variance] * bad}, path)
        assert "not finite" in refused()
    # Finite, but not in the type that the network computes in.
    torch.save({**state, variance: state[variance].double() + 1e300}, path)
    assert "not finite" in refused()


# Nothing costs more than the file is large


def of_machine(document, storages=(), folder="archive", compress=zipfile.ZIP_STORED) -> bytes:
    """A file of PyTorch, made by hand: opcodes of a pickle, and the bytes of its storages."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compress) as archive:
        archive.writestr(f"{folder}/data.pkl", document)
        for key, data in enumerate(storages):
            archive.writestr(f"{folder}/data/{key}", data)
    return content.getvalue()


def tensor(shape, stride, offset=0, length=4, key="0") -> bytes:
    def number(value):
        return pickle.dumps(value, 2)[2:-1]

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = (
        b"(U\x07storagectorch\nFloatStorage\nU" + bytes([len(key)]) + key.encode() + b"U\x03cpu" + number(length) + b"tQ"
    )
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(stride) + b"\x89}tR"
    )


def one(body: bytes) -> bytes:
    return b"\x80\x02}U\x01w" + body + b"s."


def old_bomb() -> bytes:
    content = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, content, _use_new_zipfile_serialization=False)
    return content.getvalue().replace(struct.pack("<q", 4), struct.pack("<q", 1 << 40), 1)


BOMBS = {
    "a storage that is not there": (of_machine(one(tensor((4,), (1,)))), "lacks its part"),
    "a storage beyond all": (of_machine(one(tensor((10**9,), (1,), length=10**9))), "larger than the file"),
    "a storage larger than its part": (of_machine(one(tensor((9,), (1,), length=9)), [b"\0" * 16]), "not the size"),
    "a tensor beyond its storage": (of_machine(one(tensor((5,), (1,))), [b"\0" * 16]), "beyond its storage"),
    "a tensor before its storage": (of_machine(one(tensor((2,), (1,), offset=-1)), [b"\0" * 16]), "has no storage"),
    "an offset beyond": (of_machine(one(tensor((1,), (1,), offset=2**40)), [b"\0" * 16]), "beyond its storage"),
    "a negative length": (of_machine(one(tensor((-1,), (1,))), [b"\0" * 16]), "impossible shape"),
    "a negative stride": (of_machine(one(tensor((2,), (-1,), offset=2)), [b"\0" * 16]), "impossible shape"),
    "a huge shape of one number": (of_machine(one(tensor((10**13,), (0,))), [b"\0" * 16]), "unknown: w"),
    "many axes": (of_machine(one(tensor((1,) * 60, (0,) * 60)), [b"\0" * 16]), "impossible shape"),
    "compressed zeros": (
        of_machine(one(tensor((1 << 26,), (1,), length=1 << 26)), [bytes(1 << 28)], compress=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "compressed pickle": (of_machine(b"\x80\x02" + b"]0" * (1 << 22) + b"N.", compress=zipfile.ZIP_DEFLATED), "compressed"),
    "marks": (of_machine(b"\x80\x02" + b"(" * (1 << 23)), "steps"),
    "an index of 2^31": (of_machine(b"\x80\x02]r\xff\xff\xff\x7f."), "no state dict"),
    "texts that announce gigabytes": (of_machine(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x."), "breaks off"),
    "bytes that announce gigabytes": (of_machine(b"\x80\x05\x96" + struct.pack("<Q", 1 << 31) + b"x."), "breaks off"),
    "a frame that announces gigabytes": (of_machine(b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N."), "breaks off"),
    "an old file's storage that is not there": (old_bomb(), "not the size"),
}


@pytest.fixture
def little():
    """Fails where a test takes more than five seconds of its processor, or a quarter of a gigabyte."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250_000


@pytest.mark.parametrize("kind", list(BOMBS))
def test_a_small_file_that_asks_for_much_is_refused_at_once(path, refused, little, kind):
    content, words = BOMBS[kind]
    path.write_bytes(content)
    assert words in refused()


def test_parts_of_an_archive_that_overlap_are_not_read_again_and_again(state, path, refused, little):
    """Thousands of names for the same bytes: each is honest, together they are a thousand times the file."""
    size, count = 1 << 20, 1000
    names = [f"archive/data/{key}" for key in range(count)]
    items = b"".join(
        b"U"
        + bytes([len(f"w{key}")])
        + f"w{key}".encode()
        + tensor((size // 4,), (1,), length=size // 4, key=str(key))
        + b"s"
        for key in range(count)
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}" + items + b".")
        archive.writestr(names[0], bytes(size))
        shared = archive.getinfo(names[0])
        for name in names[1:]:
            other = zipfile.ZipInfo(name)
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(other, field, getattr(shared, field))
            archive.filelist.append(other)
    path.write_bytes(content.getvalue())
    text = refused()
    assert "larger than the file" in text or "Overlapped entries" in text  # the second is Python's own, from 3.11.9


class Payload:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.system, eval, exec, os.unlink, print, getattr])
def test_a_checkpoint_that_names_functions_is_refused_and_runs_none(state, path, refused, tmp_path, legacy, function):
    target = tmp_path / "target"
    call = Payload(function, f"__import__('pathlib').Path({str(target)!r}).touch()")
    torch.save({"state_dict": state, "extra": {"deep": [call]}}, path, _use_new_zipfile_serialization=not legacy)
    text = refused()
    assert "which no checkpoint contains" in text
    assert "could run code" in text
    assert not target.exists()


def test_functions_of_others_are_neither_imported_nor_called(state, read, tmp_path, monkeypatch, assert_loads):
    """What is not Python's own is left aside: the module may not even exist here."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\ndef run(*_): ...\n", encoding="utf-8")
    import hostile

    (tmp_path / "imported").unlink()
    assert_loads(read({"state_dict": state, "extra": Payload(hostile.run, 1)}))
    monkeypatch.delitem(__import__("sys").modules, "hostile")
    assert_loads(read())
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "field, value",
    [
        ("blocks", 10**9),
        ("blocks", 1000),
        ("stem_blocks", 10**9),
        ("stem_channels", 10**30),
        ("channels", [10**9, 8, 8, 8]),
        ("modules", [10**6, 1, 1]),
        ("modules", [64, 64, 64]),
        ("head_channels", [8, 8, 8, 10**12]),
        ("feature_channels", 10**9),
    ],
)
def test_configurations_of_monstrous_backbones_are_refused_before_one_is_built(
    checkpoint, path, refused, little, field, value
):
    config = checkpoint.config.to_dict()
    config["backbone"] = {**config["backbone"], "blocks": 8, field: value}
    torch.save({"format": "glnet-checkpoint", "version": 1, "config": config, "state_dict": checkpoint.state}, path)
    with pytest.raises(CheckpointError, match="configuration is not valid") as caught:
        Checkpoint.load(path)
    assert "blocks" in caught.value.why or field in caught.value.why


@pytest.mark.parametrize(
    "field, value",
    [
        ("keypoints", 10**8),
        ("pixel_channels", 10**9),
        ("part_channels", 2**62),
        ("depth_range", 10**400),
        ("depth_range", 1e-300),
        ("mean", [10**400, 0, 0]),
        ("std", [1e-40, 1, 1]),
        ("confidence_prior", 10**400),
        ("confidence_prior", 1e-320),
        ("name", [[[[1]]]]),
        ("crop", {"size": 10**400}),
        ("mean", list(itertools.repeat(0, 10**5))),
    ],
)
def test_other_monstrous_configurations_are_refused(checkpoint, path, little, field, value):
    config = {**checkpoint.config.to_dict(), field: value}
    torch.save({"format": "glnet-checkpoint", "version": 1, "config": config, "state_dict": checkpoint.state}, path)
    with pytest.raises(CheckpointError, match="configuration is not valid"):
        Checkpoint.load(path)


@pytest.mark.parametrize("version", [torch.tensor(1), np.float64(1), [1], True, 10**400, "1"])
def test_versions_are_whole_numbers(checkpoint, path, version):
    torch.save(
        {
            "format": "glnet-checkpoint",
            "version": version,
            "config": checkpoint.config.to_dict(),
            "state_dict": checkpoint.state,
        },
        path,
    )
    with pytest.raises(CheckpointError, match="version"):
        Checkpoint.load(path)
