"""The skin in a bundle: made from the body, recorded, checked, and left out where it is not wanted."""

import json

import numpy as np
import pytest
import torch

from glnet_export.pipeline import export
from glnet_export.sources import Source
from glnet_infer import BundleError, MeshRecoverer, Skin
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.opening import check_all_files, unknown_entries
from glnet_infer.rotations import exponential


def test_a_bundle_poses_its_body(shared_bundle, demo_body):
    random = np.random.default_rng(0)
    rotations = exponential(random.normal(0, 0.5, (2, 24, 3))).astype(np.float32)
    betas, translation = random.normal(0, 1, (2, 10)).astype(np.float32), np.zeros((2, 3), np.float32)
    for skin in (Skin.load(shared_bundle), Skin.load(Bundle.open(shared_bundle).skin())):
        assert (skin.body, skin.license) == ("demo", "CC0 1.0")
        vertices, joints = skin.pose(rotations, betas, translation)
        with torch.no_grad():
            expected = demo_body.pose(torch.from_numpy(rotations), torch.from_numpy(betas))
        assert np.abs(vertices - expected.vertices.numpy()).max() < 5e-6  # m: float32 over a chain of ten joints
        assert np.abs(joints - expected.joints.numpy()).max() < 5e-6
    assert np.array_equal(skin.faces, Bundle.open(shared_bundle).faces)


def test_it_is_the_same_body_as_the_graph_s(shared_bundle, photograph, person_boxes):
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu") as recoverer:
        meshes, skin = recoverer(photograph, person_boxes), recoverer.skin
    vertices, joints = skin.pose(meshes.rotations, meshes.betas, meshes.translation)
    # The graph is held to 0.05 mm of PyTorch, and its persons are some 5 m away.
    assert np.abs(vertices - meshes.vertices).max() < 1e-4 and np.abs(joints - meshes.joints).max() < 1e-4


def test_the_manifest_records_it_and_a_changed_one_is_refused(bundle):
    assert json.loads((bundle / "manifest.json").read_text())["body"]["skin"]["file"] == "skin.npz"
    assert not unknown_entries(bundle, check_all_files(bundle))
    (bundle / "skin.npz").write_bytes(b"of another bundle")
    for check in (check_all_files, lambda path: Bundle.open(path).skin()):
        with pytest.raises(BundleError, match=r"skin\.npz is not the file"):
            check(bundle)
    with MeshRecoverer(bundle, "onnxruntime-cpu") as recoverer:  # who needs no skin is not kept from working
        assert recoverer.backend == "onnxruntime-cpu"


def test_it_can_be_left_out(small_checkpoint, tmp_path):
    manifest = export(Source(small_checkpoint), tmp_path / "lean", skin=False)
    assert manifest.body.skin is None and not (tmp_path / "lean" / "skin.npz").exists()
    with MeshRecoverer(tmp_path / "lean", "onnxruntime-cpu") as recoverer:
        assert recoverer.skin is None


def test_bundles_that_know_of_no_skin_open(bundle):
    document = json.loads((bundle / "manifest.json").read_text())
    del document["body"]["skin"]
    (bundle / "manifest.json").write_text(json.dumps(document))
    assert Bundle.open(bundle).skin() is None


def test_the_terms_are_the_body_s(demo_body):
    import dataclasses

    from glnet_export.skin import skin_of

    for name, said in (("smpl", "Max Planck"), ("mine", "the body file 'mine'")):
        assert said in skin_of(dataclasses.replace(demo_body.data, name=name)).license
