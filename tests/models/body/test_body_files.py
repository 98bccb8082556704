"""SMPL-format bodies as files: damaged and foreign ones are refused, and files are found."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

from glnet.body import find_body, load_body
from glnet.body.files import SMPL_FILE_NAMES
from glnet_infer.errors import BodyError

# Damaged and foreign files


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(
    smpl_content, save_npz, tmp_path, share, smpl_pickle, assert_says_what_why_and_what_to_do
):
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
def test_pickle_of_something_else_is_refused(tmp_path, value, assert_says_what_why_and_what_to_do):
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(BodyError, match="not a dictionary") as caught:
        load_body(path)
    assert_says_what_why_and_what_to_do(caught.value)


@pytest.mark.parametrize("key", ["v_template", "shapedirs", "J_regressor", "weights", "f"])
def test_missing_key_is_named(smpl_content, save_npz, key, assert_says_what_why_and_what_to_do):
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
def test_wrong_shapes_and_indices_are_refused(smpl_content, save_npz, key, index, assert_says_what_why_and_what_to_do):
    smpl_content[key] = WRONG[key][index]
    with pytest.raises(BodyError) as caught:
        load_body(save_npz(smpl_content))
    assert_says_what_why_and_what_to_do(caught.value)


def test_message_gives_the_shape_found_and_the_shape_wanted(smpl_content, save_npz, assert_says_what_why_and_what_to_do):
    smpl_content["weights"] = smpl_content["weights"].T
    with pytest.raises(BodyError) as caught:
        load_body(save_npz(smpl_content))
    assert_says_what_why_and_what_to_do(caught.value, "weights", "(24, 300)", "(300, 24)")


def test_body_with_another_tree_is_refused(smpl_content, save_npz, assert_says_what_why_and_what_to_do):
    table = smpl_content["kintree_table"].copy()
    table[0, 5] = 1
    with pytest.raises(BodyError) as caught:
        load_body(save_npz({**smpl_content, "kintree_table": table}))
    assert_says_what_why_and_what_to_do(caught.value, "kintree_table")


def test_body_of_another_mesh_must_say_where_its_leaves_are(smpl_content, save_npz, assert_says_what_why_and_what_to_do):
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


def test_only_the_first_ten_of_300_shape_components_are_used(smpl_content, fabricated, save_npz, rng, assert_same_body):
    more = np.concatenate([smpl_content["shapedirs"], rng.normal(size=(300, 3, 290))], axis=-1)
    assert_same_body(load_body(save_npz({**smpl_content, "shapedirs": more}, "more.npz")), fabricated)


@pytest.mark.parametrize("suffix", [".txt", ".npy", ".obj", ""])
def test_other_suffixes_are_refused(tmp_path, suffix, assert_says_what_why_and_what_to_do):
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


# Finding files


@pytest.fixture
def no_smpl(monkeypatch):
    """A machine without SMPL's files: an empty working directory and home, of short names that no message shortens."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "work").mkdir()
        (folder / "home").mkdir()
        with monkeypatch.context() as patch:
            patch.chdir(folder / "work")
            patch.setenv("HOME", str(folder / "home"))
            patch.setenv("USERPROFILE", str(folder / "home"))  # its name on Windows
            patch.delenv("GLNET_BODY_DIR", raising=False)
            yield folder


def test_demo_body_is_always_there(no_smpl):
    assert load_body(find_body("demo")).name == "demo"


def test_missing_smpl_says_where_it_may_be(no_smpl, monkeypatch, assert_says_what_why_and_what_to_do):
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
