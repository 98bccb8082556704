import dataclasses

import numpy as np
import pytest
import torch

from glnet.adopted.hybrik import solve_scale
from glnet.adopted.hybrik_network import CELLS
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS, mirror_order

HYBRIK = ("hybrik-hrnet-w48", "hybrik-hrnet-w48-regression", "hybrik-resnet-34")
CROP = 256


def test_the_expected_place_is_numpys(fabricated, rng):
    logits = rng.normal(scale=5, size=(2, SKELETON_JOINTS * CELLS, CELLS, CELLS)).astype(np.float32)
    found = fabricated("hybrik-resnet-34").network.places(torch.from_numpy(logits), None).double().numpy()
    volume = logits.reshape(2, SKELETON_JOINTS, -1).astype(np.float64)
    shares = np.exp(volume - volume.max(-1, keepdims=True))
    shares = (shares / shares.sum(-1, keepdims=True)).reshape(2, SKELETON_JOINTS, CELLS, CELLS, CELLS)
    cells = np.arange(CELLS) / CELLS - 0.5
    for axis, name in enumerate("zyx"):
        others = tuple(each + 2 for each in range(3) if each != axis)
        wanted = shares.sum(others) @ cells
        column = "xyz".index(name)
        unit = 2200 if name == "z" else CROP  # millimetres, crop pixels
        assert np.abs(found[..., column] - wanted).max() * unit < (0.01 if name == "z" else 1e-3)


def test_the_scale_is_that_of_least_squares(rng):
    crops, joints = 40, BODY_JOINTS
    seen = rng.uniform(-0.4, 0.4, (crops, joints, 2))
    placed = np.concatenate(
        [rng.normal(scale=0.4, size=(crops, joints, 2)), rng.normal(scale=0.2, size=(crops, joints, 1))], -1
    )
    weights, cameras = rng.uniform(0, 1, (crops, joints, 1)), np.tile([3.9, 3.9, 0.0, 0.0], (crops, 1))
    cameras[:, 2:] = rng.uniform(-1, 1, (crops, 2))
    # Persons, not clouds: joints are where their pixels see them, but for some centimetres.
    rays = (seen - cameras[:, None, 2:]) / cameras[:, None, :2]
    placed[..., :2] = rays * (placed[..., 2:] + 8) + rng.normal(scale=0.02, size=(crops, joints, 2))
    found = solve_scale(
        *(torch.tensor(each, dtype=torch.float32) for each in (seen, placed, weights, cameras)), torch.ones(crops, 1)
    )
    for crop in range(crops):
        matrix = (weights[crop] * rays[crop] * cameras[crop, 0]).reshape(-1, 1)
        right = (weights[crop] * (placed[crop, :, :2] - rays[crop] * placed[crop, :, 2:])).reshape(-1)
        inverse = np.linalg.lstsq(matrix, right, rcond=None)[0][0]
        assert abs(float(found[crop, 0]) * inverse - 1) < 1e-5


def test_without_weights_the_networks_scale_is_kept():
    zero = torch.zeros(2, BODY_JOINTS, 1)
    cameras = torch.tensor([[3.9, 3.9, 0.0, 0.0]]).expand(2, 4)
    own = torch.tensor([[0.7], [0.8]])
    found = solve_scale(torch.rand(2, BODY_JOINTS, 2), torch.rand(2, BODY_JOINTS, 3), zero, cameras, own)
    assert torch.equal(found, own)


@pytest.mark.parametrize("form", HYBRIK)
def test_the_bent_body_lies_on_its_keypoints(fabricated, random_crops, form):
    recovery = fabricated(form)
    cameras = torch.tensor([[3.9, 3.9, 0.0, 0.0], [5.0, 5.0, 0.6, -0.3]])
    with torch.no_grad():
        found = recovery(random_crops(2, CROP), cameras)
    pixels = (found.joints[:, 0, :2] / found.joints[:, 0, 2:] * cameras[:, :2] + cameras[:, 2:] + 0.5) * CROP
    assert (pixels - found.keypoints_2d[:, 0]).abs().max() < 0.01  # the root is where its keypoint is, in crop pixels
    assert all(each.isfinite().all() for each in found) and (found.confidence > 0).all() and (found.confidence < 1).all()


def test_the_average_with_the_mirrored_crop_is_numpys(fabricated, rng):
    """The authors move logits by a column, repeating the first, before they are shares: float64 here."""
    network = fabricated("hybrik-resnet-34", flip_test=True).network
    seen, other = rng.normal(scale=3, size=(2, 1, SKELETON_JOINTS * CELLS, CELLS, CELLS)).astype(np.float32)
    found = network.places(torch.from_numpy(seen), torch.from_numpy(other)).double().numpy()
    turned = other.reshape(1, SKELETON_JOINTS, CELLS, CELLS, CELLS)[..., ::-1][:, mirror_order(SKELETON_JOINTS)]
    turned = np.concatenate([turned[..., :1], turned[..., :-1]], axis=-1)
    maps = []
    for volume in (seen.reshape(turned.shape), turned):
        weights = np.exp(volume.astype(np.float64) - volume.max((2, 3, 4), keepdims=True))
        maps.append(weights / weights.sum((2, 3, 4), keepdims=True))
    mean, cells = (maps[0] + maps[1]) / 2, np.arange(CELLS) / CELLS - 0.5
    wanted = np.stack([mean.sum((2, 3)) @ cells, mean.sum((2, 4)) @ cells, mean.sum((3, 4)) @ cells], axis=-1)
    assert np.abs(found - wanted).max() * CROP < 1e-3  # crop pixels


def mirrored_answer(joints, twists, betas, scale, sigma):
    """What a network that is right says of the mirrored crop."""
    bodies = mirror_order(BODY_JOINTS)
    joints = (joints * torch.tensor([-1.0, 1.0, 1.0]))[:, mirror_order(SKELETON_JOINTS)]
    twists = (twists * torch.tensor([1.0, -1.0]))[:, [joint - 1 for joint in bodies[1:]]]
    return joints, twists, betas, scale, sigma[:, mirror_order(SKELETON_JOINTS)]


def peaks(joints):
    """Logits of heat maps that are normal distributions about joints: N x 29 * 64 x 64 x 64."""
    cells = torch.arange(CELLS) / CELLS - 0.5
    x, y, z = (-(((cells - joints[..., axis, None]) * CELLS / 1.2) ** 2) / 2 for axis in range(3))
    return (z[..., :, None, None] + y[..., None, :, None] + x[..., None, None, :]).flatten(1, 2)


@pytest.mark.parametrize("form", HYBRIK)
def test_a_mirrored_crop_and_camera_give_the_mirrored_mesh(
    fabricated, symmetric_body, plausible_poses, random_crops, rng, form, monkeypatch
):
    """The network sees a person well, the mirrored one a little differently. So no bone is near the 15 mm rule."""
    recovery, count = fabricated(form, flip_test=True), 3
    network, crops = recovery.network, random_crops(count, CROP, seed=3)
    cameras = torch.tensor([[3.9, 3.9, 0.2, 0.0], [5.0, 5.0, -0.6, -0.3], [4.0, 4.0, 0.0, 0.1]])
    local = torch.tensor(plausible_poses(count), dtype=torch.float32)
    betas, scale = torch.tensor(rng.normal(size=(count, 10)), dtype=torch.float32), torch.full((count, 1), 0.4)
    rest, chained = symmetric_body.rest_joints(betas), symmetric_body.kinematics.chain(local)
    truth = symmetric_body.pose(local, betas).joints
    distance = cameras[:, :1] / scale
    root = torch.cat([-cameras[:, 2:] / cameras[:, :2], torch.ones(count, 1)], dim=1) * distance
    truth = truth - truth[:, :1] + root[:, None]
    places = truth[..., :2] / truth[..., 2:] * cameras[:, None, :2] + cameras[:, None, 2:]
    joints = torch.cat([places, (truth[..., 2:] - truth[:, :1, 2:]) / 2.2], dim=-1)
    right = (joints, symmetric_body.kinematics.twist(chained, rest), betas, scale, torch.full((count, 29), 0.02))
    half = torch.tensor([0.5 / CROP, 0.5 / CROP, 0.0])  # the authors count pixels from their middles
    spreads, answers = (5e-4, 0.02, 0.02, 0.004, 0.01), {}
    for which, answer in (("crop", right), ("mirror", mirrored_answer(*right))):
        noise = (
            torch.tensor(rng.normal(scale=spread, size=part.shape)) for part, spread in zip(answer, spreads, strict=True)
        )
        answers[which] = [part + each.float() for part, each in zip(answer, noise, strict=True)]
        answers[which][0] -= half
    original = network.normalization(crops)

    def features(images):
        first, second = images.chunk(2)
        which = ("crop", "mirror") if torch.equal(first, original) else ("mirror", "crop")
        assert torch.equal(second, first.flip(3)) and (which[0] == "crop" or torch.equal(second, original))
        seen = torch.cat([answers[each][0] for each in which])
        return (seen.flatten(1) if "regression" in form else peaks(seen)), which

    def heads(which):
        return tuple(torch.cat([answers[each][part] for each in which]) for part in (2, 1, 3, 4))

    monkeypatch.setattr(network, "features", features)
    monkeypatch.setattr(network, "_heads", heads)
    if "regression" in form:
        monkeypatch.setitem(network._modules, "fc_coord", torch.nn.Identity())  # the network is shared
    with torch.no_grad():
        seen = recovery(crops, cameras)
        mirrored = recovery(crops.flip(2), cameras * torch.tensor([1.0, 1.0, -1.0, 1.0]))
    turn = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    pairs = torch.arange(len(seen.vertices[0])).roll(len(seen.vertices[0]) // 2)
    order = mirror_order(SKELETON_JOINTS)
    keypoints = (seen.keypoints_2d * torch.tensor([-1.0, 1.0]) + torch.tensor([float(CROP), 0.0]))[:, order]
    assert (mirrored.keypoints_2d - keypoints).abs().max() < 0.01  # crop pixels
    wanted = (turn @ seen.rotations @ turn)[:, mirror_order(BODY_JOINTS)]
    torch.testing.assert_close(mirrored.rotations, wanted, atol=1e-4, rtol=0)
    # Persons are ten metres away, where float32 steps by 1e-6 m.
    assert (mirrored.vertices - (seen.vertices @ turn)[:, pairs]).norm(dim=-1).max() < 1e-4
    assert (mirrored.joints - (seen.joints @ turn)[:, order]).norm(dim=-1).max() < 1e-4
    torch.testing.assert_close(mirrored.betas, seen.betas, atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored.confidence, seen.confidence, atol=1e-5, rtol=0)
    # It is the mesh of the person: it is off by what the answers are, a millimetre and 1 per cent of the scale.
    assert (seen.keypoints_2d - (places + 0.5) * CROP).abs().max() < 0.5  # crop pixels
    assert (seen.joints - seen.joints[:, :1] - truth + truth[:, :1]).norm(dim=-1).max() < 0.03


@pytest.mark.parametrize("form", HYBRIK)
def test_the_mirrored_crop_is_looked_at_in_the_same_pass(fabricated, random_crops, form):
    """A graph whose weights are used twice keeps its batch norms, which int8 and TensorRT fold into convolutions."""
    recovery, passes = fabricated(form, flip_test=True), []
    layers = [each for each in recovery.network.modules() if isinstance(each, torch.nn.Conv2d)]
    hooks = [each.register_forward_hook(lambda layer, images, _: passes.append((layer, len(images[0])))) for each in layers]
    with torch.no_grad():
        recovery(random_crops(1, CROP), torch.tensor([[4.0, 4.0, 0.0, 0.0]]))
    for hook in hooks:
        hook.remove()
    assert {layer for layer, _ in passes} == set(layers) and len(passes) == len(layers)
    assert all(crops == 2 for _, crops in passes)


def test_the_flip_test_is_said_in_the_configuration(fabricated):
    assert fabricated(HYBRIK[1], flip_test=True).to_document() == {
        "adopted": HYBRIK[1],
        "flip_test": True,
        "crop": dataclasses.asdict(fabricated(HYBRIK[1]).crop),
        "body": "smpl",
    }
