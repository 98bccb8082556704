"""NumPy archives of any origin: a header is believed no further than its own array goes."""

import io
import resource
import zipfile

import numpy as np
import pytest

from glnet_infer.archives import LONGEST_TEXT, ArraySpec, read_archive, storable
from glnet_infer.errors import InputError

LIMIT = 1 << 20


def read(content, *, limit=LIMIT, **specs):
    return read_archive(io.BytesIO(content), specs, InputError, what="It was not read.", fix="save it again", limit=limit)


def archive(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def announced(descr, shape, data=b""):
    """An archive of one array ``a`` with a header by hand."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    return stream.getvalue()


def refused(content, words, **specs):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        read(content, **specs)
    assert caught.value.what and caught.value.fix and words in caught.value.why, caught.value
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


ANY = ArraySpec(None, "number")


@pytest.mark.parametrize("spec", [ANY, ArraySpec(("N",), "float64")])
def test_what_is_larger_than_the_limit_is_refused_before_it_is_unpacked(spec):
    content = archive(a=np.zeros(1 << 26))  # half a gigabyte, a thousandth of it packed
    assert len(content) < LIMIT
    refused(content, "a is too large", a=spec)
    # What lies beside it costs nothing.
    content = archive(a=np.zeros(1 << 26), b=np.arange(3))
    assert read(content, b=ArraySpec((3,), "int64"))["b"].tolist() == [0, 1, 2]


def test_the_limit_is_of_all_arrays_together():
    content = archive(a=np.zeros(1 << 16), b=np.zeros((1 << 16) + 1))
    refused(content, "b is too large", a=ANY, b=ANY)
    assert len(read(content, limit=(1 << 20) + 8, a=ANY, b=ANY)["b"]) == (1 << 16) + 1


@pytest.mark.parametrize(
    "descr, shape, words",
    [
        ("<f8", "(1000000000000,)", "too large"),
        ("<f8", "(1000,)", "has not the size of its shape"),
        ("<f8", "(0, 1000000000000)", ""),
        ("<U0", "(2147483648, 2147483648)", "not of numbers"),
        ("|V0", "(2147483648, 2147483648)", "not of numbers"),
        ("|O", "(1,)", "Python objects"),
        ("<M8[s]", "(1,)", "not of numbers"),
        ("<c16", "(1,)", "not of numbers"),
    ],
)
def test_a_header_that_promises_what_is_not_there(descr, shape, words):
    content = announced(descr, shape)
    if words:
        refused(content, words, a=ANY)
    else:
        assert read(content, a=ANY)["a"].size == 0


@pytest.mark.parametrize(
    "descr, shape", [("<U0", "(2147483648, 2147483648)"), ("<U5000", "()"), ("|S4", "()"), ("<f8", "()")]
)
def test_a_text_is_one_short_text(descr, shape):
    refused(announced(descr, shape, bytes(4 * 5000)), "", a=ArraySpec((), "str"))


def test_lengths_of_one_letter_are_one_length():
    content = archive(a=np.zeros((3, 2)), b=np.zeros((4, 2)))
    refused(content, "b is (4, 2), not (3, 2)", a=ArraySpec(("N", 2), "float64"), b=ArraySpec(("N", 2), "float64"))


@pytest.mark.parametrize("text", ["", "plain", "Straße", "Stra\udcdfe", "\ud800", "x" * 10_000])
def test_a_text_that_is_stored_is_read(text):
    found = read(archive(a=np.asarray(storable(text))), a=ArraySpec((), "str"))["a"].item()
    assert found == text.encode(errors="backslashreplace").decode()[:LONGEST_TEXT]
