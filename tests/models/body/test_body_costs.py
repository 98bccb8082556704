"""Small body files that ask for much: refused, and no dearer than their size."""

import io
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
from scipy import sparse

from glnet.body import load_body
from glnet_infer.errors import BodyError


@pytest.fixture(autouse=True)
def little():
    """Fails where a test takes more than five seconds of its processor, or half a gigabyte."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 450_000


@pytest.fixture
def refused(tmp_path):
    def refused(content: bytes, suffix=".pkl") -> str:
        path = tmp_path / f"body{suffix}"
        path.write_bytes(content)
        with pytest.raises(BodyError) as caught:
            load_body(path)
        assert caught.value.why
        assert caught.value.fix
        return str(caught.value)

    return refused


def holding(value: bytes, key=b"weights") -> bytes:
    """A pickle of a dictionary with one entry, the value by hand."""
    return b"}U" + bytes([len(key)]) + key + value + b"s."


def doubled(times: int) -> bytes:
    """A list of two lists of two lists ..., all the same one at each level."""
    return b"]K\x01aq\x00" + b"".join(b"0]h%cah%caq%c" % (level, level, level + 1) for level in range(times))


def shared(times: int) -> bytes:
    """Tuples of two tuples of two ...: their hash takes two to the power of their number."""
    return b")q\x00" + b"".join(b"0h%ch%c\x86q%c" % (level, level, level + 1) for level in range(times))


def keyed(keys) -> bytes:
    return b"}(" + b"".join(keys) + b"u"


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def nested_selections() -> bytes:
    """Selections of selections, each of a whole array: a hundred times the work of one."""
    array = pickle.dumps(np.arange(200_000), 2)[2:-1]
    value = array + b"q\xff"
    for _ in range(400):
        value = b"cchumpy.reordering\nSelect\n)\x81}(U\x01a" + value + b"U\x04idxsh\xffU\x0fpreferred_shapeK\x01\x85ub"
    return value


def wide(length: int, levels: int) -> bytes:
    """A list of one list many times, and so on: as many numbers as the length to the power of the levels."""
    value = [0.5] * length
    for _ in range(levels - 1):
        value = [value] * length
    return pickle.dumps(value, 2)[2:-1]


BOMBS = {
    "a list that holds itself": b"]q\x00h\x00a",
    "a list that holds itself twice": b"]q\x00h\x00ah\x00a",
    "lists that hold each other": b"]q\x00]q\x01h\x00a0h\x01a",
    "lists shared thirty times": doubled(30),
    "lists shared two hundred times over": wide(200, 4),
    "tuples shared sixty times": shared(60),
    "deep lists": b"]" * 50_000 + b"a" * 49_999,
    "deep tuples": b")" + b"\x85" * 500_000,
    "a number of 400 digits": b"](L" + b"9" * 400 + b"L\nK\x01e",
    "a number of 100,000 digits": b"](L" + b"9" * 100_000 + b"L\nK\x01e",
    "an index of 2^27": b"]r\x00\x00\x00\x08",
    "an index of 2^31": b"]r\xff\xff\xff\x7f",
    "selections of selections": nested_selections(),
    "lists of one shared array": b"](" + pickle.dumps(np.arange(300_000), 2)[2:-1] + b"q\xfe" + b"h\xfe" * 1000 + b"e",
    "numbers of unlike kinds": b"](K\x01U\x01ae",
    "nothing": b"N",
    "a dictionary": b"}",
    "an empty list": b"]",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_values_whose_conversion_has_no_end_are_refused(refused, kind):
    text = refused(holding(BOMBS[kind]))
    # Python itself bounds digits; where the value is harmless, the other keys are missing.
    assert "weights: " in text or "digits" in text or "lacks v_template" in text


@pytest.mark.parametrize("kind", ["tuple", "numbers", "texts of numbers", "put"])
def test_keys_whose_hashes_cost_much_are_left_aside(refused, kind):
    """Whole numbers that are equal modulo 2^61 - 1 have one hash, which makes a dictionary as slow as a list."""
    colliding = [number(each * ((1 << 61) - 1)) for each in range(1, 100_001)]
    content = {
        "tuple": lambda: keyed([shared(60), b"N"]),
        "numbers": lambda: keyed([each + b"N" for each in colliding]),
        "texts of numbers": lambda: keyed([b"L%dL\nN" % (each * ((1 << 61) - 1)) for each in range(1, 100_001)]),
        "put": lambda: b"N" + b"".join(b"p%d\n" % (each * ((1 << 61) - 1)) for each in range(1, 100_001)),
    }[kind]()
    refused(holding(content, b"other"))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + b"(" * (1 << 23),
        b"\x80\x04" + b"\x8f" * (1 << 23),
        b"\x80\x02" + b"}" * (1 << 23),
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 31) + b"x",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",
        b"T\xff\xff\xff\x7fabc.",
    ],
    ids=["marks", "sets", "dictionaries", "text", "bytes", "frame", "number", "old text"],
)
def test_pickles_of_nothing_but_steps_or_announcements_are_refused(refused, content):
    refused(content)


@pytest.mark.parametrize("shape", [(10**8, 3), (10**9, 3), (24, 10**9), (2**40, 2**40)])
def test_sparse_matrices_that_are_huge_once_dense_are_refused(refused, shape):
    matrix = sparse.csr_matrix((2, 3))
    matrix._shape = shape
    assert "shape" in refused(pickle.dumps({"weights": matrix}, 2))


@pytest.mark.parametrize("form", ["csr_matrix", "csc_matrix"])
def test_sparse_matrices_that_announce_entries_are_refused_before_room_is_made(refused, form):
    matrix = getattr(sparse, form)(np.eye(24))
    matrix.indptr = np.array([0, 10**9] + [10**9] * 23)
    assert "damaged" in refused(pickle.dumps({"weights": matrix}, 2))


# Archives


def npz(*, shape, dtype="<f8", data=b"", key="posedirs", **others) -> bytes:
    """An archive of one array whose header says what it likes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data
    stream = io.BytesIO()
    np.savez_compressed(stream, **others)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{key}.npy", content)
    return stream.getvalue()


def test_what_is_not_needed_of_an_archive_is_not_read(smpl_content, tmp_path, fabricated, assert_same_body):
    path = tmp_path / "large.npz"
    path.write_bytes(npz(shape=(1 << 28,), dtype="|u1", data=bytes(1 << 28), key="unused", **smpl_content))
    assert_same_body(load_body(path), fabricated)


@pytest.mark.parametrize(
    "shape, dtype, size",
    [
        ((2**31, 2**31), "<U0", 0),
        ((10**9,), "<f8", 0),
        ((2**62, 4), "<f8", 0),
        ((300, 3, 10**6), "<f8", 0),
        ((300, 3, 207), "|O", 0),
        ((300, 3, 207), "<c16", 300 * 3 * 207 * 16),
        ((300, 3, 207), "<M8[s]", 300 * 3 * 207 * 8),
        ((0, 3, 207), "|V0", 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["posedirs", "v_template"])
def test_headers_of_archives_are_looked_at_before_their_numbers(smpl_content, refused, shape, dtype, size, key):
    del smpl_content[key]
    assert key in refused(npz(shape=shape, dtype=dtype, data=bytes(size), key=key, **smpl_content), ".npz")


def test_a_body_of_a_million_vertices_is_refused_before_its_blend_shapes_are_read(smpl_content, refused):
    smpl_content |= {"v_template": np.zeros((10**6, 3)), "J_regressor": np.zeros((24, 10**5))}
    del smpl_content["posedirs"]
    large = npz(shape=(10**6, 3, 207), data=b"", **smpl_content)
    assert "1000000 vertices" in refused(large, ".npz")


@pytest.mark.parametrize("key", ["v_template", "shapedirs", "posedirs", "weights", "J_regressor"])
def test_numbers_that_overflow_later_are_refused(smpl_content, tmp_path, key):
    smpl_content[key] = smpl_content[key].copy()
    for value in (1e30, np.inf, np.nan):
        smpl_content[key].flat[5] = value
        np.savez(tmp_path / "body.npz", **smpl_content)
        with pytest.raises(BodyError, match=key):
            load_body(tmp_path / "body.npz")
