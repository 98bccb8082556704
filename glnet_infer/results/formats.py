"""Meshes and arrays written to files: OBJ, PLY, GLB, NPZ, JSON.

Frames: arrays come in the camera's frame (x right, y down, z forward, metres). Mesh files are written in glTF's
convention, y up and z towards the viewer, which is ``(x, -y, -z)``: half a turn about x. It is a proper rotation, so
triangles keep their winding. NPZ and JSON are written as they come, unturned.

Every writer is atomic (:mod:`glnet_infer.files`).
"""

import json
import struct
import zipfile
from collections.abc import Mapping
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.errors import InputError
from glnet_infer.files import replace_file
from glnet_infer.results.drawing import DEFAULT_COLORS, vertex_normals

_TO_GLTF = np.array([1.0, -1.0, -1.0])

# glTF 2.0 specification, sections 3.6 (accessors, buffer views) and 4.4 (GLB).
_GLB_MAGIC, _CHUNK_JSON, _CHUNK_BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _UNSIGNED_INT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963


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
    document, binary = _gltf(points, triangles)
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), _CHUNK_JSON) + text
    if binary:
        chunks += struct.pack("<II", len(binary), _CHUNK_BIN) + binary
    data = struct.pack("<III", _GLB_MAGIC, 2, 12 + len(chunks)) + chunks
    replace_file(path, data)


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


def _gltf(points: NDArray[np.float32], triangles: NDArray[np.int64]) -> tuple[dict[str, Any], bytes]:
    """Build glTF's JSON document and its one buffer.

    Args:
        points: (N,V,3) metres, glTF's frame.
        triangles: (F,3).
    """
    document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "glnet-infer"}, "scene": 0, "scenes": [{}]}
    if not len(points):
        return document, b""  # glTF has no empty lists: where there is nothing, the keys are left out
    buffer = bytearray()
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []

    def add(array: NDArray[Any], component: int, target: int, extra: dict[str, Any]) -> int:
        # All components are four bytes wide, so every offset is aligned without padding.
        data = array.tobytes()
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(data), "target": target})
        buffer.extend(data)
        accessors.append({"bufferView": len(views) - 1, "componentType": component, **extra})
        return len(accessors) - 1

    shared = {"type": "SCALAR", "count": triangles.size, "min": [int(triangles.min())], "max": [int(triangles.max())]}
    indices = add(triangles.astype("<u4"), _UNSIGNED_INT, _ELEMENT_ARRAY_BUFFER, shared)
    meshes = []
    for i, person in enumerate(points):
        vector = {"type": "VEC3", "count": len(person)}
        bounds = {"min": person.min(axis=0).tolist(), "max": person.max(axis=0).tolist()}
        position = add(person.astype("<f4"), _FLOAT, _ARRAY_BUFFER, vector | bounds)
        normal = add(vertex_normals(person, triangles).astype("<f4"), _FLOAT, _ARRAY_BUFFER, vector)
        primitive = {"attributes": {"POSITION": position, "NORMAL": normal}, "indices": indices}
        meshes.append({"name": f"person_{i}", "primitives": [primitive | {"material": i % len(DEFAULT_COLORS)}]})
    document["scenes"] = [{"nodes": list(range(len(meshes)))}]
    document["nodes"] = [{"name": mesh["name"], "mesh": i} for i, mesh in enumerate(meshes)]
    document["meshes"] = meshes
    document["materials"] = [_material(color) for color in DEFAULT_COLORS[: len(meshes)]]
    document["accessors"] = accessors
    document["bufferViews"] = views
    document["buffers"] = [{"byteLength": len(buffer)}]
    return document, bytes(buffer)


def _material(bgr: tuple[int, int, int]) -> dict[str, Any]:
    """A matte one-sided material; glTF's factors are linear light, the palette is sRGB (IEC 61966-2-1)."""
    srgb = np.array(bgr[::-1]) / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    color = [*np.round(linear, 4).tolist(), 1.0]
    surface = {"baseColorFactor": color, "metallicFactor": 0.0, "roughnessFactor": 0.8}
    return {"pbrMetallicRoughness": surface, "doubleSided": False}


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
    return (vertices * _TO_GLTF + 0.0).astype(np.float32), faces.astype(np.int64)
