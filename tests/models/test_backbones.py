"""Public HRNet weights, in the forms that are handed around."""

import dataclasses

import pytest
import torch

from glnet.backbones import read_backbone
from glnet.checkpoint import Checkpoint
from glnet.hrnet import HRNet, initialize
from glnet_infer.errors import CheckpointError

CLASSIFIER = {"classifier.weight": torch.zeros(1000, 64), "classifier.bias": torch.zeros(1000)}
POSE_HEAD = {"final_layer.weight": torch.zeros(17, 8, 1, 1), "final_layer.bias": torch.zeros(17)}
NOT_IN_POSE = ("incre_modules.", "downsamp_modules.", "final_layer.", "stage4.0.fuse_layers.")


@pytest.fixture(scope="module")
def source(tiny_config):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = HRNet(tiny_config.backbone)
        initialize(backbone)
    return backbone.eval()


@pytest.fixture
def saved(tmp_path):
    def save(content):
        torch.save(content, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return save


def with_prefix(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "preact.", "model.backbone.", "module.model."])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model"])
def test_classification_weights_load_in_any_wrapper(source, tiny_config, saved, prefix, wrapper):
    content = with_prefix({**source.state_dict(), **CLASSIFIER}, prefix)
    weights = read_backbone(saved({wrapper: content, "epoch": 3} if wrapper else content), tiny_config.backbone)
    assert weights.untrained == ()
    assert any("2 tensors that are not the backbone's are left aside" in note for note in weights.notes)
    other = HRNet(tiny_config.backbone).eval()
    images = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(source(images).pooled, other(images).pooled)
    weights.load_into(other)
    ours, theirs = other(images), source(images)
    assert torch.equal(ours.pixels, theirs.pixels) and torch.equal(ours.pooled, theirs.pooled)
    assert len(ours.coarser) == 3 and all(map(torch.equal, ours.coarser, theirs.coarser))


def test_pose_weights_lack_the_pooled_feature_and_say_so(source, tiny_config, saved):
    state = {name: value for name, value in source.state_dict().items() if not name.startswith(NOT_IN_POSE)}
    weights = read_backbone(saved({**state, **POSE_HEAD}), tiny_config.backbone)
    assert weights.untrained and all(name.startswith(NOT_IN_POSE) for name in weights.untrained)
    assert any("start untrained" in note for note in weights.notes)
    other = HRNet(tiny_config.backbone)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    weights.load_into(other)
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name] if name not in state else state[name]), name


def test_a_whole_network_gives_its_backbone(shared_lively_recovery, tiny_config, tmp_path):
    network = shared_lively_recovery.network
    Checkpoint.of(network).save(tmp_path / "own.pth")
    weights = read_backbone(tmp_path / "own.pth", tiny_config.backbone)
    assert all(torch.equal(value, network.backbone.state_dict()[name]) for name, value in weights.state.items())
    assert weights.untrained == ()


def test_hybriks_pooled_layer_has_another_name(source, tiny_config, saved):
    renamed = {name.replace("final_layer.", "final_feat_layer."): value for name, value in source.state_dict().items()}
    heat_map = {"final_layer.weight": torch.zeros(1856, 8, 1, 1), "final_layer.bias": torch.zeros(1856)}
    weights = read_backbone(saved(with_prefix({**renamed, **heat_map}, "preact.")), tiny_config.backbone)
    assert weights.untrained == ()


def test_weights_that_would_not_load_are_refused(source, tiny_config, saved):
    state = source.state_dict()
    for content, words in (
        (
            {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1), "fc.weight": torch.zeros(10, 5)},
            ("holds no backbone", "missing"),
        ),
        ({name: value for name, value in state.items() if not name.startswith("stage3.")}, ("holds no backbone", "stage3")),
        ({**state, "conv1.weight": torch.zeros(64, 3, 7, 7)}, ("do not fit", "conv1.weight is (64, 3, 7, 7)")),
        ({**state, "bn1.running_var": -torch.ones(64)}, ("variance below zero", "bn1.running_var")),
    ):
        with pytest.raises(CheckpointError) as error:
            read_backbone(saved(content), tiny_config.backbone)
        assert all(word in str(error.value) for word in words), error.value
    wider = dataclasses.replace(tiny_config.backbone, feature_channels=8)
    with pytest.raises(CheckpointError, match="do not fit the backbone"):
        read_backbone(saved(state), wider)
