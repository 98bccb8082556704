"""The list of real datasets, a JSON file that the user writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from glnet.body.smpl import Body
from glnet_infer.contract import CropSpec
from glnet_infer.errors import InputError, first_line
from glnet_infer.fields import quote
from glnet_infer.files import read_json
from glnet_infer.numbers import is_number
from glnet_train.data.annotation import LABEL_MASKS, LabelMask
from glnet_train.data.coco import read_coco
from glnet_train.data.dataset import AnnotatedImages
from glnet_train.data.hybrik import read_3dpw_json, read_h36m, read_mpi_inf_3dhp
from glnet_train.data.mixture import HYBRIK_RATIOS, Mixture
from glnet_train.data.three_dpw import read_3dpw

READERS: dict[str, tuple[tuple[str, ...], Callable[..., AnnotatedImages]]] = {
    "h36m": (("annotations", "images"), lambda places, body, **kw: read_h36m(**places, body=body, **kw)),
    "3dhp": (("annotations", "images"), lambda places, body, **kw: read_mpi_inf_3dhp(**places, **kw)),
    "coco": (("annotations", "images"), lambda places, body, **kw: read_coco(**places, **kw)),
    "3dpw-json": (("annotations", "images"), lambda places, body, **kw: read_3dpw_json(**places, body=body, **kw)),
    "3dpw": (("root", "split"), lambda places, body, **kw: read_3dpw(**places, body=body, **kw)),
}
"""For each reader, the keys that say where its files lie, and the function that reads them."""


def load_datasets(path: Path, body: Body, spec: CropSpec) -> tuple[list[AnnotatedImages], list[float]]:
    """Read the datasets that a JSON file lists.

    The file holds a list of objects. ``reader`` is one of :data:`READERS`. ``annotations`` and ``images`` are its files,
    relative to the list; ``3dpw`` has ``root`` and ``split`` instead. Two keys are optional: ``ratio`` (by default
    HybrIK's), and ``labels``, which switches kinds of labels on and off (:class:`glnet_train.data.LabelMask`).

    Args:
        path: The file.
        body: The network's body, SMPL for these datasets.
        spec: Size and padding of the network's crops.

    Returns:
        The datasets, and the share of each in a mixture.

    Raises:
        InputError: The list or a dataset cannot be used.
    """
    fix = (
        'write the list of datasets like [{"reader": "coco", "annotations": "a.json", "images": "b"}]; see docs/training.md'
    )
    entries = read_json(path, InputError, fix=fix)
    try:
        if not isinstance(entries, list) or not entries:
            raise ValueError("it is not a list of datasets")
        for entry in entries:
            _check(entry)
    except ValueError as error:
        raise InputError(f"The list of datasets {path} was not read.", why=first_line(error), fix=fix) from error
    datasets, ratios = [], []
    for entry in entries:
        kind = entry["reader"]
        family = kind.removesuffix("-json")
        needed, read = READERS[kind]
        places = {key: entry[key] if key == "split" else path.parent / entry[key] for key in needed}
        mask = LabelMask(**{**vars(LABEL_MASKS[family]), **entry.get("labels", {})})
        if body.data.name == "demo" and (mask.rotations or mask.betas or mask.twists):
            raise InputError(
                f"{kind} does not fit a network of the demo body.",
                why="its rotations, shapes and twists are SMPL's",
                fix='use a network configuration with "body": "smpl", or leave these labels out: '
                '"labels": {"rotations": false, "betas": false, "twists": false}',
            )
        datasets.append(read(places, body, mask=mask, spec=spec))
        ratios.append(entry.get("ratio", HYBRIK_RATIOS[family]))
    return datasets, ratios


def load_mixture(path: Path, body: Body, spec: CropSpec, seed: int) -> Mixture:
    """The mixture of the datasets that a file lists (:func:`load_datasets`); the seed gives its order."""
    return Mixture(*load_datasets(path, body, spec), seed)


def _check(entry: Any) -> None:
    """Raise ValueError where an entry is not as :func:`load_datasets` describes it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("reader"), str) or entry["reader"] not in READERS:
        raise ValueError(f"an entry's reader is not one of {', '.join(READERS)}")
    needed = READERS[entry["reader"]][0]
    unknown = set(entry) - {"reader", "ratio", "labels", *needed}
    missing = [key for key in needed if not isinstance(entry.get(key), str)]
    if missing or unknown:
        wrong = [*(f"lacks {key!r}" for key in missing), *(f"has an unknown {key!r}" for key in sorted(unknown))]
        raise ValueError(f"the entry for {entry['reader']} {', '.join(wrong)}")
    if not is_number(entry.get("ratio", 1)) or not entry.get("ratio", 1) >= 0:
        raise ValueError(f"the ratio {quote(entry['ratio'])} of {entry['reader']} is not a share")
    labels = entry.get("labels", {})
    known = LabelMask.__dataclass_fields__
    if not isinstance(labels, dict) or any(key not in known or not isinstance(on, bool) for key, on in labels.items()):
        raise ValueError(f"labels of {entry['reader']} are not true or false for some of {', '.join(known)}")
