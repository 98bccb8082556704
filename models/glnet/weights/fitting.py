"""Whether weights are a network's: names, shapes and types are compared before any of their numbers is looked at."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glnet_infer.errors import CheckpointError, shortened

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and type of weights by their names."""

WITHOUT_EFFECT = ".num_batches_tracked"
"""Weights that may be missing: counters that only a training looks at."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32)


def layout(network: nn.Module) -> Layout:
    """The layout of a network's weights."""
    return {name: (tuple(value.shape), value.dtype) for name, value in network.state_dict().items()}


def fitted(state: Mapping[str, Tensor], wanted: Layout, *, what: str, fix: str) -> dict[str, Tensor]:
    """Weights of the types that a network has.

    Args:
        state: Weights of any origin.
        wanted: The network's layout.
        what: What happened where they do not fit, a sentence.
        fix: What the user can do about it.

    Raises:
        CheckpointError: Names, shapes or types are not the network's, or values are none of a trained network.
    """
    misfits = _misfits(state, wanted)
    if misfits:
        raise CheckpointError(what, why="; ".join(misfits), fix=fix)
    found = {name: value.to(dtype=wanted[name][1]) for name, value in state.items()}
    broken = [name for name, value in found.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            "The weights are not finite numbers.",
            why=examples("NaN or infinite", broken),
            fix="the training diverged before this was saved; use an earlier checkpoint",
        )
    negative = [name for name, value in found.items() if name.endswith("running_var") and (value < 0).any()]
    if negative:
        raise CheckpointError(
            "The weights are not those of a trained network.",
            why=examples("a variance below zero", negative),
            fix="copy the checkpoint again; check what was done to it since it was saved",
        )
    return found


def _wrong_kind(name: str, value: Tensor, dtype: torch.dtype) -> str:
    """What a tensor is that is no plain one of real numbers, or of whole ones; else an empty text."""
    if value.is_nested or value.is_quantized or value.is_meta or value.layout != torch.strided:
        return "no plain tensor"
    allowed = FLOATS if dtype.is_floating_point else INTEGERS
    fits = value.dtype in allowed or (name.endswith(WITHOUT_EFFECT) and value.dtype in FLOATS)
    return "" if fits else str(value.dtype).removeprefix("torch.")


def _misfits(state: Mapping[str, Tensor], wanted: Layout) -> list[str]:
    """How weights differ from a network's."""
    missing = sorted(name for name in set(wanted) - set(state) if not name.endswith(WITHOUT_EFFECT))
    shared = [(name, state[name], *wanted[name]) for name in wanted if name in state]
    wrong = {name: f"{name} is {kind}" for name, value, _, dtype in shared if (kind := _wrong_kind(name, value, dtype))}
    shapes = [
        f"{name} is {tuple(value.shape)}, not {shape}"
        for name, value, shape, _ in shared
        if name not in wrong and value.shape != shape
    ]
    labelled = (
        examples("missing", missing),
        examples("unknown", sorted(set(state) - set(wanted))),
        examples("wrong type", list(wrong.values())),
        examples("wrong shape", shapes),
    )
    return [text for text in labelled if text]


def examples(label: str, names: list[str]) -> str:
    """The first of some names after what they have in common; empty where there are none."""
    if not names:
        return ""
    shown = ", ".join(shortened(name, 80) for name in names[:3])
    return f"{label}: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
