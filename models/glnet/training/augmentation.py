"""Cheap changes of crops and their labels, alike for rendered and real ones."""

import torch
from torch import Tensor

from glnet.training.targets import Batch, Targets
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS, mirror_order

MIRRORED = 0.5
"""Share of crops that are mirrored."""

GAIN = 0.15
"""Colour channels are multiplied by up to 1 plus or minus this."""


def mirror(batch: Batch) -> Batch:
    """The batch as a mirror shows it: left and right change places.

    Shape parameters stay: the demo body is symmetric, and the field takes SMPL to be.
    """
    crops, targets = batch
    estimate = targets.estimate
    keypoints = estimate.keypoints
    places = mirror_order(SKELETON_JOINTS) + list(range(SKELETON_JOINTS, keypoints.shape[1]))
    joints = mirror_order(BODY_JOINTS)
    twists = [joint - 1 for joint in joints[1:]]
    flip = keypoints.new_tensor([-1.0, 1.0, 1.0])
    rotations = targets.rotations[:, joints] * flip * flip[:, None]
    if estimate.rotation.shape[1] == BODY_JOINTS:  # 6D: the first two columns, one after the other
        turned = joints
        rotation = estimate.rotation[:, joints] * flip.repeat(2) * keypoints.new_tensor([-1, -1, -1, 1, 1, 1])
    else:  # cosines and sines of the twists
        turned = twists
        rotation = estimate.rotation[:, twists] * keypoints.new_tensor([1.0, -1.0])
    return Batch(
        crops.flip(2),
        targets._replace(
            estimate=estimate._replace(
                keypoints=keypoints[:, places] * flip[:2], depths=estimate.depths[:, places], rotation=rotation
            ),
            keypoint_weights=targets.keypoint_weights[:, places],
            depth_weights=targets.depth_weights[:, places],
            rotation_weights=targets.rotation_weights[:, turned],
            rotations=rotations,
            pose_weights=targets.pose_weights[:, joints],
            cameras=targets.cameras * keypoints.new_tensor([1.0, 1.0, -1.0, 1.0]),
        ),
    )


def augment(batch: Batch, generator: torch.Generator) -> Batch:
    """Mirror half of the crops, and change the colours of all."""
    count, device = len(batch.crops), batch.crops.device
    chosen = (torch.rand(count, generator=generator) < MIRRORED).to(device)
    gain = (1 + GAIN * (2 * torch.rand(count, 1, 1, 3, generator=generator) - 1)).to(device)
    mirrored = mirror(batch)

    def either(changed: Tensor, kept: Tensor) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (kept.dim() - 1)), changed, kept)

    crops = (either(mirrored.crops, batch.crops) * gain).clamp_(max=255).to(torch.uint8)
    targets = Targets.concatenate([mirrored.targets, batch.targets])
    rows = torch.arange(count, device=device) + torch.where(chosen, 0, count)
    return Batch(crops, targets.map(lambda part: part[rows]))
