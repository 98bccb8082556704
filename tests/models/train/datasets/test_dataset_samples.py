"""From annotations to samples: labels, crops of pictures, and the targets of batches."""

import dataclasses

import numpy as np
import pytest
import torch

from glnet.config import GLNetConfig
from glnet_infer.contract import DEFAULT_CAMERA, CropSpec
from glnet_infer.errors import InputError
from glnet_render.targets import UNKNOWN
from glnet_train.data import LABEL_MASKS, AnnotatedImages, collate, read_coco, read_h36m, read_mpi_inf_3dhp

# Labels


def test_label_masks_are_hybriks(tmp_path, full_annotation):
    annotation = full_annotation(tmp_path / "image.jpg")
    assert LABEL_MASKS["h36m"].apply(annotation) is annotation
    coco, mpi, pw3d = (LABEL_MASKS[name].apply(annotation) for name in ("coco", "3dhp", "3dpw"))
    assert (
        coco.joints_3d is coco.joints_3d_weights is coco.rotations is coco.betas is coco.twists is coco.translation is None
    )
    assert mpi.rotations is mpi.betas is mpi.twists is mpi.twist_weights is None
    assert mpi.joints_3d is not None
    assert pw3d.twists is None
    assert pw3d.rotations is not None
    assert pw3d.betas is not None
    for masked in (coco, mpi, pw3d):
        assert masked.keypoints_2d_weights.tolist() == [1] * 24 + [0] * 5
    assert pw3d.joints_3d_weights.tolist() == [1] * 24 + [0] * 5
    assert annotation.joints_3d_weights.all()  # the original is as it was


def test_annotations_refuse_wrong_shapes_and_halves(tmp_path, full_annotation):
    annotation = full_annotation(tmp_path / "image.jpg")
    with pytest.raises(ValueError, match="betas"):
        dataclasses.replace(annotation, betas=np.zeros(11))
    with pytest.raises(ValueError, match="come together"):
        dataclasses.replace(annotation, twists=None)


# Crops


def test_crop_shows_the_box_and_keypoints_lie_on_it(tmp_path, write_image, full_annotation):
    """A white square as the person: its corners are where the keypoints say."""
    write_image(tmp_path / "image.jpg")
    corners = np.array([[100, 60], [140, 60], [140, 100], [100, 100]])
    annotation = full_annotation(tmp_path / "image.jpg")
    annotation.keypoints_2d[:4] = corners
    dataset = AnnotatedImages("set", [annotation], spec=CropSpec(size=100))
    sample = dataset.load(0)
    assert sample.crop.shape == (100, 100, 3)
    assert sample.crop.dtype == np.uint8
    np.testing.assert_allclose(sample.keypoints[:4], [[-0.4, -0.4], [0.4, -0.4], [0.4, 0.4], [-0.4, 0.4]], atol=1e-6)
    assert (sample.crop[13:87, 13:87] > 240).all()
    ring = np.concatenate([sample.crop[:8].reshape(-1, 3), sample.crop[92:].reshape(-1, 3)])
    assert (np.abs(ring.astype(int) - [40, 40, 200]) < 30).all()  # RGB
    np.testing.assert_array_equal(sample.camera, np.float32(DEFAULT_CAMERA))
    assert sample.camera_weight == 0


def test_boxes_are_cut_off_at_the_image_as_detectors_do(tmp_path, write_image, full_annotation):
    write_image(tmp_path / "image.jpg")
    annotation = full_annotation(tmp_path / "image.jpg")
    inside, beyond = (
        AnnotatedImages("set", [dataclasses.replace(annotation, box=np.array(box))]).load(0)
        for box in ([0.0, 50, 120, 240], [-80.0, 50, 120, 300])
    )
    np.testing.assert_array_equal(inside.crop, beyond.crop)
    np.testing.assert_array_equal(inside.keypoints, beyond.keypoints)


def test_another_box_may_be_given(tmp_path, write_image, full_annotation):
    write_image(tmp_path / "image.jpg")
    dataset = AnnotatedImages("set", [full_annotation(tmp_path / "image.jpg")])
    moved = dataset.load(0, np.array([110.0, 60, 150, 100]))
    np.testing.assert_allclose(moved.keypoints[:, 0], dataset.load(0).keypoints[:, 0] - 10 / 50, atol=1e-6)


def test_missing_and_damaged_images_are_named(tmp_path, write_image, full_annotation):
    dataset = AnnotatedImages("set", [full_annotation(tmp_path / "image.jpg")])
    with pytest.raises(InputError, match="No such file"):
        dataset.load(0)
    (tmp_path / "image.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="damaged"):
        dataset.load(0)
    write_image(tmp_path / "image.jpg")
    outside = dataclasses.replace(dataset[0], box=np.array([400.0, 0, 500, 100]))
    with pytest.raises(InputError, match="outside"):
        AnnotatedImages("set", [outside]).load(0)


def test_datasets_are_sequences(tmp_path, full_annotation):
    annotations = [full_annotation(tmp_path / f"{i}.jpg", i) for i in range(3)]
    dataset = AnnotatedImages("set", iter(annotations))
    assert len(dataset) == 3
    assert list(dataset) == annotations
    assert dataset[1:] == annotations[1:]
    assert "3 persons" in repr(dataset)
    with pytest.raises(IndexError):
        dataset[3]
    with pytest.raises(InputError, match="empty"):
        AnnotatedImages("set", [])


# Batches


def test_unknown_labels_have_no_weight_and_finite_values(coco, mpi_inf_3dhp, h36m, write_json):
    samples = []
    for content, read in ((coco, read_coco), (mpi_inf_3dhp, read_mpi_inf_3dhp), (h36m, read_h36m)):
        samples.append(read(*write_json(content)).load(0))
    _, targets = collate(samples, GLNetConfig())
    assert (targets.segments == UNKNOWN).all() and targets.segments.shape == targets.places.shape[:3] == (3, 64, 64)
    for part in (*targets.estimate, *targets._replace(segments=targets.places)[1:]):
        assert part.isfinite().all()
        assert part.dtype == torch.float32
    assert targets.keypoint_weights.sum(1).tolist() == [3, 12, 29]
    assert targets.depth_weights.sum(1).tolist() == [0, 12, 29]
    assert targets.rotation_weights.sum(1).tolist() == [0, 0, 21]
    assert targets.shape_weights.flatten().tolist() == [0, 0, 1]
    assert targets.scale_weights.flatten().tolist() == [0, 1, 1]
    assert targets.pose_weights.sum(1).tolist() == [0, 0, 24]
    assert targets.estimate.depths[:, 0].tolist() == [0, 0, 0]


def test_networks_without_swing_twist_get_6d_rotations(h36m, coco, write_json):
    samples = [read_h36m(*write_json(h36m)).load(0), read_coco(*write_json(coco)).load(0)]
    _, targets = collate(samples, GLNetConfig(swing_twist=False))
    assert targets.estimate.rotation.shape == (2, 24, 6)
    assert targets.rotation_weights.sum(1).tolist() == [24, 0]
    torch.testing.assert_close(targets.estimate.rotation[0, :, :3], targets.rotations[0, :, :, 0])
