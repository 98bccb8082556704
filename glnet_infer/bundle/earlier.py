"""Manifests of earlier schemas, turned into documents of the next one. Values are checked afterwards, as all are."""

from __future__ import annotations

from typing import Any

_LEARNED = ("convolution", "deconvolution", "matrix_multiply", "einsum")
"""Kinds of layers that a module's layers with weights become in TensorRT."""


def from_schema_1(document: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 from schema 1, which had one graph and hid those of engines in the record of their layers.

    It did not say how many nodes the engines' graph has, nor what the crop engine was built from. How many layers are in
    half precision is taken from what the engine was found to have.
    """
    runtime = {**document["graph"], "purpose": "runtime", "parity": document["parity"]}
    graphs, engines = {runtime["file"]["file"]: runtime}, []
    for old in document["engines"]:
        layers = {key: value for key, value in old["layers"].items() if key not in ("graph", "kept_in_float32")}
        parity = {key: value for key, value in old["parity"].items() if key != "module"}
        engine = {**old, "layers": layers, "parity": parity}
        file = old["layers"].get("graph")
        if file:
            engine["graph"] = file["file"]
            graphs.setdefault(
                file["file"],
                {
                    "file": file,
                    "purpose": "engines",
                    "precision": old["precision"],
                    "opset": runtime["opset"],
                    "nodes": 0,
                    "parity": old["parity"].get("module", {}),
                    "kept_in_float32": old["layers"].get("kept_in_float32", []),
                    "half_layers": sum(layers.get("kinds", {}).get(kind, {}).get("float16", 0) for kind in _LEARNED),
                },
            )
        engines.append(engine)
    rest = {key: value for key, value in document.items() if key not in ("graph", "parity")}
    return {**rest, "schema": 2, "graphs": list(graphs.values()), "engines": engines}
