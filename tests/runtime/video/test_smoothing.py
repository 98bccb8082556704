"""Rotations against SciPy, filters against a motion that is known."""

import numpy as np
import pytest

from glnet_infer.rotations import between, exponential, logarithm
from glnet_infer.video.smoothing import (
    LiveFilter,
    OneEuroRotations,
    bridge,
    smooth_rotations,
    smooth_translations,
    steady_shape,
)

scipy_rotations = pytest.importorskip("scipy.spatial.transform")
Rotation, Slerp = scipy_rotations.Rotation, scipy_rotations.Slerp

RATE = 30.0  # Hz


def vectors(*angles):
    """Rotation vectors about axes of all kinds, of given lengths."""
    draw = np.random.default_rng(0)
    axes = np.concatenate([np.eye(3), -np.eye(3), draw.normal(size=(20, 3))])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return np.concatenate([axes * angle for angle in angles])


def angle(first, second):
    """Degrees between rotations."""
    return np.degrees(np.linalg.norm(logarithm(np.swapaxes(first, -1, -2) @ second), axis=-1))


def test_exponential_is_scipys():
    given = vectors(0, 1e-9, 1e-4, 0.5, 2.0, 3.1, np.pi)
    np.testing.assert_allclose(exponential(given), Rotation.from_rotvec(given).as_matrix(), atol=1e-14)


@pytest.mark.parametrize("length", [0, 1e-9, 1e-4, 0.5, 2.0, 3.1, np.pi - 1e-3, np.pi - 1e-5, np.pi])
def test_logarithm_undoes_the_exponential(length):
    rotations = Rotation.from_rotvec(vectors(length)).as_matrix()
    found = logarithm(rotations)
    # Near half a turn an angle is lost in the cosine: half the digits of float64.
    np.testing.assert_allclose(exponential(found), rotations, atol=3e-8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), length, atol=1e-7)


def test_between_is_scipys_slerp():
    first, second = Rotation.random(20, rng=1), Rotation.random(20, rng=2)
    for share in (0.0, 0.3, 1.0):
        expected = [
            Slerp([0, 1], Rotation.concatenate(pair))(share).as_matrix() for pair in zip(first, second, strict=True)
        ]
        np.testing.assert_allclose(between(first.as_matrix(), second.as_matrix(), share), expected, atol=1e-9)


def motion(seed=0, frames=240, joints=24, noise=4.0, rate=RATE):
    """A swing at 1 Hz up to 69 degrees, and the same with noise: times, truth, noisy; T x J x 3 x 3."""
    draw = np.random.default_rng(seed)
    times = np.arange(frames) / rate
    axes = draw.normal(size=(joints, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    swing = 1.2 * np.sin(2 * np.pi * times)[:, None] * draw.uniform(0.3, 1, joints)
    truth = exponential(swing[..., None] * axes)
    return times, truth, truth @ exponential(draw.normal(0, np.radians(noise), (frames, joints, 3)))


def jitter(rotations):
    """Degrees per frame squared."""
    steps = logarithm(np.swapaxes(rotations[:-1], -1, -2) @ rotations[1:])
    return np.degrees(np.linalg.norm(np.diff(steps, axis=0), axis=-1)).mean()


@pytest.mark.parametrize("seed", range(3))
def test_gaussian_halves_the_error_and_has_the_jitter_of_the_truth(seed):
    times, truth, noisy = motion(seed)
    smooth = smooth_rotations(noisy, times, np.ones(len(times), bool))
    assert angle(smooth, truth).mean() < 0.7 * angle(noisy, truth).mean()
    assert jitter(smooth) < 0.2 * jitter(noisy) and jitter(smooth) < 1.5 * jitter(truth)
    np.testing.assert_allclose(smooth @ np.swapaxes(smooth, -1, -2), np.broadcast_to(np.eye(3), smooth.shape), atol=1e-12)


def test_live_filter_halves_the_jitter_and_does_not_lag_far_behind():
    times, truth, noisy = motion()
    filter_ = OneEuroRotations()
    live = np.stack([filter_(rotations, time) for rotations, time in zip(noisy, times, strict=True)])
    assert jitter(live) < 0.5 * jitter(noisy)
    assert angle(live, truth).mean() < 12  # degrees, of a swing of 69


def test_frames_that_nobody_trusts_are_bridged():
    times, truth, noisy = motion(noise=1.0)
    wild = noisy.copy()
    wild[100:106] = Rotation.random(6 * 24, rng=3).as_matrix().reshape(6, 24, 3, 3)
    trusted = np.ones(len(times), bool)
    trusted[100:106] = False
    smooth = smooth_rotations(wild, times, trusted)
    assert angle(smooth[100:106], truth[100:106]).mean() < 10  # degrees; a random rotation is 127 away
    assert angle(smooth_rotations(wild, times, np.ones(len(times), bool))[100:106], truth[100:106]).mean() > 40


def test_a_still_person_is_left_where_they_are():
    still = np.broadcast_to(Rotation.random(24, rng=5).as_matrix(), (20, 24, 3, 3))
    np.testing.assert_allclose(smooth_rotations(still, np.arange(20) / RATE, np.ones(20, bool)), still, atol=1e-12)
    places = np.broadcast_to((0.3, -0.2, 4.0), (20, 3))
    np.testing.assert_allclose(smooth_translations(places, np.arange(20) / RATE, np.ones(20, bool)), places, atol=1e-12)


def test_frame_rates_that_change_are_smoothed_by_time():
    times, truth, noisy = motion()
    kept = np.sort(np.random.default_rng(4).permutation(len(times))[:150])
    smooth = smooth_rotations(noisy[kept], times[kept], np.ones(150, bool))
    assert angle(smooth, truth[kept]).mean() < 0.8 * angle(noisy[kept], truth[kept]).mean()


def test_distance_is_smoothed_by_its_logarithm_and_place_by_the_image():
    draw = np.random.default_rng(6)
    times = np.arange(120) / RATE
    distance = 4 * np.exp(draw.normal(0, 0.1, 120))
    given = np.stack([0.2 * distance, -0.1 * distance, distance], axis=1)  # one place in the image
    smooth = smooth_translations(given, times, np.ones(120, bool))
    np.testing.assert_allclose(smooth[:, :2] / smooth[:, 2:], np.broadcast_to((0.2, -0.1), (120, 2)), atol=1e-12)
    assert np.abs(np.diff(smooth[:, 2], 2)).mean() < 0.2 * np.abs(np.diff(distance, 2)).mean()


def test_shape_is_the_weighted_median():
    betas = np.array([[0.0, 5.0], [1.0, 5.1], [100.0, -80.0], [0.5, 5.05]])
    assert steady_shape(betas, np.ones(4)).tolist() == [0.5, 5.0]
    assert steady_shape(betas, np.array([1.0, 0, 0, 0])).tolist() == [0.0, 5.0]
    assert np.isfinite(steady_shape(betas, np.zeros(4))).all()


def test_bridges_lie_between_trusted_frames():
    times = np.array([0.0, 1, 2, 4, 5, 6])
    before, after, share = bridge(times, np.array([False, True, False, False, True, False]))
    assert before.tolist() == [1, 1, 1, 1, 4, 4] and after.tolist() == [1, 1, 4, 4, 4, 4]
    np.testing.assert_allclose(share, [0, 0, 0.25, 0.75, 0, 0])
    before, after, share = bridge(times, np.zeros(6, bool))
    assert before.tolist() == after.tolist() == list(range(6)) and not share.any()


def test_a_persons_live_filter_keeps_shape_and_place():
    draw = np.random.default_rng(7)
    _, truth, noisy = motion(frames=200)
    filter_, betas = LiveFilter(), draw.normal(size=10)
    places = []
    for index in range(200):
        given = np.array([0.1, 0.2, 1.0]) * 3 * np.exp(draw.normal(0, 0.05))
        _, shape, place = filter_(noisy[index], betas + draw.normal(0, 0.5, 10), given, index / RATE, 0.8)
        places.append(place)
    np.testing.assert_allclose(shape, betas, atol=4 * 0.5 / np.sqrt(200))  # four standard errors of a mean
    assert np.abs(np.array(places)[50:] - (0.3, 0.6, 3.0)).max() < 0.5
    assert len(truth) == 200
