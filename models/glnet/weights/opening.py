"""Opening checkpoints: PyTorch's files, new and old, safetensors and plain pickles. Other files are refused by name."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from glnet.pickles import ARRAYS, Conversion, PickledObject
from glnet.weights.foreign import name_of
from glnet.weights.tensors import OddTensor, Storage, StoredTensor, TensorUnpickler, stored
from glnet_infer.archives import CarefulFile
from glnet_infer.errors import CheckpointError, first_line, install_hint
from glnet_infer.files import open_regular

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""First objects of a file of PyTorch before 1.6 (``torch.serialization``)."""

LONGEST_LIST = 4 << 20
"""Bytes of a zip file's list of contents: some 40,000 storages."""

LONGEST_HEADER = 16 << 20
"""Bytes of the header of a safetensors file."""

SAVE_WEIGHTS = "save tensors and plain values only, such as network.state_dict(): other content could run code"

_BLOCK = 1 << 20


class _NotReadError(Exception):
    """A file that cannot be read: why, and what to do."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.fix = fix


class CheckpointFile:
    """An open checkpoint.

    Args:
        document: Its content as data; tensors in it are :class:`StoredTensor`.
        size: Bytes of the file.
        content: Reads the bytes of a storage as a whole.

    Attributes:
        document: Its content as data.
    """

    def __init__(self, document: Any, size: int, content: Callable[[Storage], bytearray | Tensor]) -> None:
        self.document = document
        self._left, self._content = size, content
        self._conversion = Conversion(ARRAYS, size)
        self._storages: dict[str, Tensor] = {}

    def read(self, value: StoredTensor | PickledObject) -> Tensor:
        """The tensor that a value of the document stands for, or numpy's array, on the CPU.

        Raises:
            pickle.UnpicklingError: The file does not hold it.
        """
        if isinstance(value, PickledObject):
            array = self._conversion.array(value)
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        if 0 in value.shape:
            return torch.empty(value.shape, dtype=value.dtype)
        storage = value.storage
        if storage.key not in self._storages:
            self._storages[storage.key] = self._read_storage(storage)
        part = self._storages[storage.key][storage.start : storage.start + storage.size]
        flat = part[: storage.size - storage.size % value.dtype.itemsize].view(value.dtype)
        return flat.as_strided(value.shape, value.stride, value.offset + flat.storage_offset())

    def _read_storage(self, storage: Storage) -> Tensor:
        # Members of a zip file may overlap: together they are not larger than the file.
        self._left -= storage.size
        if self._left < 0:
            raise pickle.UnpicklingError("its storages are larger than the file")
        content = self._content(storage)
        return content if isinstance(content, Tensor) else torch.frombuffer(content, dtype=torch.uint8)


@contextmanager
def open_checkpoint(path: Path) -> Iterator[CheckpointFile]:
    """Open a checkpoint of any origin for reading; nothing in it is run.

    Args:
        path: A file of ``torch.save``, of any version; a safetensors file; a pickle of arrays.

    Raises:
        CheckpointError: The file is missing, damaged, or of another kind. Errors of its content that show while it is
            open are told so too.
    """
    what = f"The checkpoint {path} was not read."
    try:
        with open_regular(path) as file:
            yield _open(file, path)
    except FileNotFoundError as error:
        fix = "give the path of a .pth file; docs/checkpoints.md says what it holds"
        raise CheckpointError(f"There is no checkpoint {path}.", fix=fix) from error
    except IsADirectoryError as error:
        fix = "give the .pth or .safetensors file in it; a folder that torch.distributed wrote is converted by "
        fix += "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
        raise CheckpointError(f"There is no checkpoint {path}.", why="it is a folder", fix=fix) from error
    except CheckpointError:
        raise
    except _NotReadError as error:
        raise CheckpointError(what, why=str(error), fix=error.fix) from error
    except pickle.UnpicklingError as error:
        fix = SAVE_WEIGHTS if "it names" in str(error) else f"copy it again, or {SAVE_WEIGHTS}"
        raise CheckpointError(what, why=first_line(error), fix=fix) from error
    except OSError as error:
        raise CheckpointError(what, why=str(error.strerror or error), fix="check its permissions") from error
    except Exception as error:  # a damaged file can raise almost anything
        raise CheckpointError(what, why=f"it is damaged or cut short: {first_line(error)}", fix="copy it again") from error


def _open(file: BinaryIO, path: Path) -> CheckpointFile:
    head = file.read(512)
    size = file.seek(0, 2)
    file.seek(0)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return _open_safetensors(file, path, head, size)
    foreign = name_of(head, size)
    if foreign is not None:
        raise _NotReadError(*foreign)
    return _open_zip(file, size) if head.startswith(b"PK") else _open_pickles(file, size)


def _open_zip(file: BinaryIO, size: int) -> CheckpointFile:
    """``torch.save`` since PyTorch 1.6: a zip file of a pickle, and of storages as they are."""
    try:
        archive = zipfile.ZipFile(CarefulFile(file, LONGEST_LIST))
    except zipfile.BadZipFile as error:
        raise _NotReadError("it is cut short, or damaged", "copy or download it again") from error
    members = {info.filename: info for info in archive.infolist()}
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in members):
        raise _NotReadError(
            "it is a TorchScript archive, a program and not weights",
            "save the network's weights: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)",
        )
    if any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in members):
        raise _NotReadError(
            "it is a program of torch.export and not weights",
            "save the network's weights: torch.save(torch.export.load(FILE).state_dict, NEW_FILE)",
        )
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        inner = next((name for name in members if name.endswith((".pth", ".pt", ".ckpt", ".safetensors"))), None)
        if inner is not None:
            raise _NotReadError(f"it is a zip file with {inner} in it", "unpack it, and give the file in it")
        kind = "a NumPy archive" if any(name.endswith(".npy") for name in members) else "a zip file of something else"
        raise _NotReadError(f"it is {kind}, not weights of PyTorch", "give a file that torch.save wrote")
    folder = pickles[0].removesuffix("data.pkl")

    def content(name: str, length: int | None = None) -> bytearray:
        """A member as it lies there, of the expected length."""
        info = members.get(name)
        if info is None:
            raise pickle.UnpicklingError(f"it lacks its part {name}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise pickle.UnpicklingError("its parts are compressed, which PyTorch never does")
        if info.file_size != (info.file_size if length is None else length):
            raise pickle.UnpicklingError("a storage has not the size that its tensors say")
        data = bytearray(info.file_size)
        with archive.open(info) as part:
            _fill(part.read, data)  # at its end, zipfile compares the checksum
        return data

    if f"{folder}byteorder" in members and content(f"{folder}byteorder").startswith(b"big"):
        raise _NotReadError("it was written on a machine of the other byte order", "save it again on this one")
    document = TensorUnpickler(io.BytesIO(content(pickles[0]))).load()
    return CheckpointFile(document, size, lambda storage: content(f"{folder}data/{storage.key}", storage.size))


def _open_pickles(file: BinaryIO, size: int) -> CheckpointFile:
    """A pickle; or several of PyTorch before 1.6, with the storages behind them."""
    first = _first_object(file)
    if first != MAGIC:
        return CheckpointFile(first, size, _no_storage)
    if TensorUnpickler(file).load() != PROTOCOL:
        raise pickle.UnpicklingError("it is of an unknown version of PyTorch")
    TensorUnpickler(file).load()  # facts about the machine
    reader = TensorUnpickler(file)
    document = reader.load()
    keys = TensorUnpickler(file).load()
    places: dict[str, int] = {}
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in reader.storages for key in keys):
        raise pickle.UnpicklingError("its list of storages is damaged")
    for key in keys:
        storage = reader.storages[key]
        (length,) = struct.unpack("<q", file.read(8))
        width = 1 if storage.dtype is None else storage.dtype.itemsize
        if length * width != storage.size:
            raise pickle.UnpicklingError("a storage has not the size that its tensors say")
        places[key] = file.tell()
        if file.seek(storage.size, 1) > size:
            raise EOFError("it breaks off")

    def content(storage: Storage) -> bytearray:
        if storage.key not in places:
            raise pickle.UnpicklingError("it lacks a storage")
        file.seek(places[storage.key])
        data = bytearray(reader.storages[storage.key].size)
        _fill(file.read, data)
        return data

    return CheckpointFile(document, size, content)


def _first_object(file: BinaryIO) -> Any:
    is_pickle = file.read(1) == b"\x80"  # as all are since Python 2.3, but those of protocols 0 and 1
    file.seek(0)
    try:
        return TensorUnpickler(file).load()
    except Exception as error:
        if is_pickle or "it names" in str(error):
            raise
        raise _NotReadError(
            "it is not a file of PyTorch weights", "give a file of torch.save, or a .safetensors"
        ) from error


def _no_storage(storage: Storage) -> bytearray:
    raise pickle.UnpicklingError("it lacks the storages of its tensors")


def _fill(read: Callable[[int], bytes], data: bytearray) -> None:
    at = 0
    while at < len(data):
        block = read(min(_BLOCK, len(data) - at))
        if not block:
            raise EOFError("it breaks off")
        data[at : at + len(block)] = block
        at += len(block)


_SAFE_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _open_safetensors(file: BinaryIO, path: Path, head: bytes, size: int) -> CheckpointFile:
    """safetensors: a header that says what lies where, and the numbers."""
    if int.from_bytes(head[:8], "little") > LONGEST_HEADER:
        raise pickle.UnpicklingError("the header of the safetensors file is too long")
    try:
        import safetensors
    except ImportError as error:
        raise _NotReadError(
            "it is a safetensors file, and safetensors is not installed", install_hint("network")
        ) from error
    # By its descriptor where there is a name for it: it is the file that was looked at, and its own name may be no text.
    opened = Path(f"/dev/fd/{file.fileno()}")
    archive: Any = safetensors.safe_open(str(opened if opened.exists() else path), framework="pt")
    document: dict[str, Any] = {}
    for name in archive.keys():  # noqa: SIM118 - it is no dictionary
        part = archive.get_slice(name)
        shape, dtype = tuple(part.get_shape()), _SAFE_DTYPES.get(part.get_dtype())
        if dtype is None:
            document[name] = OddTensor(f"a tensor of type {part.get_dtype()}")
            continue
        strides = [1]
        for length in shape[:0:-1]:
            strides.insert(0, strides[0] * length)
        count = torch.Size(shape).numel()
        document[name] = stored(
            Storage(name, count * dtype.itemsize, 0, dtype), dtype, 0, shape, tuple(strides[: len(shape)])
        )

    def content(storage: Storage) -> Tensor:
        values: Tensor = archive.get_tensor(storage.key)
        return values.reshape(-1).view(torch.uint8)

    return CheckpointFile(document, size, content)
