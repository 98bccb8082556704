"""Meshes and arrays written to files: OBJ, PLY, GLB, NPZ, JSON.

Frames: arrays come in the camera's frame (x right, y down, z forward, metres). Mesh files are written in glTF's
convention, y up and z towards the viewer, which is ``(x, -y, -z)``: half a turn about x. It is a proper rotation, so
triangles keep their winding. NPZ and JSON are written as they come, unturned.

Every writer is atomic (:mod:`glnet_infer.files`).
"""

import json
import zipfile
from collections.abc import Mapping
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.errors import InputError
from glnet_infer.files import replace_file
from glnet_infer.results.drawing import DEFAULT_COLORS, vertex_normals
from glnet_infer.results.gltf import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, TO_GLTF, GltfBuffer, material


def write_obj(path: str | PathLike[str], vertices: NDArray[Any], faces: NDArray[Any]) -> None:
    """Write a Wavefront OBJ: one object ``person_i`` per person, coordinates to a micrometre.

    Args:
        path: Target file; replaced if it exists.
        vertices: (N,V,3) metres, camera coordinates. N may be 0.
        faces: (F,3) int, shared by all persons, counter-clockwise seen from outside.

    Raises:
        InputError: Arrays of the wrong shape, not finite, or faces that name missing vertices.
        OutputError: The file cannot be written.
    """
    points, triangles = _checked(vertices, faces)
    count = points.shape[1]
    blocks = ["# metres, y up, z towards the viewer\n"]
    # One format string for a whole block: several times faster than a loop over lines.
    for i, person in enumerate(points):
        blocks.append(f"o person_{i}\n")
        blocks.append("v %.6f %.6f %.6f\n" * count % tuple(person.ravel().tolist()))
        # OBJ counts vertices from 1 and through the whole file.
        blocks.append("f %d %d %d\n" * len(triangles) % tuple((triangles + 1 + i * count).ravel().tolist()))
    data = "".join(blocks).encode("ascii")
    replace_file(path, data)


def write_ply(path: str | PathLike[str], vertices: NDArray[Any], faces: NDArray[Any]) -> None:
    """Write a binary little-endian PLY: all persons in one mesh, and each vertex's number of its ``person`` (int).

    Args and errors are ``write_obj``'s.
    """
    points, triangles = _checked(vertices, faces)
    persons, count = points.shape[:2]
    vertex = np.zeros(persons * count, [("position", "<f4", 3), ("person", "<i4")])
    vertex["position"] = points.reshape(-1, 3)
    vertex["person"] = np.repeat(np.arange(persons), count)
    face = np.zeros(persons * len(triangles), [("size", "u1"), ("indices", "<i4", 3)])
    face["size"] = 3
    face["indices"] = (triangles + np.arange(persons)[:, None, None] * count).reshape(-1, 3)
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment metres, y up, z towards the viewer\n"
        f"element vertex {len(vertex)}\nproperty float x\nproperty float y\nproperty float z\nproperty int person\n"
        f"element face {len(face)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    data = header.encode("ascii") + vertex.tobytes() + face.tobytes()
    replace_file(path, data)


def write_glb(path: str | PathLike[str], vertices: NDArray[Any], faces: NDArray[Any]) -> None:
    """Write a binary glTF 2.0: a node and a mesh ``person_i`` per person, with normals and a colour; indices shared.

    Args and errors are ``write_obj``'s.
    """
    points, triangles = _checked(vertices, faces)
    replace_file(path, _glb(points, triangles))


def write_npz(path: str | PathLike[str], arrays: Mapping[str, ArrayLike], *, compress: bool = False) -> None:
    """Write arrays under their names for ``numpy.load``; equal arrays give equal bytes.

    Args:
        path: Target file; replaced if it exists.
        arrays: Arrays of numbers or text, by name.
        compress: Whether to deflate them.

    Raises:
        InputError: An array of Python objects, which only pickle could hold.
        OutputError: The file cannot be written.
    """
    plain = {name: np.asanyarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise InputError(f"Cannot write the array '{name}'.", why="it holds Python objects, not numbers")

    # Not numpy.savez: it takes the names as keywords and so stumbles over one called "file".
    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in plain.items():
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    replace_file(path, write)


def write_json(path: str | PathLike[str], document: object) -> None:
    """Write a JSON document, UTF-8, indented; NumPy arrays and numbers become lists and numbers.

    Raises:
        InputError: NaN or infinity, which JSON does not have, or a type that it does not know.
        OutputError: The file cannot be written.
    """

    def plain(value: object) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} has no JSON form")

    try:
        text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False, default=plain)
        data = (text + "\n").encode()
    except (TypeError, ValueError) as error:
        raise InputError("Cannot write this document as JSON.", why=str(error)) from error
    replace_file(path, data)


def _glb(points: NDArray[np.float32], triangles: NDArray[np.int64]) -> bytes:
    """Binary glTF of persons.

    Args:
        points: (N,V,3) metres, glTF's frame.
        triangles: (F,3).
    """
    document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "glnet-infer"}, "scene": 0, "scenes": [{}]}
    buffer = GltfBuffer()
    if not len(points):
        return buffer.pack(document)  # glTF has no empty lists: where there is nothing, the keys are left out
    indices = buffer.add(triangles.astype("<u4").ravel(), "SCALAR", target=ELEMENT_ARRAY_BUFFER, bounds=True)
    meshes = []
    for i, person in enumerate(points):
        position = buffer.add(person.astype("<f4"), "VEC3", target=ARRAY_BUFFER, bounds=True)
        normal = buffer.add(vertex_normals(person, triangles).astype("<f4"), "VEC3", target=ARRAY_BUFFER)
        primitive = {"attributes": {"POSITION": position, "NORMAL": normal}, "indices": indices}
        meshes.append({"name": f"person_{i}", "primitives": [primitive | {"material": i % len(DEFAULT_COLORS)}]})
    document["scenes"] = [{"nodes": list(range(len(meshes)))}]
    document["nodes"] = [{"name": mesh["name"], "mesh": i} for i, mesh in enumerate(meshes)]
    document["meshes"] = meshes
    document["materials"] = [material(color) for color in DEFAULT_COLORS[: len(meshes)]]
    return buffer.pack(document)


def _checked(vertices: NDArray[Any], faces: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Check the arrays; return vertices (N,V,3) in glTF's frame and faces (F,3)."""
    vertices, faces = np.asarray(vertices), np.asarray(faces)
    if vertices.ndim != 3 or vertices.shape[2] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        why = f"vertices are {vertices.shape}, not (N,V,3), or faces are {faces.shape}, not (F,3)"
        raise InputError("Cannot write these meshes.", why=why)
    if not np.isfinite(vertices).all():
        raise InputError("Cannot write these meshes.", why="a vertex is NaN or infinite")
    if len(vertices):
        last = vertices.shape[1] - 1
        if not faces.size or faces.dtype.kind not in "iu" or faces.min() < 0 or faces.max() > last:
            why = f"faces are {faces.dtype} {faces.shape} and must be vertex numbers from 0 to {last}, at least one face"
            raise InputError("Cannot write these meshes.", why=why)
    # Adding zero turns -0 into 0: no "-0.000000" in text.
    return (vertices * TO_GLTF + 0.0).astype(np.float32), faces.astype(np.int64)
