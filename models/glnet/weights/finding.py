"""Finding a network's weights in what training frameworks save, by one rule that says what it did.

The weights are the dictionary of tensors, at whatever depth, that has most of the network's names. What stands before these
names, the same for all of them, is taken off. Where several fit, the first that is no running average is taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from glnet.pickles import PickledObject, plain_items, words_for
from glnet.weights.fitting import examples
from glnet.weights.opening import CheckpointFile
from glnet.weights.tensors import OddTensor, is_tensor
from glnet_infer.errors import CheckpointError, printable, shortened
from glnet_infer.fields import quote

DEEPEST, MOST_DICTIONARIES, LONGEST_NAME = 4, 10_000, 512

LONGEST_LIST = 16
"""Items of a list that may hold weights, such as a pair with the optimizer's state."""

_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile and FSDP put into names, at any place."""

_COMMON = ("module.", "model.")
"""What DistributedDataParallel and Lightning put before all names."""

_AVERAGES = re.compile(
    r"(?:^|[._]|(?<=[a-z])(?=[A-Z]))(?i:ema|swa|avg|averaged|average|polyak|shadow|teacher|momentum|target|slow)"
    r"(?:[._]|$|(?<=[a-z])(?=[A-Z]))"
)
"""What running averages of weights are called; BYOL's target network and MoCo's momentum encoder are averages too."""


@dataclass(frozen=True)
class _Option:
    """A dictionary of tensors, with a prefix of its names.

    Attributes:
        path: Keys that lead to it.
        tensors: Its tensors.
        prefix: What is taken off their names.
        fits: How many of the network's names it has then.
        plain: Whether it holds nothing else.
    """

    path: tuple[str, ...]
    tensors: dict[str, Any]
    prefix: str
    fits: int
    plain: bool

    @property
    def label(self) -> str:
        """What ``--weights-key`` calls it."""
        return ".".join((*self.path, self.prefix.rstrip("."))).strip(".")

    def chosen_by(self, key: str) -> bool:
        """Whether ``--weights-key`` means this one, or what it is in."""
        return self.label == key or self.label.startswith(f"{key}.")


def find_weights(
    document: Any, names: Collection[str], key: str | None = None, *, path: Path
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The weights of a network in a checkpoint's document.

    Args:
        document: Content of the checkpoint.
        names: The network's own names; where there are none, the largest dictionary of tensors is taken.
        key: What to take where several could be meant: keys joined by dots.
        path: The file, for messages.

    Returns:
        Values by the network's names as far as they fit, and sentences on what was taken.

    Raises:
        CheckpointError: There is no dictionary of tensors, or the key names none.
    """
    options = [option for each in _dictionaries(document) for option in _options(*each, names)]
    usable = [option for option in options if option.fits or option.plain]
    if key is not None:
        usable = [option for option in options if option.chosen_by(key)]
        if not usable:
            labels = ", ".join(quote(label) for label in dict.fromkeys(option.label or "(top)" for option in options))
            raise CheckpointError(
                f"{path} has no weights under {quote(key)}.",
                why=f"it has {labels or 'none at all'}",
                fix="give one of these as --weights-key",
            )
    if not usable:
        raise CheckpointError(
            f"{path} is not a checkpoint.",
            why=f"it holds no state dict of tensors{_instead(document)}",
            fix="save the state dict itself, or a dictionary with it under 'state_dict' (docs/checkpoints.md)",
        )
    most = max(option.fits for option in usable)
    best = [option for option in usable if option.fits == most]
    if not most:
        best.sort(key=lambda option: -len(option.tensors))
    best.sort(key=lambda option: _AVERAGES.search(option.label) is not None)
    return _state(best[0]), _notes(best, bool(names) and most > 0)


def read_all(file: CheckpointFile, found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of weights that were found.

    Args:
        file: The open checkpoint.
        found: What :func:`find_weights` gave.
        path: The file, for messages.

    Raises:
        CheckpointError: One is no plain tensor.
    """
    odd = [f"{name} is {value.words}" for name, value in found.items() if isinstance(value, OddTensor)]
    if odd:
        raise CheckpointError(
            f"The checkpoint {path} was not read.",
            why=examples("no plain tensors", odd),
            fix="save the weights of the network before it was quantised or pruned, dense and on the CPU",
        )
    return {name: file.read(value) for name, value in found.items()}


def _dictionaries(document: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any], bool]]:
    """All dictionaries with tensors: the keys that lead there, the tensors, whether there is nothing else."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), document)]
    for path, value in waiting:  # grows meanwhile
        if id(value) in seen:
            continue
        seen.add(id(value))
        entries = _entries(value)
        tensors = {name: each for name, each in entries.items() if is_tensor(each)}
        if tensors and not isinstance(value, list | tuple):
            yield path, tensors, len(tensors) == len(entries)
        if len(path) < DEEPEST and len(waiting) < MOST_DICTIONARIES:
            waiting += [((*path, name), each) for name, each in entries.items() if _may_hold(each)]


def _may_hold(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | PickledObject) and not is_tensor(value)


def _entries(value: Any) -> dict[str, Any]:
    """What a dictionary of any class holds by its keys, or a short list by its places; else nothing."""
    if isinstance(value, PickledObject) and value.items is not None:
        return {name: each for name, each in value.items if isinstance(name, str)}
    if isinstance(value, list | tuple) and len(value) <= LONGEST_LIST:
        return {str(place): each for place, each in enumerate(value) if _may_hold(each)}
    return dict(plain_items(value))


def _options(path: tuple[str, ...], tensors: dict[str, Any], plain: bool, names: Collection[str]) -> Iterator[_Option]:
    """A dictionary's possible prefixes, those that fit best first."""
    votes: Counter[str] = Counter()
    for name in map(_unwrapped, tensors):
        if len(name) <= LONGEST_NAME:
            starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
            votes.update(name[:start] for start in starts if name[start:] in names)
    for prefix, fits in votes.most_common(8):
        yield _Option(path, tensors, prefix, fits, plain)
    if not votes:
        prefix = ""
        while (shared := next((each for each in _COMMON if _share(tensors, prefix + each)), "")) and len(prefix) < 64:
            prefix += shared
        yield _Option(path, tensors, prefix, 0, plain)


def _share(tensors: dict[str, Any], prefix: str) -> bool:
    return all(_unwrapped(name).startswith(prefix) for name in tensors)


def _unwrapped(name: str) -> str:
    return _WRAPPERS.sub("", name) if "_" in name[:LONGEST_NAME] else name


def _state(option: _Option) -> dict[str, Any]:
    names = {_unwrapped(name): value for name, value in option.tensors.items()}
    return {name[len(option.prefix) :]: value for name, value in names.items() if name.startswith(option.prefix)}


def _notes(best: list[_Option], known: bool) -> tuple[str, ...]:
    """Sentences on what was taken, where that is not plain."""
    taken, *others = best
    said = []
    wrapper = next((match[0] for name in taken.tensors if (match := _WRAPPERS.search(name))), "")
    removed = [_shown(each) for each in (wrapper, taken.prefix) if each]
    if removed:
        said.append(f"{' and '.join(removed)} taken off their names")
    beside = len(taken.tensors) - sum(_unwrapped(name).startswith(taken.prefix) for name in taken.tensors)
    if beside:
        said.append(f"{beside} tensors with other names left aside")
    also = [_shown(option.label) for option in others if option.label != taken.label] if known else []
    if also:
        listed = ", ".join(also[:3])
        said.append(f"{listed} would fit too: --weights-key chooses")
    if taken.path and (said or taken.path != ("state_dict",)):
        said.insert(0, f"weights of {_shown('.'.join(taken.path))}")
    return tuple(said)


def _shown(text: str) -> str:
    return repr(shortened(printable(text), 60))


def _instead(document: Any) -> str:
    """What a document holds in place of weights."""
    if isinstance(document, PickledObject):
        return f", but a pickled {shortened(printable(words_for(document)), 80)}; save its state_dict()"
    whole = [(name, value) for name, value in plain_items(document) if isinstance(value, PickledObject)]
    modules = [(name, value) for name, value in whole if isinstance(value.state, dict) and "_parameters" in value.state]
    if modules:
        name, value = modules[0]
        kind = shortened(printable(words_for(value)), 80)
        return f"; its {_shown(name)} is a whole pickled {kind}, of which the state_dict() is needed"
    keys = ", ".join(_shown(name) for name, _ in list(plain_items(document))[:5])
    return f"; its keys are {keys}" if keys else ""
