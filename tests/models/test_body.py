"""SMPL-format bodies: smplx as the oracle for posing, and files that are damaged, foreign or hostile."""

import collections
import copyreg
import io
import os
import pickle
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.spatial.transform import Rotation

from glnet.body import Body, find_body, load_body
from glnet.body.files import SMPL_FILE_NAMES, BodyData
from glnet.body.pickles import BodyUnpickler
from glnet_infer.errors import BodyError
from glnet_infer.skeleton import BODY_JOINTS, PARENTS, SKELETON_JOINTS

MM = 1e-3
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


def assert_same_body(found: BodyData, expected: BodyData) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


# Posing


def smplx_posed(content, poses, betas):
    """Vertices and 24 joints by smplx in float64, from N x 72 axis-angle and N x 10 betas."""
    smplx = pytest.importorskip("smplx")
    model = smplx.SMPL(
        "",
        data_struct=smplx.utils.Struct(**content),
        num_betas=10,
        dtype=torch.float64,
        vertex_ids=collections.defaultdict(int),  # its extra joints are of no interest, and not every mesh has them
        create_betas=False,
        create_global_orient=False,
        create_body_pose=False,
        create_transl=False,
    )
    poses, betas = torch.tensor(poses), torch.tensor(betas)
    with torch.no_grad():
        out = model(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3])
    return out.vertices.numpy(), out.joints[:, :BODY_JOINTS].numpy()


def random_pose(rng, count):
    return rng.normal(scale=0.6, size=(count, 3 * BODY_JOINTS)), rng.normal(scale=1.5, size=(count, 10))


def our_posed(body, poses, betas, dtype=torch.float32):
    matrices = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, BODY_JOINTS, 3, 3)
    with torch.no_grad():
        return body.pose(torch.tensor(matrices, dtype=dtype), torch.tensor(betas, dtype=dtype))


@pytest.mark.parametrize("source", ["demo", "fabricated"])
def test_vertices_and_joints_agree_with_smplx(source, smpl_content, fabricated, rng):
    if source == "demo":
        with np.load(find_body("demo")) as archive:
            content, data = dict(archive), load_body(find_body("demo"))
    else:
        content, data = smpl_content, fabricated
        assert data.posedirs is not None
    poses, betas = random_pose(rng, 20)
    vertices, joints = smplx_posed(content, poses, betas)
    found = our_posed(Body(data), poses, betas)
    # 0.01 mm: float32 of coordinates up to 2 m over nine joints; measured 0.0003 mm.
    np.testing.assert_allclose(found.vertices, vertices, atol=0.01 * MM)
    np.testing.assert_allclose(found.joints[:, :BODY_JOINTS], joints, atol=0.01 * MM)


def test_pose_blend_shapes_matter_and_follow_local_rotations(smpl_content, fabricated, save_npz, rng):
    """The root turns the body as a whole: local rotations, and so pose blend shapes, stay what they are."""
    body = Body(fabricated)
    poses, betas = random_pose(rng, 1)
    flat = Body(load_body(save_npz({**smpl_content, "posedirs": 0 * smpl_content["posedirs"]}, "flat.npz")))
    difference = our_posed(body, poses, betas).vertices - our_posed(flat, poses, betas).vertices
    assert difference.abs().max() > 10 * MM
    turned = poses.copy()
    turned[:, :3] = 0
    root = Rotation.from_rotvec(poses[0, :3])
    pelvis = body.rest_joints(torch.tensor(betas).float())[0, 0].numpy()
    expected = root.apply(our_posed(body, turned, betas).vertices[0].numpy() - pelvis) + pelvis
    np.testing.assert_allclose(our_posed(body, poses, betas).vertices[0], expected, atol=0.01 * MM)


def test_body_without_pose_blend_shapes_is_one_with_zeros(smpl_content, save_npz):
    without = {key: value for key, value in smpl_content.items() if key != "posedirs"}
    zeros = {**smpl_content, "posedirs": np.zeros((300, 3, 207))}
    for name, content in (("without.npz", without), ("zeros.npz", zeros)):
        assert load_body(save_npz(content, name)).posedirs is None


def test_rest_joints_are_regressed_from_the_shaped_template(smpl_content, fabricated, rng):
    betas = rng.normal(size=(5, 10))
    found = Body(fabricated).rest_joints(torch.tensor(betas).float())
    shaped = smpl_content["v_template"] + np.einsum("vcb,nb->nvc", smpl_content["shapedirs"], betas)
    expected = np.concatenate(
        [
            np.einsum("jv,nvc->njc", smpl_content["J_regressor"], shaped),
            shaped[:, smpl_content["leaf_vertices"]],
        ],
        axis=1,
    )
    np.testing.assert_allclose(found, expected, atol=0.001 * MM)


def test_leaves_follow_their_parents_rigidly(fabricated, rng):
    body = Body(fabricated)
    poses, betas = random_pose(rng, 10)
    joints = our_posed(body, poses, betas).joints.double().numpy()
    rest = body.rest_joints(torch.tensor(betas).float()).double().numpy()
    local = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, BODY_JOINTS, 3, 3)
    for leaf in range(BODY_JOINTS, SKELETON_JOINTS):
        joint = PARENTS[leaf]
        rotation = np.eye(3)
        while joint >= 0:
            rotation = local[:, joint] @ rotation
            joint = PARENTS[joint]
        parent = PARENTS[leaf]
        expected = joints[:, parent] + np.einsum("nij,nj->ni", rotation, rest[:, leaf] - rest[:, parent])
        np.testing.assert_allclose(joints[:, leaf], expected, atol=0.005 * MM)


def test_body_adds_nothing_to_a_checkpoint(demo_body):
    assert not demo_body.state_dict()
    assert not list(demo_body.parameters())


# SMPL's own pickles


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did: as its ``str``, which Python 3 decodes with the given encoding."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, obj):
        self.write(pickle.BINSTRING + struct.pack("<i", len(obj)) + obj)

    dispatch[bytes] = save_bytes


def smpl_pickle(content, protocol=2, python2=False) -> bytes:
    """A pickle as SMPL's authors made it: chumpy arrays, a sparse regressor, and keys that no one needs.

    chumpy's modules exist while this runs; numpy's and scipy's go by the names that they had at the time.
    """
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


def uninstall_chumpy_and_scipy(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("chumpy", "scipy")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("chumpy", "chumpy.ch", "scipy", "scipy.sparse"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(("protocol", "python2"), [(0, False), (1, False), (2, False), (2, True), (4, False), (5, False)])
def test_smpl_pickle_gives_the_body_of_the_npz(smpl_content, fabricated, tmp_path, protocol, python2, monkeypatch):
    written = smpl_pickle(smpl_content, protocol, python2)
    uninstall_chumpy_and_scipy(monkeypatch)
    with pytest.raises(ImportError):  # as Python reads it, without the packages
        pickle.loads(written, encoding="latin1")
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(written)
    found = load_body(path)
    assert_same_body(found, fabricated)
    assert found.name == "SMPL_NEUTRAL"


def test_the_old_names_are_really_in_the_pickle(smpl_content):
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


# Damaged and foreign files


def assert_says_what_why_and_what_to_do(error: BodyError, *words: str) -> None:
    assert error.what
    assert error.why
    assert error.fix
    for word in words:
        assert word in str(error), str(error)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(smpl_content, save_npz, tmp_path, share):
    for name, written in (
        ("cut.pkl", smpl_pickle(smpl_content)),
        ("cut.npz", save_npz(smpl_content).read_bytes()),
    ):
        path = tmp_path / name
        path.write_bytes(written[: int(share * len(written))])
        with pytest.raises(BodyError) as caught:
            load_body(path)
        assert_says_what_why_and_what_to_do(caught.value, name)


@pytest.mark.parametrize("value", [[1, 2], "text", 7, None, np.zeros(3)])
def test_pickle_of_something_else_is_refused(tmp_path, value):
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(BodyError, match="not a dictionary") as caught:
        load_body(path)
    assert_says_what_why_and_what_to_do(caught.value)


def test_npz_with_pickled_objects_is_refused_and_not_run(smpl_content, save_npz, tmp_path):
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


@pytest.mark.parametrize("key", ["v_template", "shapedirs", "J_regressor", "weights", "f"])
def test_missing_key_is_named(smpl_content, save_npz, key):
    del smpl_content[key]
    with pytest.raises(BodyError) as caught:
        load_body(save_npz(smpl_content))
    assert_says_what_why_and_what_to_do(caught.value, f"lacks {key}")


WRONG = {
    "v_template": [np.zeros((300, 2)), np.zeros((10, 3)), np.zeros(300), np.float64(1), np.array(["x"] * 300)],
    "shapedirs": [np.zeros((300, 3, 9)), np.zeros((299, 3, 10)), np.zeros((300, 30)), np.float64(1)],
    "posedirs": [np.ones((300, 3, 206)), np.ones((300, 207)), np.ones((207, 900))],
    "J_regressor": [np.zeros((23, 300)), np.zeros((300, 24)), np.zeros((55, 300))],
    "weights": [np.zeros((300, 23)), np.zeros((24, 300)), np.zeros((300, 55))],
    "f": [np.zeros((5, 4)), np.zeros(9), np.array([[0, 1, 300]]), np.array([[0, 1, -1]]), np.float64(1)],
    "leaf_vertices": [np.zeros(4, int), np.zeros((5, 1), int), np.array([1, 2, 3, 4, 300]), np.array([-1, 2, 3, 4, 5])],
    "kintree_table": [np.zeros((2, 24)), np.arange(24), np.zeros((2, 52)), np.float64(1)],
}


@pytest.mark.parametrize(("key", "index"), [(key, index) for key, values in WRONG.items() for index in range(len(values))])
def test_wrong_shapes_and_indices_are_refused(smpl_content, save_npz, key, index):
    smpl_content[key] = WRONG[key][index]
    with pytest.raises(BodyError) as caught:
        load_body(save_npz(smpl_content))
    assert_says_what_why_and_what_to_do(caught.value)


def test_message_gives_the_shape_found_and_the_shape_wanted(smpl_content, save_npz):
    smpl_content["weights"] = smpl_content["weights"].T
    with pytest.raises(BodyError) as caught:
        load_body(save_npz(smpl_content))
    assert_says_what_why_and_what_to_do(caught.value, "weights", "(24, 300)", "(300, 24)")


def test_body_with_another_tree_is_refused(smpl_content, save_npz):
    table = smpl_content["kintree_table"].copy()
    table[0, 5] = 1
    with pytest.raises(BodyError) as caught:
        load_body(save_npz({**smpl_content, "kintree_table": table}))
    assert_says_what_why_and_what_to_do(caught.value, "kintree_table")


def test_body_of_another_mesh_must_say_where_its_leaves_are(smpl_content, save_npz):
    del smpl_content["leaf_vertices"]
    with pytest.raises(BodyError) as caught:
        load_body(save_npz(smpl_content))
    assert_says_what_why_and_what_to_do(caught.value, "leaf_vertices")


def test_the_6890_vertices_of_smpl_bring_hybriks_leaves(smpl_content, save_npz):
    count = 6890
    content = {
        "v_template": np.zeros((count, 3)),
        "shapedirs": np.zeros((count, 3, 10)),
        "J_regressor": np.full((24, count), 1 / count),
        "weights": np.full((count, 24), 1 / 24),
        "f": smpl_content["f"],
    }
    body = load_body(save_npz(content, "any-name.npz"))
    assert body.leaf_vertices.tolist() == [411, 2445, 5905, 3216, 6617]
    assert body.name == "smpl"


def test_only_the_first_ten_of_300_shape_components_are_used(smpl_content, fabricated, save_npz, rng):
    more = np.concatenate([smpl_content["shapedirs"], rng.normal(size=(300, 3, 290))], axis=-1)
    assert_same_body(load_body(save_npz({**smpl_content, "shapedirs": more}, "more.npz")), fabricated)


@pytest.mark.parametrize("suffix", [".txt", ".npy", ".obj", ""])
def test_other_suffixes_are_refused(tmp_path, suffix):
    path = tmp_path / f"body{suffix}"
    path.write_bytes(b"something")
    with pytest.raises(BodyError) as caught:
        load_body(path)
    assert_says_what_why_and_what_to_do(caught.value, repr(suffix), ".pkl", ".npz")


def test_missing_file_is_named(tmp_path):
    for path in (tmp_path / "missing.pkl", tmp_path):
        with pytest.raises(BodyError) as caught:
            load_body(path)
        assert str(path) in caught.value.what
        assert caught.value.fix


# Finding files


@pytest.fixture
def no_smpl(tmp_path, monkeypatch):
    """A machine without SMPL's files: an empty working directory and home."""
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GLNET_BODY_DIR", raising=False)
    return tmp_path


def test_demo_body_is_always_there(no_smpl):
    assert load_body(find_body("demo")).name == "demo"


def test_missing_smpl_tells_names_directories_and_where_to_register(no_smpl, monkeypatch):
    monkeypatch.setenv("GLNET_BODY_DIR", "/somewhere/else")
    with pytest.raises(BodyError) as caught:
        find_body("smpl")
    assert_says_what_why_and_what_to_do(
        caught.value,
        *SMPL_FILE_NAMES,
        "/somewhere/else",
        str(no_smpl / "work"),
        str(no_smpl / "home" / ".glnet" / "bodies"),
        "$GLNET_BODY_DIR",
        "https://smpl.is.tue.mpg.de",
        "--body demo",
    )


@pytest.mark.parametrize("name", SMPL_FILE_NAMES)
def test_smpl_is_found_in_the_directory_of_the_variable(no_smpl, monkeypatch, name):
    (no_smpl / name).touch()
    with pytest.raises(BodyError):
        find_body("smpl")
    monkeypatch.setenv("GLNET_BODY_DIR", str(no_smpl))
    assert find_body("smpl") == no_smpl / name


def test_directory_of_the_variable_comes_first(no_smpl, monkeypatch):
    (no_smpl / "work" / SMPL_FILE_NAMES[0]).touch()
    assert find_body("smpl") == no_smpl / "work" / SMPL_FILE_NAMES[0]
    (no_smpl / SMPL_FILE_NAMES[1]).touch()
    monkeypatch.setenv("GLNET_BODY_DIR", str(no_smpl))
    assert find_body("smpl") == no_smpl / SMPL_FILE_NAMES[1]


def test_path_of_a_body_is_taken_as_it_is(no_smpl):
    path = no_smpl / "mine.npz"
    path.touch()
    assert find_body(str(path)) == path
    with pytest.raises(BodyError, match="There is no body file"):
        find_body(str(no_smpl / "other.npz"))


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


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda c: c["v_template"].__setitem__((0, 0), np.nan), "v_template is not finite"),
        (lambda c: c["weights"].__setitem__(0, 0.0), "rows of weights"),
        (lambda c: c.__setitem__("leaf_vertices", np.array([0, 1, 2, 3, 10**6])), "leaf_vertices"),
        (lambda c: c.__setitem__("f", c["f"].astype(np.int64) + 2**32), "triangles"),
    ],
    ids=["nan", "weightless", "leaf", "wrapped faces"],
)
def test_implausible_values_are_refused(smpl_content, save_npz, change, word):
    content = {key: np.array(value) for key, value in smpl_content.items()}
    change(content)
    with pytest.raises(BodyError, match=word):
        load_body(save_npz(content, "implausible.npz"))
