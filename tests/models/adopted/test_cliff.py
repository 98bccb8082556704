import copy

import cv2
import numpy as np
import torch

from glnet_infer.camera import Intrinsics
from glnet_infer.crops import CropSquares, cut_crops

CROP = 256


def test_the_translation_puts_the_body_where_the_crop_shows_it(fabricated, random_crops):
    """The authors' crop camera sees the body at (x + tx) s, (y + ty) s in half boxes; OpenCV's projection must agree.

    Their camera is orthographic, so only the point at the body's own origin is exact, whatever the focal length.
    """
    recovery = fabricated("cliff-hr48")
    intrinsics = Intrinsics(900.0, 900.0, 320.0, 240.0)
    squares = CropSquares.around(np.array([[50.0, 40, 250, 440], [400, 100, 560, 330]]), recovery.crop)
    cameras, crops = torch.from_numpy(squares.cameras(intrinsics)), random_crops(2, CROP)
    with torch.no_grad():
        found = recovery(crops, cameras)
        focal, center = cameras[:, :1], cameras[:, 2:]
        place = torch.cat([-center / focal * 2.8, (1 / focal - 0.24) / 0.06], dim=1)
        camera = recovery.network.regress(recovery.network(crops), place)[2].double().numpy()
    for row in range(2):
        pixels, _ = cv2.projectPoints(
            found.translation[row].double().numpy(), np.zeros(3), np.zeros(3), intrinsics.matrix, None
        )
        wanted = squares.centers[row] + camera[row, 0] * camera[row, 1:] * squares.sides[row] / 2
        assert np.abs(pixels.reshape(2) - wanted).max() < 0.01  # image pixels


def test_the_authors_numbers_of_a_box_come_from_the_camera(fabricated):
    """Centre and size of the box, relative to the focal length, as the authors compute them from image coordinates."""
    width, height, focal = 1280, 720, float(np.hypot(1280, 720))
    recovery = fabricated("cliff-hr48")
    boxes = np.array([[300.0, 100, 500, 650], [900, 50, 1250, 300]])
    squares = CropSquares.around(boxes, recovery.crop)
    # Their box is 1.1 times the person's, and 4/3 as high as wide.
    sides = np.maximum((boxes[:, 2] - boxes[:, 0]) * 4 / 3, boxes[:, 3] - boxes[:, 1]) * 1.1
    np.testing.assert_allclose(squares.sides, sides)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 - (width / 2, height / 2)
    wanted = np.concatenate([centers / focal * 2.8, (sides[:, None] - 0.24 * focal) / (0.06 * focal)], axis=1)
    asked = []
    recovery.network.regress, original = (
        lambda feature, place: asked.append(place) or original(feature, place),
        recovery.network.regress,
    )
    try:
        with torch.no_grad():
            recovery(
                torch.zeros(2, CROP, CROP, 3, dtype=torch.uint8),
                torch.from_numpy(squares.cameras(Intrinsics.guess(width, height))),
            )
    finally:
        recovery.network.regress = original
    np.testing.assert_allclose(asked[0].numpy(), wanted, atol=2e-5)


def test_only_the_middle_columns_are_looked_at(fabricated, random_crops):
    recovery, crops = fabricated("cliff-hr48"), random_crops(1, CROP)
    beside, inside = crops.clone(), crops.clone()
    beside[:, :, :32], beside[:, :, 224:] = 0, 255
    inside[:, 100:150, 100:150] = 0
    with torch.no_grad():
        features = [recovery.network(each) for each in (crops, beside, inside)]
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])


def test_narrow_crops_hold_what_the_authors_cut(fabricated):
    """The middle columns of our square are their 256 x 192 crop: a resized region, away from half a pixel of rounding."""
    rng = np.random.default_rng(3)
    image = cv2.GaussianBlur(rng.integers(0, 255, (800, 800, 3), np.uint8), (0, 0), 6)
    recovery = fabricated("cliff-hr48")
    squares = CropSquares(np.array([[400.0, 400.0]]), np.array([512.0]), CROP)
    ours = cut_crops(image, squares)[0][:, 32:224]
    theirs = cv2.resize(image[400 - 256 : 400 + 256, 400 - 192 : 400 + 192], (192, 256))[..., ::-1]
    assert recovery.crop.aspect == 192 / 256
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # grey levels


def test_regressor_pose_and_place_are_numpys(fabricated, rng, monkeypatch):
    """From a feature given by hand to the mesh: the authors' steps in float64, with numbers of boxes in their image."""
    recovery = fabricated("cliff-hr48")
    weights = {name: value.double().numpy() for name, value in recovery.network.state_dict().items() if "enc" not in name}
    width, height, focal = 1280, 720, float(np.hypot(1280, 720))
    boxes = np.array([[300.0, 100, 500, 650], [900, 50, 1250, 300], [10, 300, 90, 480]])
    squares = CropSquares.around(boxes, recovery.crop)
    feature = rng.normal(scale=0.5, size=(3, weights["fc1.weight"].shape[1] - 3 - 157))
    offsets, sides = squares.centers - (width / 2, height / 2), squares.sides[:, None]
    place = np.concatenate([offsets / focal * 2.8, (sides - 0.24 * focal) / (0.06 * focal)], axis=1)

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    parts = {name: np.repeat(weights[f"init_{name}"], 3, axis=0) for name in ("pose", "shape", "cam")}
    for _ in range(3):
        hidden = linear("fc2", linear("fc1", np.concatenate([feature, place, *parts.values()], axis=1)))
        parts = {name: value + linear(f"dec{name}", hidden) for name, value in parts.items()}
    # The six numbers of a joint are x, y, z of two columns, both columns' x first.
    first, second = parts["pose"].reshape(3, 24, 3, 2).transpose(3, 0, 1, 2)
    first = first / np.linalg.norm(first, axis=-1, keepdims=True)
    second = second - (first * second).sum(-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    rotations = np.stack([first, second, np.cross(first, second)], axis=-1)
    scale = parts["cam"][:, :1]
    translation = np.concatenate([parts["cam"][:, 1:] + 2 * offsets / (scale * sides), 2 * focal / (scale * sides)], axis=1)
    body = copy.deepcopy(recovery.body).double()
    with torch.no_grad():
        posed = body.pose(torch.from_numpy(rotations), torch.from_numpy(parts["shape"]))
        monkeypatch.setattr(recovery.network, "forward", lambda crops: torch.from_numpy(feature).float())
        crops, cameras = torch.zeros(3, CROP, CROP, 3, dtype=torch.uint8), squares.cameras(Intrinsics.guess(width, height))
        found = recovery(crops, torch.from_numpy(cameras))
    # Sums of 2,208 products in float32: 1e-5 of hidden values that are about 1, and distances of 17 m to 1e-5 m.
    for name, wanted in (
        ("rotations", rotations),
        ("betas", parts["shape"]),
        ("translation", translation),
        ("vertices", posed.vertices.numpy() + translation[:, None]),
        ("joints", posed.joints.numpy() + translation[:, None]),
    ):
        np.testing.assert_allclose(getattr(found, name).double().numpy(), wanted, rtol=1e-5, atol=1e-4, err_msg=name)


def test_what_is_looked_at_is_scaled_by_imagenets_numbers(fabricated, random_crops, monkeypatch):
    recovery, crops, seen = fabricated("cliff-hr48"), random_crops(2, CROP), []
    look = recovery.network.encoder.forward
    monkeypatch.setattr(recovery.network.encoder, "forward", lambda images: seen.append(images) or look(images))
    with torch.no_grad():
        recovery.network(crops)
    middle = crops[:, :, 32:224].double().numpy() / 255
    wanted = (middle - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]  # RGB
    np.testing.assert_allclose(seen[0].permute(0, 2, 3, 1), wanted, atol=1e-5)
