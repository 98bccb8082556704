"""The way in of public checkpoints: their files, as people have them, are found, loaded and said what they are."""

import numpy as np
import pytest
import torch
from public_layouts import state_dict

from glnet.adopted.hybrik import HybrikResNet
from glnet_export.pipeline import _load
from glnet_export.sources import Source
from glnet_infer.bundle import record_file
from glnet_infer.errors import CheckpointError
from glnet_infer.skeleton import BODY_JOINTS, PARENTS

FORM = "hybrik-resnet-34"


@pytest.fixture(scope="module")
def state():
    return state_dict(FORM, seed=4)


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory):
    """The weights, bare, in a file."""
    path = tmp_path_factory.mktemp("public") / "hybrik_res34.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def body(state, tmp_path_factory):
    """A file with SMPL's sizes and names, and the surface that the checkpoint's copy of SMPL has."""
    rng, count = np.random.default_rng(6), 6890
    weights, regressor = rng.random((count, BODY_JOINTS)) ** 8, rng.random((BODY_JOINTS, count))
    path = tmp_path_factory.mktemp("bodies") / "SMPL_NEUTRAL.npz"
    np.savez(
        path,
        v_template=state["smpl.v_template"].numpy(),
        shapedirs=state["smpl.shapedirs"].numpy(),
        J_regressor=regressor / regressor.sum(1, keepdims=True),
        weights=weights / weights.sum(1, keepdims=True),
        kintree_table=np.array([[2**32 - 1, *PARENTS[1:BODY_JOINTS]], range(BODY_JOINTS)], dtype=np.uint32),
        f=rng.integers(0, count, (500, 3)).astype(np.uint32),
    )
    return path


WRAPPINGS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "optimizer": {"state": {}, "param_groups": []}},
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_public_file_loads_in_every_wrapping(state, body, tmp_path, wrapping):
    path = tmp_path / "anything.bin"
    torch.save(WRAPPINGS[wrapping](state), path)
    loaded = Source(path, body=str(body)).load()
    network = loaded.recovery.network
    for ours, theirs in (("decphi.weight", "decphi.weight"), ("volume.bias", "final_layer.bias")):
        assert torch.equal(network.state_dict()[ours], state[theirs])
    assert not network.training and len(loaded.recovery.body.data.v_template) == 6890
    assert loaded.network.name == FORM and loaded.network.weights == "checkpoint"
    assert (loaded.network.source, loaded.network.sha256) == ("anything.bin", record_file(path).sha256)
    assert loaded.network.config["adopted"] == FORM and loaded.network.weights_key == ""
    assert loaded.network.origin == "https://github.com/jeffffffli/HybrIK"
    assert "MIT" in loaded.network.terms and "non-commercial" in loaded.network.terms
    assert loaded.network.terms in loaded.notes
    said = " ".join(loaded.notes)
    assert "HybrIK ResNet-34, https://github.com/jeffffffli/HybrIK" in said and "WARNING" not in said
    assert ("weights of 'model'" in said) == (wrapping == "model")
    assert ("'module.' taken off" in said) == (wrapping == "module.")


def test_the_export_prints_the_terms_and_warns_of_another_smpl(state, body, checkpoint, tmp_path):
    other = tmp_path / "SMPL_NEUTRAL.npz"
    with np.load(body) as arrays:
        np.savez(other, **{**arrays, "v_template": arrays["v_template"] + 1e-3})
    for given, words in (
        (body, None),
        (other, "WARNING: its weights were trained with another version of SMPL: v_template differs by up to 0.001"),
        ("demo", "WARNING: its weights were trained with a body of another mesh: v_template is (6890, 3) there"),
    ):
        said = []
        _load(Source(checkpoint, body=str(given)), type("Report", (), {"say": said.append}))
        assert HybrikResNet.terms in said
        about = [line for line in said if "its weights were trained with" in line]
        assert about == ([] if words is None else [words])


@pytest.mark.parametrize("config", ["w48", FORM, "no such configuration"])
def test_a_configuration_beside_a_known_network_is_refused(checkpoint, config):
    with pytest.raises(CheckpointError, match="is a checkpoint of HybrIK ResNet-34") as error:
        Source(checkpoint, config=config, body="demo").load()
    assert error.value.fix == "leave --config out"


def test_only_networks_with_a_flip_test_get_one(checkpoint, small_checkpoint):
    loaded = Source(checkpoint, body="demo", flip_test=True).load()
    assert loaded.recovery.flip_test and loaded.network.config["flip_test"] is True
    with pytest.raises(CheckpointError, match="has no flip test") as error:
        Source(small_checkpoint, flip_test=True).load()
    assert error.value.fix == "leave --flip-test out"


def test_of_several_weights_the_others_are_named_and_the_choice_is_recorded(state, tmp_path):
    path, name = tmp_path / "both.pth", "decshape.bias"
    torch.save({"ema": {**state, name: state[name] + 1}, "state_dict": state}, path)
    raw, averaged = (Source(path, body="demo", weights_key=key).load() for key in (None, "ema"))
    assert "'ema' would fit too: --weights-key chooses" in raw.notes and raw.network.weights_key == ""
    assert not any("would fit" in note for note in averaged.notes) and averaged.network.weights_key == "ema"
    for loaded, wanted in ((raw, state[name]), (averaged, state[name] + 1)):
        assert torch.equal(loaded.recovery.network.state_dict()[name], wanted)
