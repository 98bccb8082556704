"""Rotations against scipy, and properties that hold for every rotation."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.rotations import Constant, rotation_angle, rotation_from_6d, rotation_from_vector, rotation_to_6d

IDENTITY = torch.eye(3, dtype=torch.float64)
# The derivative of a rotation at zero by its vector: minus the Levi-Civita symbol, [row, column, axis].
LEVI_CIVITA = np.zeros((3, 3, 3))
for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
    LEVI_CIVITA[i, j, k], LEVI_CIVITA[j, i, k] = 1, -1


def vectors_of(angle: float, rng: np.random.Generator, count: int = 200) -> np.ndarray:
    axes = rng.normal(size=(count, 3))
    return axes / np.linalg.norm(axes, axis=1, keepdims=True) * angle


def assert_rotations(matrices: torch.Tensor, tolerance: float) -> None:
    eye = torch.eye(3, dtype=matrices.dtype).expand_as(matrices)
    torch.testing.assert_close(matrices.transpose(-2, -1) @ matrices, eye, atol=tolerance, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrices), eye[..., 0, 0], atol=tolerance, rtol=0)


# Rotation vectors


@pytest.mark.parametrize("angle", [1e-12, 1e-9, 1e-6, 1e-3, 0.5, 2.0, np.pi - 1e-6, np.pi, np.pi + 1e-3, 2 * np.pi, 9.0])
def test_rotation_vectors_agree_with_scipy(angle, rng):
    vectors = vectors_of(angle, rng)
    found = rotation_from_vector(torch.tensor(vectors))
    # Below 1e-8 rad the axis is shortened, which may turn the matrix by at most the angle itself.
    np.testing.assert_allclose(found, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.5, np.pi, 6.0])
def test_rotation_vectors_are_accurate_in_float32(angle, rng):
    vectors = vectors_of(angle, rng).astype(np.float32)
    found = rotation_from_vector(torch.tensor(vectors))
    # 2e-6: a few roundings of numbers up to 6 in float32.
    np.testing.assert_allclose(found, Rotation.from_rotvec(vectors.astype(float)).as_matrix(), atol=2e-6)


def test_zero_vector_is_exactly_no_rotation():
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(rotation_from_vector(torch.zeros(2, 3, dtype=dtype)), torch.eye(3, dtype=dtype).expand(2, 3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivative_at_the_zero_vector_is_the_cross_product(dtype):
    jacobian = torch.autograd.functional.jacobian(rotation_from_vector, torch.zeros(3, dtype=dtype))
    np.testing.assert_allclose(jacobian, -LEVI_CIVITA, atol=1e-6)


def test_derivative_agrees_with_finite_differences(rng):
    vectors = torch.tensor(rng.normal(size=(5, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(rotation_from_vector, vectors)


# 6D


def test_6d_returns_the_rotation_that_it_was_taken_from(rng):
    rotations = torch.tensor(Rotation.random(1000, rng).as_matrix())
    torch.testing.assert_close(rotation_from_6d(rotation_to_6d(rotations)), rotations, atol=1e-12, rtol=0)


def test_6d_is_the_first_column_then_the_second(rng):
    matrix = Rotation.random(rng=rng).as_matrix()
    np.testing.assert_array_equal(rotation_to_6d(torch.tensor(matrix)), [*matrix[:, 0], *matrix[:, 1]])


def test_any_6d_vector_gives_a_proper_rotation(rng):
    vectors = torch.tensor(rng.normal(size=(1000, 6)) * rng.uniform(1e-3, 1e3, (1000, 1)))
    assert_rotations(rotation_from_6d(vectors), 1e-9)
    # 1e-4: Gram-Schmidt of two columns a few degrees apart, the worst of a thousand, loses up to 3 digits of float32.
    assert_rotations(rotation_from_6d(vectors.float()), 1e-4)


def test_6d_is_gram_schmidt(rng):
    vectors = rng.normal(size=(100, 6))
    found = rotation_from_6d(torch.tensor(vectors)).numpy()
    for vector, rotation in zip(vectors, found, strict=True):
        q, r = np.linalg.qr(vector.reshape(2, 3).T)  # QR is Gram-Schmidt up to signs
        np.testing.assert_allclose(rotation[:, :2], q * np.sign(np.diag(r)), atol=1e-10)


def test_6d_of_zeros_is_finite_with_finite_gradients():
    vectors = torch.zeros(2, 6, requires_grad=True)
    rotations = rotation_from_6d(vectors)
    rotations.sum().backward()
    assert rotations.isfinite().all()
    assert vectors.grad.isfinite().all()


# Angles


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-4, 0.3, np.pi / 2, 3.0])
def test_angle_between_rotations_agrees_with_scipy(angle, rng):
    first = Rotation.random(100, rng)
    second = first * Rotation.from_rotvec(vectors_of(angle, rng, 100))
    found = rotation_angle(torch.tensor(first.as_matrix()), torch.tensor(second.as_matrix()))
    # 1e-12 degrees: relative to the matrices' entries of 1, the rounding of float64.
    np.testing.assert_allclose(found, np.degrees((first.inv() * second).magnitude()), atol=1e-12, rtol=1e-8)


def test_half_a_turn_is_180_degrees(rng):
    half = torch.tensor(Rotation.from_rotvec(vectors_of(np.pi, rng)).as_matrix())
    # Near 180 degrees the chord's slope is zero: errors of 1e-16 in it are errors of 1e-6 degrees.
    np.testing.assert_allclose(rotation_angle(half, IDENTITY), 180, atol=5e-6)


def test_tiny_angles_survive_float32():
    tiny = rotation_from_vector(torch.tensor([[1e-5, 0.0, 0.0]]))
    # The arc cosine of a float32 trace would give 0 or 0.02 degrees here.
    assert rotation_angle(tiny, torch.eye(3)).item() == pytest.approx(np.degrees(1e-5), rel=1e-3)


# Constants


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_is_made_once_for_a_device_that_needs_a_copy(dtype):
    constant = Constant([[1.0, 2.0], [3.0, 4.0]])
    with torch.inference_mode():
        first = constant.like(torch.zeros(3, device="meta", dtype=dtype))
    second = constant.like(torch.zeros(5, device="meta", dtype=dtype))
    assert first is second and first.dtype == dtype and first.device.type == "meta"
    assert not first.is_inference()  # else no gradient could pass by it later
    assert constant.like(torch.zeros((), dtype=torch.float16)).tolist() == [[1, 2], [3, 4]]


def test_what_is_compiled_holds_the_copies_that_were_made_before():
    """Else every call of it would copy them to the GPU again."""
    constant, copied = Constant([[1.0, 2.0], [3.0, 4.0]]), []

    def graph(module, inputs):
        copied.append(any(node.target == "to" for node in module.graph.nodes))
        return module.forward

    def product(rows):
        return rows @ constant.like(rows)

    rows = torch.zeros(3, 2, device="meta")
    torch.compile(product, backend=graph, fullgraph=True)(rows)
    constant.like(rows)
    torch.compile(product, backend=graph, fullgraph=True)(rows)
    assert copied == [True, False]
