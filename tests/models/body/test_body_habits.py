"""Body files as people have them: other classes beside the numbers, sparse matrices of all forms, other units, models."""

import itertools
import pickle
import re
import string
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from glnet.body import load_body
from glnet.body.files import find_body
from glnet_infer.errors import BodyError
from glnet_infer.skeleton import PARENTS, SMPL_LEAF_VERTICES


def repr_of(value):
    return type(value).__name__


@pytest.fixture
def save_pickle(tmp_path):
    def save(content, protocol=2, name="body.pkl"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
        return path

    return save


@pytest.fixture
def foreign(monkeypatch):
    """Makes an object of a class that does not exist where the file is read."""

    def make(module, name, state, base=object):
        parts = module.split(".")
        for end in range(1, len(parts)):
            if ".".join(parts[:end]) not in sys.modules:
                monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(parts[0]))
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        kind = type(name, (base,), {"__module__": module})
        setattr(sys.modules[module], name, kind)
        made = kind()
        (made if base is dict else made.__dict__).update(state)
        return made

    return make


# Other classes


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "name",
    ["chumpy.linalg.MatVecMult", "chumpy.reordering.transpose", "scipy.sparse.lil.lil_matrix", "psbody.mesh.Mesh", "a.B"],
)
def test_unneeded_keys_may_hold_objects_of_any_class(
    smpl_content, fabricated, save_pickle, foreign, assert_same_body, protocol, name
):
    module, _, kind = name.rpartition(".")
    inner = foreign(module, kind, {"x": np.arange(3), "inner": [object(), {1, 2}]})
    path = save_pickle({**smpl_content, "pose": inner, "deep": [{"a": (inner,)}]}, protocol)
    assert_same_body(load_body(path), fabricated)


def test_a_needed_key_that_rests_on_one_is_refused_by_its_name(smpl_content, save_pickle, foreign, monkeypatch):
    smpl_content["shapedirs"] = foreign("chumpy.linalg", "MatVecMult", {"x": np.arange(3)})
    path = save_pickle(smpl_content)
    with pytest.raises(BodyError, match=r"shapedirs: it is a chumpy\.linalg\.MatVecMult") as caught:
        load_body(path)
    assert "numpy.savez" in caught.value.fix


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(
    "beside", [range(3), KeyError("x"), type(None), string.Formatter(), itertools.count(3)], ids=repr_of
)
def test_unneeded_keys_may_hold_objects_of_pythons_own_classes(
    smpl_content, fabricated, save_pickle, assert_same_body, protocol, beside
):
    assert_same_body(load_body(save_pickle({**smpl_content, "beside": beside}, protocol)), fabricated)


# Sparse matrices

FORMS = ["coo_matrix", "csr_matrix", "csc_matrix", "dok_matrix", "coo_array", "csr_array", "csc_array", "dok_array"]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("form", FORMS)
def test_regressors_and_weights_may_be_sparse_in_any_form(
    smpl_content, fabricated, save_pickle, assert_same_body, form, protocol
):
    make = getattr(sparse, form)
    content = {**smpl_content, "J_regressor": make(smpl_content["J_regressor"]), "weights": make(smpl_content["weights"])}
    assert_same_body(load_body(save_pickle(content, protocol)), fabricated)


def test_entries_of_one_place_are_added_as_scipy_does(smpl_content, fabricated, save_pickle, assert_same_body):
    dense = sparse.coo_matrix(smpl_content["J_regressor"])
    halves = [np.concatenate([part, part]) for part in (dense.data / 2, dense.row, dense.col)]
    doubled = sparse.coo_matrix((halves[0], (halves[1], halves[2])), shape=dense.shape)
    assert_same_body(load_body(save_pickle({**smpl_content, "J_regressor": doubled})), fabricated)


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("old", ["dok", "coo"])
def test_forms_of_older_scipy_are_read(smpl_content, fabricated, save_pickle, foreign, assert_same_body, old, protocol):
    """``dok`` was a dictionary itself, ``coo`` had ``row`` and ``col``."""
    dense = sparse.coo_matrix(smpl_content["J_regressor"])
    if old == "dok":
        entries = {
            (int(row), int(column)): value for row, column, value in zip(dense.row, dense.col, dense.data, strict=True)
        }
        matrix = foreign("scipy.sparse.dok", "dok_matrix", entries, base=dict)
        matrix.__dict__["_shape"] = dense.shape
    else:
        state = {"row": dense.row, "col": dense.col, "data": dense.data, "_shape": dense.shape}
        matrix = foreign("scipy.sparse.coo", "coo_matrix", state)
    assert_same_body(load_body(save_pickle({**smpl_content, "J_regressor": matrix}, protocol)), fabricated)


@pytest.mark.parametrize("change", ["shape", "beyond", "negative", "starts", "fractions"])
def test_damaged_sparse_matrices_are_refused(smpl_content, save_pickle, change):
    matrix = sparse.csr_matrix(smpl_content["J_regressor"])
    if change == "shape":
        matrix._shape = (10**9, 3)
    elif change == "beyond":
        matrix.indices[3] = 300
    elif change == "negative":
        matrix.indices[3] = -1
    elif change == "starts":
        matrix.indptr[5] = 10**6
    else:
        matrix.indices = matrix.indices + 0.5
    with pytest.raises(BodyError, match="J_regressor"):
        load_body(save_pickle({**smpl_content, "J_regressor": matrix}))


# Keys, lists, archives


def test_keys_may_be_bytes(smpl_content, fabricated, save_pickle, assert_same_body):
    assert_same_body(load_body(save_pickle({key.encode(): value for key, value in smpl_content.items()})), fabricated)


@pytest.mark.parametrize("protocol", [0, 2])
def test_numbers_may_be_lists(smpl_content, fabricated, save_pickle, assert_same_body, protocol):
    lists = {key: smpl_content[key].tolist() for key in ("v_template", "f", "kintree_table", "leaf_vertices")}
    lists["weights"] = [row.astype(np.float64) for row in smpl_content["weights"]]  # rows of numpy's
    assert_same_body(load_body(save_pickle({**smpl_content, **lists}, protocol)), fabricated)


def test_an_archive_may_hold_objects_beside_what_is_needed(smpl_content, fabricated, save_npz, assert_same_body):
    beside = {"joint2num": np.array({"Pelvis": 0}, dtype=object), "part": np.array([None, "x"], dtype=object)}
    assert_same_body(load_body(save_npz({**smpl_content, **beside}, "beside.npz")), fabricated)


def test_a_needed_object_in_an_archive_says_how_to_convert_it(smpl_content, save_npz):
    matrix = np.array(sparse.csc_matrix(smpl_content["J_regressor"]), dtype=object)
    with pytest.raises(BodyError, match="J_regressor is an array of Python objects") as caught:
        load_body(save_npz({**smpl_content, "J_regressor": matrix}, "sparse.npz"))
    assert "toarray()" in caught.value.fix


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ">f8"])
def test_numbers_may_have_any_width(smpl_content, save_npz, dtype):
    template = smpl_content["v_template"].astype(dtype)
    found = load_body(save_npz({**smpl_content, "v_template": template}, "width.npz"))
    np.testing.assert_array_equal(found.v_template, template.astype(np.float64))


INDICES = ("f", "kintree_table", "leaf_vertices")


@pytest.fixture
def smpl_indices(smpl_content):
    """The body's whole numbers by their keys; those of the tree as in SMPL's own files, where the root has none."""
    parents = np.array([2**32 - 1, *PARENTS[1:24]], np.uint32)
    content = {**smpl_content, "kintree_table": np.stack([parents, np.arange(24, dtype=np.uint32)])}
    return content | {key: np.asarray(content[key]) for key in INDICES}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.uint16, ">f8", np.int32])
@pytest.mark.parametrize("key", INDICES)
def test_indices_may_be_whole_numbers_of_any_type(smpl_indices, save_npz, assert_same_body, key, dtype):
    whole = smpl_indices[key].astype(np.int64)
    content = {**smpl_indices, key: np.where(whole == 2**32 - 1, 0, whole).astype(dtype)}
    assert_same_body(load_body(save_npz(content, "indices.npz")), load_body(save_npz(smpl_indices)))


@pytest.mark.parametrize("value", [0.5, -0.25, np.nan, np.inf, 2.0**53, 1e300])
@pytest.mark.parametrize("key", INDICES)
def test_indices_that_are_no_whole_numbers_are_refused(smpl_indices, save_npz, key, value):
    wrong = smpl_indices[key].astype(np.float64)
    wrong.flat[1] += value
    with pytest.raises(BodyError, match=f"{key} does not hold whole numbers"):
        load_body(save_npz({**smpl_indices, key: wrong}, "indices.npz"))


@pytest.mark.parametrize("key", INDICES)
def test_true_and_false_are_no_indices(smpl_indices, save_npz, key):
    with pytest.raises(BodyError, match=f"{key} does not hold whole numbers"):
        load_body(save_npz({**smpl_indices, key: smpl_indices[key] > 3}, "indices.npz"))


# Bodies that are not what they should be


@pytest.fixture(scope="module")
def demo_content():
    with np.load(find_body("demo")) as archive:
        return dict(archive)


def turned(content, matrix):
    """The body in other axes: all that is a direction is turned."""
    found = {**content, "v_template": content["v_template"] @ matrix.T}
    return found | {
        key: np.einsum("ij,vjk->vik", matrix, content[key]) for key in ("shapedirs", "posedirs") if key in content
    }


ODD = {
    "centimetres": (lambda content: turned(content, np.eye(3) * 100), "look like centimetres"),
    "millimetres": (lambda content: turned(content, np.eye(3) * 1000), "look like millimetres"),
    "half": (lambda content: turned(content, np.eye(3) * 0.3), "m high"),
    "z up": (lambda content: turned(content, np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])), r"towards \+z of its pelvis"),
    "upside down": (lambda content: turned(content, np.diag([1.0, -1, -1])), "towards -y of its pelvis"),
    "backwards": (lambda content: turned(content, np.diag([-1.0, 1, -1])), "does not face"),
    "to a side": (lambda content: turned(content, np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])), "faces to a side"),
    "mirrored": (lambda content: turned(content, np.diag([-1.0, 1, 1])), "look inwards"),
    "inside out": (lambda content: {**content, "f": content["f"][:, ::-1]}, "look inwards"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_about_a_body_is_noted(demo_content, save_npz, kind):
    change, words = ODD[kind]
    notes = load_body(save_npz(change(demo_content), "odd.npz")).notes
    assert any(re.search(words, note) for note in notes), notes


def test_nothing_is_odd_about_the_demo_body(demo_content, save_npz):
    assert load_body(find_body("demo")).notes == ()
    assert load_body(save_npz(demo_content, "copy.npz")).notes == ()


@pytest.mark.parametrize(
    "joints, vertices, name", [(55, 10475, "SMPL-X"), (52, 6890, "SMPL-H"), (16, 778, "MANO"), (5, 5023, "FLAME")]
)
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_other_models_are_refused_by_their_names(save_npz, save_pickle, joints, vertices, name, suffix):
    content = {
        "v_template": np.zeros((vertices, 3)),
        "shapedirs": np.zeros((vertices, 3, 10)),
        "J_regressor": np.full((joints, vertices), 1 / vertices),
        "weights": np.full((vertices, joints), 1 / joints),
        "f": np.zeros((2, 3), np.uint32),
    }
    with pytest.raises(BodyError, match=f"a body of {name}, not of SMPL") as caught:
        load_body(save_npz(content) if suffix == ".npz" else save_pickle(content))
    assert str(joints) in caught.value.why


@pytest.mark.parametrize("vertices, name", [(10475, "SMPL-X"), (778, "MANO"), (5023, "FLAME")])
def test_files_of_other_models_that_lack_the_joints_are_named_by_their_vertices(save_npz, vertices, name):
    with pytest.raises(BodyError, match=f"a body of {name}, not of SMPL") as caught:
        load_body(save_npz({"v_template": np.zeros((vertices, 3)), "f": np.zeros((2, 3), np.uint32)}))
    assert str(vertices) in caught.value.why


def test_a_file_of_eight_shape_components_is_told_which_has_ten(smpl_content, save_npz):
    smpl_content["shapedirs"] = smpl_content["shapedirs"][..., :8]
    with pytest.raises(BodyError, match="too few shape components") as caught:
        load_body(save_npz(smpl_content))
    assert "it has 8" in caught.value.why
    assert "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl" in caught.value.fix


@pytest.mark.parametrize(
    "file, name",
    [
        ("SMPL_MALE.npz", "smpl-male"),
        ("SMPL_FEMALE.npz", "smpl-female"),
        ("basicmodel_m_lbs_10_207_0_v1.1.0.npz", "smpl-male"),
        ("basicModel_f_lbs_10_207_0_v1.0.0.npz", "smpl-female"),
        ("female/model.npz", "smpl-female"),
        ("male/model.npz", "smpl-male"),
        ("male/SMPL_NEUTRAL.npz", "smpl"),
        ("SMPL_NEUTRAL.npz", "smpl"),
        ("basicmodel_neutral_lbs_10_207_0_v1.1.0.npz", "smpl"),
        ("mine.npz", "smpl"),
        ("malefactor.npz", "smpl"),
    ],
)
def test_smpls_male_and_female_bodies_have_names_of_their_own(tmp_path, file, name):
    vertices = 6890
    path = tmp_path / "work" / file
    path.parent.mkdir(parents=True)
    np.savez(
        path,
        v_template=np.zeros((vertices, 3)),
        shapedirs=np.zeros((vertices, 3, 10)),
        J_regressor=np.full((24, vertices), 1 / vertices),
        weights=np.full((vertices, 24), 1 / 24),
        f=np.zeros((2, 3), np.uint32),
    )
    found = load_body(path)
    assert found.name == name
    assert found.leaf_vertices.tolist() == list(SMPL_LEAF_VERTICES)


@pytest.mark.parametrize(
    "name, file", [("smpl-male", "SMPL_MALE.pkl"), ("smpl-female", "basicmodel_f_lbs_10_207_0_v1.1.0.pkl")]
)
def test_they_are_found_by_these_names(tmp_path, monkeypatch, name, file):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLNET_BODY_DIR", str(tmp_path))
    with pytest.raises(BodyError, match=name):
        find_body(name)
    (tmp_path / file).touch()
    assert find_body(name) == tmp_path / file
