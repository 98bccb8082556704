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
