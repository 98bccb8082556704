"""What the body files' tests share: a fabricated body as a file, pickles like SMPL's, checks of what was read or said."""

import io
import pickle
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from glnet.body import load_body
from glnet.body.data import BodyData
from glnet_infer.errors import BodyError

ARRAYS = ("v_template", "shapedirs", "posedirs", "joint_regressor", "weights", "faces", "leaf_vertices")


@pytest.fixture
def save_npz(tmp_path):
    def save(content, name="body.npz") -> Path:
        np.savez(tmp_path / name, **content)
        return tmp_path / name

    return save


@pytest.fixture
def fabricated(smpl_content, save_npz) -> BodyData:
    return load_body(save_npz(smpl_content))


@pytest.fixture(scope="session")
def assert_same_body():
    """Compares all arrays of two bodies."""

    def check(found: BodyData, expected: BodyData) -> None:
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)

    return check


@pytest.fixture(scope="session")
def assert_says_what_why_and_what_to_do():
    """Checks that an error has all three parts, and the given words in its text."""

    def check(error: BodyError, *words: str) -> None:
        assert error.what
        assert error.why
        assert error.fix
        for word in words:
            assert word in str(error), str(error)

    return check


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did: as its ``str``, which Python 3 decodes with the given encoding."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, obj):
        self.write(pickle.BINSTRING + struct.pack("<i", len(obj)) + obj)

    dispatch[bytes] = save_bytes


@pytest.fixture(scope="session")
def smpl_pickle():
    """Makes a pickle as SMPL's authors did: chumpy arrays, a sparse regressor, and keys that no one needs.

    chumpy's modules exist while this runs; numpy's and scipy's go by the names that they had at the time.
    """

    def make(content, protocol=2, python2=False) -> bytes:
        modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
        for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
            setattr(modules[module], name, type(name, (), {"__module__": module}))

        def chumpy(module, name, **state):
            value = getattr(modules[module], name)()
            # What chumpy's __getstate__ leaves in, a set among it.
            own = {"_dirty_vars": set(), "_itr": None, "_make_dense": False, "_make_sparse": False, "_depends_on_deps": {}}
            value.__dict__.update(own, **state)
            return value

        document = {
            **content,
            "v_template": chumpy("chumpy.ch", "Ch", x=content["v_template"]),
            "shapedirs": chumpy(
                "chumpy.reordering",
                "Select",
                a=chumpy("chumpy.ch", "Ch", x=content["shapedirs"][::-1].copy()),
                idxs=np.arange(content["shapedirs"].size).reshape(content["shapedirs"].shape)[::-1].ravel(),
                preferred_shape=content["shapedirs"].shape,
            ),
            "J_regressor": sparse.csc_matrix(content["J_regressor"]),
            "weights": sparse.csr_matrix(content["weights"]),
            "J_regressor_prior": sparse.csc_matrix(content["J_regressor"]),
            "pose_training_info": {"comment": "a dictionary that no one needs", "count": 3},
            "bs_style": "lbs",
            "bs_type": "lrotmin",
            "vert_sym_idxs": np.arange(300)[::-1],
        }
        sys.modules.update(modules)
        try:
            stream = io.BytesIO()
            (Python2Pickler if python2 else pickle.Pickler)(stream, protocol).dump(document)
        finally:
            for name in modules:
                del sys.modules[name]
        written = stream.getvalue()
        if protocol < 4:  # there, names end with a line, and may be exchanged for longer ones
            written = written.replace(b"cnumpy._core.", b"cnumpy.core.").replace(b"cscipy.sparse._cs", b"cscipy.sparse.cs")
        return written

    return make
