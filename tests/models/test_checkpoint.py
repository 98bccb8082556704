"""Checkpoints and configurations: what is written is what is read, and what cannot be used is refused with a reason."""

import dataclasses
import errno
import io
import json
import os
import pickle

import pytest
import torch

from glnet.checkpoint import Checkpoint
from glnet.config import PRESETS, GLNetConfig, HRNetConfig, load_config
from glnet.network import GLNet
from glnet_infer.contract import CropSpec
from glnet_infer.errors import CheckpointError, GlnetError, OutputError
from glnet_infer.files import Replacement


@pytest.fixture
def checkpoint(recovery):
    return Checkpoint.of(recovery.network)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.pth"


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.config == expected.config
    assert found.state.keys() == expected.state.keys()
    for name, value in expected.state.items():
        assert torch.equal(found.state[name], value), name


def refused(path, config=None) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.load(path, config)
    assert caught.value.what
    assert caught.value.why or caught.value.fix
    return caught.value


# Round trips


def test_checkpoint_comes_back_from_its_file(checkpoint, path):
    checkpoint.save(path)
    assert_same(Checkpoint.load(path), checkpoint)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_loaded_network_computes_the_same(recovery, checkpoint, path, random_crops):
    checkpoint.save(path)
    network = Checkpoint.load(path).network()
    assert not network.training
    with torch.no_grad():
        for ours, theirs in zip(network.select(random_crops(2)), recovery.network.select(random_crops(2)), strict=True):
            assert torch.equal(ours, theirs)


def test_own_configuration_may_be_given_again(checkpoint, path):
    checkpoint.save(path)
    assert_same(Checkpoint.load(path, checkpoint.config), checkpoint)


def test_extra_values_are_stored_and_cannot_replace_the_checkpoints_own(checkpoint, path):
    checkpoint.save(path, epoch=12, metrics={"mpjpe_mm": 66.3}, version=99)
    document = torch.load(path, weights_only=True)
    assert document["epoch"] == 12
    assert document["metrics"] == {"mpjpe_mm": 66.3}
    assert_same(Checkpoint.load(path), checkpoint)


def test_a_full_disk_is_called_so(checkpoint, path, monkeypatch):
    """torch speaks of its archive then."""

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Replacement, "begin", lambda _: Full())
    with pytest.raises(OutputError, match="No space left"):
        checkpoint.save(path)


def test_failed_save_leaves_the_older_file(checkpoint, path, monkeypatch):
    checkpoint.save(path)

    def fail(_document, target):
        target.write(b"half of a file")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match="disk full"):
        checkpoint.save(path)
    assert_same(Checkpoint.load(path), checkpoint)


def test_checkpoint_of_a_network_stays_as_it_was_when_training_goes_on(recovery):
    checkpoint = Checkpoint.of(recovery.network)
    before = checkpoint.state["confidence.bias"].clone()
    with torch.no_grad():
        recovery.network.confidence.bias += 1
    assert torch.equal(checkpoint.state["confidence.bias"], before)


# Bare state dicts


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_bare_state_dict_loads_with_a_configuration(checkpoint, path, prefix, wrapped):
    state = {prefix + name: value for name, value in checkpoint.state.items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    found = Checkpoint.load(path, checkpoint.config)
    assert_same(found, checkpoint)
    assert isinstance(found.network(), GLNet)


def test_bare_state_dict_without_configuration_asks_for_one(checkpoint, path):
    torch.save(checkpoint.state, path)
    assert "--config" in refused(path).fix


@pytest.mark.parametrize("document", [{}, {"epoch": 1}, [1, 2], "text", torch.zeros(3), {"state_dict": {"a": 1}}])
def test_files_without_a_state_dict_are_refused(path, tiny_config, document):
    torch.save(document, path)
    assert "state dict" in refused(path, tiny_config).why


# Weights that do not fit


def test_weights_of_another_architecture_are_named_with_examples(checkpoint):
    config = dataclasses.replace(checkpoint.config, pixel_channels=32, local_encoding=False, name="other")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(config, checkpoint.state).network()
    text = str(caught.value)
    assert "'other'" in text
    assert "unknown: heads.parts.bias, heads.parts.weight" in text or "unknown: " in text
    assert "wrong shape: " in text
    assert "not (32" in text
    assert "more" in text
    assert "--config" in caught.value.fix


def test_missing_weights_are_named(checkpoint):
    state = {name: value for name, value in checkpoint.state.items() if not name.startswith("coarse.")}
    with pytest.raises(CheckpointError, match=r"missing: coarse\.bias, coarse\.weight"):
        Checkpoint(checkpoint.config, state).network()


def test_another_configuration_than_the_files_own_is_refused(checkpoint, path):
    checkpoint.save(path)
    error = refused(path, dataclasses.replace(checkpoint.config, mean=(0.5, 0.5, 0.5)))
    assert "'tiny'" in error.why


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_other_versions_are_refused(checkpoint, path, version):
    checkpoint.save(path)
    document = torch.load(path, weights_only=True)
    torch.save({**document, "version": version}, path)
    assert str(version) in refused(path).what


@pytest.mark.parametrize("key", ["config", "state_dict"])
@pytest.mark.parametrize("value", [None, 7, "absent"])
def test_incomplete_checkpoints_are_refused(checkpoint, path, key, value):
    checkpoint.save(path)
    document = {**torch.load(path, weights_only=True), key: value}
    if value == "absent":
        del document[key]
    torch.save(document, path)
    with pytest.raises(CheckpointError):
        Checkpoint.load(path).network()


# Files that are hostile, damaged or missing


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("kind", ["checkpoint", "plain pickle", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(checkpoint, path, tmp_path, kind):
    target = tmp_path / "target"
    document = {"format": "glnet-checkpoint", "state_dict": checkpoint.state, "extra": Payload(target)}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(Payload(target), protocol=2))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=kind == "checkpoint")
    error = refused(path, checkpoint.config)
    assert not target.exists()
    assert "code" in error.fix
    (pickle.loads(path.read_bytes()) if kind == "plain pickle" else torch.load(path, weights_only=False))
    assert target.exists()  # the payload works: this test can fail


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("size", [0, 1, 150, 0.5, 0.999])
def test_truncated_files_are_refused(checkpoint, path, size, legacy):
    torch.save(checkpoint.state, path, _use_new_zipfile_serialization=not legacy)
    written = path.read_bytes()
    path.write_bytes(written[: size if isinstance(size, int) else int(size * len(written))])
    assert str(path) in refused(path, checkpoint.config).what


def test_missing_file_and_directory_are_named(tmp_path):
    for missing in (tmp_path / "none.pth", tmp_path):
        error = refused(missing)
        assert str(missing) in error.what
        assert ".pth" in error.fix


# Configurations


UNUSUAL = GLNetConfig(
    name="unusual",
    backbone=HRNetConfig(channels=(8, 16, 24, 32), modules=(1, 2, 1), blocks=2),
    crop=CropSpec(size=192, padding=1.1),
    mean=(0.5, 0.4, 0.3),
    keypoints=34,
    swing_twist=False,
    local_encoding=False,
    point_origin="coarse",
    body="smpl",
)


@pytest.mark.parametrize("config", [*PRESETS.values(), UNUSUAL], ids=lambda config: config.name)
def test_configuration_comes_back_from_json(config, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert load_config(str(path)) == config
    assert hash(load_config(str(path))) == hash(config)  # lists have become tuples again


def test_configuration_comes_back_from_a_checkpoint(path):
    state = {"weight": torch.zeros(1)}
    Checkpoint(UNUSUAL, state).save(path)
    assert Checkpoint.load(path).config == UNUSUAL


def test_presets_are_the_posters_networks():
    assert load_config("w32") is PRESETS["w32"]
    assert PRESETS["w32"].backbone.channels == (32, 64, 128, 256)
    assert PRESETS["w48"].backbone.channels == (48, 96, 192, 384)
    for name, config in PRESETS.items():
        assert config.name == name
        expected = (160, 40, True, True) if name == "demo" else (256, 64, True, True)
        assert (config.crop.size, config.grid, config.swing_twist, config.local_encoding) == expected


def test_fields_left_out_keep_their_defaults():
    config = GLNetConfig.from_dict({"name": "mine", "backbone": {"blocks": 2}, "crop": {"size": 128}})
    assert config == GLNetConfig(name="mine", backbone=HRNetConfig(blocks=2), crop=CropSpec(size=128))


def test_unknown_names_are_answered_with_the_presets(tmp_path):
    for name in ("w64", str(tmp_path / "missing.json"), str(tmp_path)):
        with pytest.raises(CheckpointError) as caught:
            load_config(name)
        assert repr(name) in caught.value.what
        for preset in PRESETS:
            assert preset in caught.value.fix


@pytest.mark.parametrize("text", ["{", "", "[1, 2]", "7", "null", '"w32"', "\x00"])
def test_json_that_is_no_configuration_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError):
        load_config(str(path))


def test_json_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_config(str(path))


@pytest.mark.parametrize(
    "document",
    [
        {"surprise": 1},
        {"backbone": {"surprise": 1}},
        {"crop": {"surprise": 1}},
        {"backbone": 7},
        {"crop": [256]},
        {"keypoints": 17},
        {"keypoints": "29"},
        {"keypoints": 29.5},
        {"point_origin": "pelvis"},
        {"crop": {"size": 250}},
        {"crop": {"size": 0}},
        {"crop": {"size": -64}},
        {"crop": {"size": "256"}},
        {"confidence_prior": 0.0},
        {"confidence_prior": 1},
        {"std": [0.2, 0.0, 0.2]},
        {"std": [0.2, -0.1, 0.2]},
        {"std": 0.2},
        {"std": [0.2, 0.2]},
        {"mean": [0.5, 0.5]},
        {"mean": "grey"},
        {"swing_twist": "no"},
        {"local_encoding": "off"},
        {"backbone": {"channels": [32, 64, 128]}},
        {"backbone": {"channels": 32}},
        {"backbone": {"modules": [1, 4]}},
        {"pixel_channels": 0},
        {"part_channels": -1},
        {"depth_range": 0.0},
        {"name": 5},
    ],
    ids=str,
)
def test_configurations_that_make_no_network_are_refused(document):
    with pytest.raises(CheckpointError) as caught:
        GLNetConfig.from_dict(document)
    assert isinstance(caught.value, GlnetError)
    assert caught.value.why


def test_message_about_an_unknown_field_lists_the_known_ones():
    with pytest.raises(CheckpointError) as caught:
        GLNetConfig.from_dict({"surprise": 1})
    assert "surprise" in caught.value.why
    for field in dataclasses.fields(GLNetConfig):
        assert field.name in caught.value.fix
