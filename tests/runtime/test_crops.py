"""Crops against SciPy's interpolation in float64, and against the geometry of their definition."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares, cut_crops

SPEC = CropSpec()
WIDTH, HEIGHT = 400, 300


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Smooth, every channel different, and no brighter than 30 at its edges.

    OpenCV before 5 places samples at multiples of 1/32 px, at most 1/64 px off: where neighbouring pixels differ by 30 grey
    levels, that is half a level, and rounding is the other half.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    window = np.sin(np.pi * x / (WIDTH - 1)) * np.sin(np.pi * y / (HEIGHT - 1))
    waves = [np.sin(x / (17 + 5 * k) + k) * np.cos(y / (23 - 3 * k)) for k in range(3)]
    return np.stack([30 + window * (110 + 70 * wave) for wave in waves], axis=-1).round().astype(np.uint8)


def cut(image, box):
    squares = CropSquares.around(np.array([box], dtype=np.float64), SPEC)
    return cut_crops(image, squares)[0]


def sampled(image, box):
    """The crop by SciPy: the square's pixel centres, bilinear, zeros beyond the image; RGB, float64.

    What a crop pixel covers, down to a power of two, is averaged first.
    """
    x1, y1, x2, y2 = box
    half = 1.25 * max(x2 - x1, y2 - y1) / 2
    k = max(each for each in (1, 2, 4, 8, 16) if each == 1 or each <= 2 * half / 256)
    axes = []
    for middle in ((y1 + y2) / 2, (x1 + x2) / 2):
        edges = np.linspace(middle - half, middle + half, 257)
        axes.append((edges[1:] + edges[:-1]) / 2 / k - 0.5)  # SciPy counts from the first pixel's centre
    places = np.meshgrid(*axes, indexing="ij")
    averages = averaged(image, k)
    channels = [map_coordinates(averages[..., each], places, order=1, mode="grid-constant") for each in (2, 1, 0)]
    return np.stack(channels, axis=-1)


def averaged(image, k):
    """Means of k x k pixels, sums by NumPy; what is missing at the lower right is black."""
    sums = image.astype(float)
    for axis in (0, 1):
        sums = np.add.reduceat(sums, range(0, image.shape[axis], k), axis=axis)
    return sums / k**2


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((100, 80, 220, 240), id="inside"),
        pytest.param((101.25, 80.75, 219.5, 239.1), id="at fractions of pixels"),
        pytest.param((-50, -60, 100, 100), id="over the upper left corner"),
        pytest.param((350, 200, 460.5, 390), id="over the lower right corner"),
        pytest.param((-30, 100, 500, 140), id="wider than the image"),
        pytest.param((0, 0, WIDTH, HEIGHT), id="the whole image"),
        pytest.param((200.3, 150.2, 200.9, 151.4), id="tiny"),
        pytest.param((-3000, -2000, 4000, 3000), id="huge"),
    ],
)
def test_crop_is_bilinear_at_pixel_centres_and_black_outside(image, box):
    found, expected = cut(image, box), sampled(image, box)
    assert expected.max() > 20  # something of the image is in the crop
    # The image is smooth: half a level of rounding, and of rounded averages as much again, which interpolation lessens.
    assert np.abs(found - expected).max() <= 1.0


def test_the_oracle_notices_half_a_pixel(image):
    # What cropping without regard to pixel centres would give: the comparison above must see it.
    assert np.abs(cut(image, (100.5, 80.5, 220.5, 240.5)) - sampled(image, (100, 80, 220, 240))).max() > 2


def test_crop_of_scale_one_is_the_image_itself_in_rgb(image):
    side = 256 / 1.25
    left, top = 70, 25
    box = (left + 128 - side / 2, top + 128 - 60, left + 128 + side / 2, top + 128 + 60)
    noise = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    assert np.array_equal(cut(noise, box), noise[top : top + 256, left : left + 256, ::-1])


def test_pixels_beyond_the_image_are_black(image):
    crop = cut(np.full_like(image, 200), (-200, -200, 56, 56))  # the square spans -232 to 88: 0.8 crop pixels a pixel
    assert (crop[:180, :180] == 0).all()
    assert (crop[192:, 192:] == 200).all()


@pytest.mark.parametrize("place", [(180.5, 140.5), (203.27, 98.64), (150.0, 160.9)])
@pytest.mark.parametrize("box", [(120, 60, 260, 200), (-40, -80, 390, 330), (130.3, 70.7, 220.2, 190)])
def test_a_dot_found_in_the_crop_maps_back_to_its_place_in_the_image(place, box):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    sigma = 3.0  # px: broad enough that its centroid survives sampling every 2.1 px
    dot = 250 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * sigma**2))
    picture = np.repeat(dot.round().astype(np.uint8)[..., None], 3, axis=2)
    squares = CropSquares.around(np.array([box], dtype=np.float64), SPEC)
    weights = cut_crops(picture, squares)[0].sum(-1).astype(float)
    centers = np.arange(256) + 0.5
    in_crop = np.array([weights.sum(0) @ centers, weights.sum(1) @ centers]) / weights.sum()
    # 0.1 px: rounding to grey levels moves the centroid by some hundredths.
    assert np.abs(squares.to_image(in_crop[None])[0] - place).max() < 0.1


def test_square_is_a_quarter_longer_than_the_boxs_longer_side_and_about_its_middle():
    boxes = np.array([[10.0, 20, 110, 60], [0, 0, 30, 90], [-5, -5, 5, 5]])
    squares = CropSquares.around(boxes, SPEC)
    assert squares.sides.tolist() == pytest.approx([125.0, 112.5, 12.5])
    assert squares.centers.tolist() == [[60, 40], [15, 45], [0, 0]]


def test_crop_corners_map_to_the_squares_corners():
    squares = CropSquares.around(np.array([[10.0, 20, 110, 60], [0, 0, 40, 80]]), SPEC)
    corners = np.tile(np.array([[0.0, 0], [256, 256], [128, 128]]), (2, 1, 1))
    expected = [[[-2.5, -22.5], [122.5, 102.5], [60, 40]], [[-30, -10], [70, 90], [20, 40]]]
    assert squares.to_image(corners) == pytest.approx(np.array(expected))
    assert squares.to_image(corners[:, 1]) == pytest.approx(np.array(expected)[:, 1])


def test_crops_keep_the_order_of_the_boxes(image):
    boxes = np.array([[100.0, 80, 220, 240], [0, 0, 50, 60], [300, 200, 380, 290]])
    crops = cut_crops(image, CropSquares.around(boxes, SPEC))
    assert crops.shape == (3, 256, 256, 3) and crops.dtype == np.uint8
    for crop, box in zip(crops, boxes, strict=True):
        assert np.array_equal(crop, cut(image, box))
    assert not np.array_equal(crops[0], crops[1])


def test_no_boxes_give_no_crops(image):
    assert cut_crops(image, CropSquares.around(np.zeros((0, 4)), SPEC)).shape == (0, 256, 256, 3)


@pytest.mark.parametrize("padding, size", [(1.0, 128), (1.5, 192)])
def test_size_and_padding_come_from_the_manifest(image, padding, size):
    squares = CropSquares.around(np.array([[100.0, 80, 220, 240]]), CropSpec(size, padding))
    assert squares.sides.tolist() == [160 * padding]
    assert cut_crops(image, squares).shape == (1, size, size, 3)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda image: image[..., ::-1], id="channels reversed"),
        pytest.param(lambda image: image[:, ::-1], id="mirrored"),
        pytest.param(lambda image: image[::2, ::2], id="every second pixel"),
        pytest.param(lambda image: image.transpose(1, 0, 2), id="transposed"),
        pytest.param(np.asfortranarray, id="column-major"),
    ],
)
def test_views_without_contiguous_memory_are_read_right(image, view):
    picture = view(image)
    assert not picture.flags.c_contiguous
    box = (20, 30, 90, 110)
    assert np.array_equal(cut(picture, box), cut(np.ascontiguousarray(picture), box))


@pytest.mark.parametrize("shape", [(12, 40_000), (40_000, 12)])
def test_images_longer_than_opencvs_16_bit_coordinates_are_cropped_right(shape):
    picture = np.zeros((*shape, 3), dtype=np.uint8)
    far = (39_950, 6) if shape[1] > shape[0] else (6, 39_950)
    picture[far[1] - 2 : far[1] + 2, far[0] - 2 : far[0] + 2] = 255
    crop = cut(picture, (far[0] - 6, far[1] - 6, far[0] + 6, far[1] + 6))
    assert (crop[110:146, 110:146] == 255).all() and crop[128, 20].max() == 0


# Where a crop pixel covers two image pixels or more

NOISE = np.random.default_rng(5).integers(0, 256, (1203, 1501, 3), dtype=np.uint8)  # no multiples of two


def squares_of(*scales, center=(700.3, 611.8), size=64):
    """Squares about one place whose crop pixels cover so many image pixels."""
    return CropSquares(np.tile(np.array(center), (len(scales), 1)), np.array(scales) * float(size), size)


def test_the_largest_power_of_two_that_a_crop_pixel_covers_is_averaged():
    scales = [0.01, 1, 1.999, 2, 3.999, 4, 7.9, 8, 15.9, 16, 31, 64, 1e6]
    assert squares_of(*scales).reductions.tolist() == [1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 16, 16]
    assert CropSquares.around(np.zeros((0, 4)), SPEC).reductions.shape == (0,)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7, 1.999])
def test_below_two_nothing_is_averaged(scale):
    """The bytes are those of one bilinear sample for each pixel."""
    shift = np.array([700.3, 611.8]) - scale * 63 / 2 - 0.5
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    expected = cv2.warpAffine(NOISE, matrix, (64, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    assert np.array_equal(cut_crops(NOISE, squares_of(scale))[0], expected[..., ::-1])


@pytest.mark.parametrize("scale", [2, 2.6, 3.7, 4, 5.2, 8, 11, 16, 23, 60])
@pytest.mark.parametrize(
    "center", [(700.3, 611.8), (0, 0), (1501, 1203), (1490.5, 20.25), (-200, 640), (1700, 1400), (1e5, -3e6)]
)
def test_averages_are_sampled(scale, center):
    """Noise, inside and over every edge, against SciPy."""
    squares = squares_of(scale, center=center)
    (x, y), half = center, float(squares.sides[0]) / 2
    (found,) = cut_crops(NOISE, squares)
    k = int(squares.reductions[0])
    steps = (np.arange(64) + 0.5) / 64 * 2 * half - half
    places = np.meshgrid((y + steps) / k - 0.5, (x + steps) / k - 0.5, indexing="ij")
    averages = averaged(NOISE, k)
    planes = [map_coordinates(averages[..., each], places, order=1, mode="grid-constant") for each in (2, 1, 0)]
    # Averages are rounded to half a level, samples of them too; 0.1 is OpenCV's interpolation.
    assert np.abs(found - np.stack(planes, axis=-1)).max() <= 1.1


@pytest.mark.parametrize("scale, k", [(2.5, 2), (5.3, 4), (10.1, 8), (20.3, 16)])
def test_the_cameras_noise_becomes_fainter(scale, k):
    noisy = np.clip(np.rint(np.random.default_rng(1).normal(128, 16, (1400, 1400, 3))), 0, 255).astype(np.uint8)
    crop = cut_crops(noisy, squares_of(scale, center=(700, 700)))[0].astype(float)
    # Averages alone divide it by k; bilinear samples by up to twice as much, rounding adds 0.3. One sample gave 16 to 8.
    assert crop.std() < 16 / k + 0.3 and abs(crop.mean() - 128) < 0.5


def test_fine_stripes_leave_no_coarse_ones():
    striped = np.zeros((1100, 1100, 3), np.uint8)
    striped[:, ::2] = 200
    for scale in (2.03, 4.1, 8.05, 16.1):
        crop = cut_crops(striped, squares_of(scale, center=(550, 550)))[0]
        assert (crop == 100).all()


def test_a_view_is_averaged_as_it_reads():
    for view in (NOISE[..., ::-1], NOISE[::-1, ::-1], NOISE[::2, 1::2], NOISE.transpose(1, 0, 2)):
        squares = squares_of(3.3, 9, center=(300, 280))
        assert np.array_equal(cut_crops(view, squares), cut_crops(np.ascontiguousarray(view), squares))


def test_a_crop_moves_with_its_image():
    """By whole squares of the largest average."""
    moved = np.pad(NOISE, ((32, 0), (48, 0), (0, 0)))
    scales = (1.5, 2.2, 5, 9, 17)
    before, after = squares_of(*scales), squares_of(*scales, center=(700.3 + 48, 611.8 + 32))
    # Coordinates are rounded differently.
    assert np.abs(cut_crops(NOISE, before).astype(int) - cut_crops(moved, after)).max() <= 1
