"""The parts that binary glTF 2.0 files have in common: one buffer with its accessors, the container, a material."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

TO_GLTF = np.array([1.0, -1.0, -1.0])
"""From the camera's axes to y up and z towards the viewer: half a turn about x, so triangles keep their winding."""

# glTF 2.0 specification, sections 3.6 (accessors, buffer views) and 4.4 (GLB).
_GLB_MAGIC, _CHUNK_JSON, _CHUNK_BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"f4": 5126, "u4": 5125, "u1": 5121}


class GltfBuffer:
    """Arrays, one after the other, and the accessors that say what they are. Elements take multiples of four bytes."""

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self._data = bytearray()
        self._views: list[dict[str, Any]] = []

    def add(self, array: NDArray[Any], kind: str, *, target: int | None = None, bounds: bool = False) -> int:
        """Append an array; the number of its accessor.

        Args:
            array: One element a row, little-endian: ``<f4``, ``<u4`` or ``u1``.
            kind: ``SCALAR``, ``VEC3``, ``VEC4`` or ``MAT4``.
            target: What a GPU uses it for; None for animations and matrices.
            bounds: Whether least and largest elements are given.
        """
        data = array.tobytes()
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data)}
        self._views.append(view if target is None else view | {"target": target})
        self._data.extend(data)
        component = _COMPONENTS[array.dtype.str[1:]]
        entry: dict[str, Any] = {"bufferView": len(self._views) - 1, "componentType": component, "type": kind}
        entry["count"] = len(array)
        if bounds:
            columns = np.ascontiguousarray(array.reshape(len(array), -1).T)  # NumPy is slow along an axis of three
            entry |= {"min": columns.min(axis=1).tolist(), "max": columns.max(axis=1).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def pack(self, document: dict[str, Any]) -> bytes:
        """The GLB of a document, which the buffer completes; an empty buffer is left out, as glTF wants it."""
        if self._data:
            document = document | {
                "accessors": self.accessors,
                "bufferViews": self._views,
                "buffers": [{"byteLength": len(self._data)}],
            }
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), _CHUNK_JSON) + text
        if self._data:
            chunks += struct.pack("<II", len(self._data), _CHUNK_BIN) + bytes(self._data)
        return struct.pack("<III", _GLB_MAGIC, 2, 12 + len(chunks)) + chunks


def material(bgr: tuple[int, int, int]) -> dict[str, Any]:
    """A matte one-sided material; glTF's factors are linear light, the palette is sRGB (IEC 61966-2-1)."""
    srgb = np.array(bgr[::-1]) / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    color = [*np.round(linear, 4).tolist(), 1.0]
    surface = {"baseColorFactor": color, "metallicFactor": 0.0, "roughnessFactor": 0.8}
    return {"pbrMetallicRoughness": surface, "doubleSided": False}
