"""SMPL-format bodies as pickles: SMPL's own are read, hostile ones refused before they run."""

import copyreg
import io
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from glnet.body import load_body
from glnet.body.pickles import BodyUnpickler
from glnet_infer.errors import BodyError

# SMPL's own pickles


def uninstall_chumpy_and_scipy(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("chumpy", "scipy")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("chumpy", "chumpy.ch", "scipy", "scipy.sparse"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(("protocol", "python2"), [(0, False), (1, False), (2, False), (2, True), (4, False), (5, False)])
def test_smpl_pickle_gives_the_body_of_the_npz(
    smpl_content, fabricated, tmp_path, protocol, python2, monkeypatch, assert_same_body, smpl_pickle
):
    written = smpl_pickle(smpl_content, protocol, python2)
    uninstall_chumpy_and_scipy(monkeypatch)
    with pytest.raises(ImportError):  # as Python reads it, without the packages
        pickle.loads(written, encoding="latin1")
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(written)
    found = load_body(path)
    assert_same_body(found, fabricated)
    assert found.name == "SMPL_NEUTRAL"


def test_the_old_names_are_really_in_the_pickle(smpl_content, smpl_pickle):
    written = smpl_pickle(smpl_content, python2=True)
    for name in (
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cscipy.sparse.csc\ncsc_matrix\n",
        b"cscipy.sparse.csr\ncsr_matrix\n",
        b"cchumpy.ch\nCh\n",
        b"cchumpy.reordering\nSelect\n",
    ):
        assert name in written


# Hostile pickles


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path: Path) -> str:
    return f"__import__('pathlib').Path({str(path)!r}).touch()"


HOSTILE = {
    "os.system": lambda path: Calls(os.system, f"touch '{path}'"),
    "eval": lambda path: Calls(eval, touch(path)),
    "exec": lambda path: Calls(exec, touch(path)),
    "open": lambda path: Calls(open, str(path), "w"),
    "getattr": lambda path: Calls(getattr, Calls(__import__, "os"), "system"),
    "in a list": lambda path: [1, {"deep": (Calls(os.system, f"touch '{path}'"),)}],
    "in an array": lambda path: np.array([Calls(os.system, f"touch '{path}'"), None], dtype=object),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", HOSTILE)
def test_pickle_that_runs_code_is_refused_before_it_runs(smpl_content, tmp_path, kind, protocol):
    def written(target):
        return pickle.dumps({**smpl_content, "extra": HOSTILE[kind](target)}, protocol)

    proof, path = tmp_path / "proof", tmp_path / "body.pkl"
    pickle.loads(written(proof))
    assert proof.exists() or kind == "getattr"  # the payload works: this test can fail
    target = tmp_path / "target"
    path.write_bytes(written(target))
    with pytest.raises(BodyError, match="which no SMPL file contains") as caught:
        load_body(path)
    assert not target.exists()
    assert caught.value.fix


def by_hand(*opcodes: bytes) -> bytes:
    return b"\x80\x04" + b"".join(opcodes) + b"."


REFUSED = "was not read"
NAMED = "which no SMPL file contains"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        pytest.param(
            b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.", REFUSED, id="rebuilds an array"
        ),
        pytest.param(
            b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR.", REFUSED, id="rebuilds an object"
        ),
        pytest.param(
            b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.", NAMED, id="rebuilds a function"
        ),
        pytest.param(by_hand(b"\x8c\x09chumpy.ch\x8c\x0bCh.__init__\x93"), NAMED, id="attribute of an allowed class"),
        pytest.param(by_hand(b"\x8c\x05numpy\x8c\x11ndarray.__class__\x93"), NAMED, id="attribute of an array"),
        pytest.param(by_hand(b"\x8c\x0aglnet.body\x8c\x09load_body\x93"), NAMED, id="this library's own functions"),
        pytest.param(b"cposix\nsystem\n(S'true'\ntR.", NAMED, id="posix.system"),
        pytest.param(b"(S'true'\nios\nsystem\n.", NAMED, id="os.system by the INST opcode"),
        pytest.param(b"I1\n)R.", "calls what is no class", id="calls a number"),
        pytest.param(b"c__main__\nA\n)R)R.", "calls what is no class", id="calls what a call gave"),
        pytest.param(b"Pname\n.", REFUSED, id="persistent id"),
        pytest.param(b"\x80\x02\x82\x01.", REFUSED, id="extension registry"),
    ],
)
def test_pickle_that_takes_a_side_entrance_is_refused(tmp_path, written, reason):
    path = tmp_path / "body.pkl"
    path.write_bytes(written)
    with pytest.raises(BodyError, match=reason):
        load_body(path)


def test_extension_registry_does_not_open_a_way_in(tmp_path):
    copyreg.add_extension("posix", "system", 241)
    try:
        path = tmp_path / "body.pkl"
        path.write_bytes(b"\x80\x02\x82\xf1.")  # code 241: a name that the file itself does not spell out
        with pytest.raises(BodyError, match=r"posix\.system"):
            load_body(path)
    finally:
        copyreg.remove_extension("posix", "system", 241)


def test_pickle_cannot_change_the_reader(tmp_path):
    """State set on an allowed function would outlive the file."""
    path = tmp_path / "body.pkl"
    # BUILD with (None, {name: value}) sets attributes of whatever is on the stack, here _reconstructor's stand-in.
    path.write_bytes(by_hand(b"ccopyreg\n_reconstructor\n", b"N}\x8c\x06poison\x4b\x01s\x86b"))
    with pytest.raises(BodyError):
        load_body(path)
    reconstructor = BodyUnpickler(io.BytesIO()).find_class("copyreg", "_reconstructor")
    poisoned = hasattr(reconstructor, "poison")
    if poisoned:
        del reconstructor.poison  # or other tests would meet it
    assert not poisoned


def test_npz_with_pickled_objects_is_refused_and_not_run(
    smpl_content, save_npz, tmp_path, assert_says_what_why_and_what_to_do
):
    target = tmp_path / "target"
    objects = np.array([Calls(os.system, f"touch '{target}'")], dtype=object)
    path = save_npz({**smpl_content, "v_template": objects})
    with pytest.raises(BodyError, match="was not read") as caught:
        load_body(path)
    assert not target.exists()
    assert_says_what_why_and_what_to_do(caught.value)
    with np.load(path, allow_pickle=True) as archive:
        archive["v_template"]
    assert target.exists()  # the payload works: this test can fail


FORGED_DTYPE = (
    # A dtype whose state declares eight raw bytes to be a Python object, and an array of it: numpy's own types would
    # follow the bytes as a pointer.
    b"\x80\x02}q\x00X\x0a\x00\x00\x00v_templatecnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R(K\x03U\x01|NU\x01a\x85}U\x01acnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"
    b"K\x00\x86sK\x08K\x01K\x00tb\x89U\x08AAAAAAAAtbs."
)


def test_a_forged_dtype_is_refused_before_its_bytes_become_pointers(tmp_path):
    path = tmp_path / "forged.pkl"
    path.write_bytes(FORGED_DTYPE)
    with pytest.raises(BodyError, match="not of numbers"):
        load_body(path)
