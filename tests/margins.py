"""How near each comparison of the tests comes to its bound: a pytest plugin, and the page made of several runs.

    PYTHONPATH=tests PYTHONPYCACHEPREFIX=/tmp/margins pytest -p margins -o enable_assertion_pass_hook=true --margins FILE
    python tests/margins.py FILE...

Each run has one of the settings of ``make test-cpus``. Only comparisons of fractions count, and only those that differ
between the settings: what every CPU computes alike needs no margin. Three tests of garbage collection fail under the
plugin, whose explanations hold on to what they compare.
"""

import json
import math
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

NUMBER = r"(?:(?:np\.float\d+|tensor)\()?(-?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf))(?:, dtype=[\w.]+)?\)?"
COMPARISON = re.compile(rf"(?<![\w.]){NUMBER} (<=?|>=?) {NUMBER}(?![\w.])")
WORTH_A_LINE = 0.5
"""Share of its bound from which a comparison is told: a factor of two is kept above the worst that was measured."""

shares: dict[str, float] = {}
"""Largest share of its bound that each place of a test took."""


def note(place: str, share: float) -> None:
    shares[place] = max(shares.get(place, 0.0), share)


def share_of(measured: float, relation: str, bound: float) -> float:
    """What part of its bound a passing comparison takes; 1 at the bound."""
    small, large = (measured, bound) if relation[0] == "<" else (bound, measured)
    return abs(small / large) if large else 1.0


def caller() -> str:
    """The innermost line of a test's file on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if f"{os.sep}tests{os.sep}" in path and path != __file__:
            return f"{path[path.rindex(f'{os.sep}tests{os.sep}') + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def largest_share(actual, expected, rtol: float, atol: float) -> float:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    allowed = atol + rtol * np.abs(expected)
    with np.errstate(all="ignore"):
        taken = np.abs(actual - expected) / allowed
    taken = taken[np.isfinite(taken)]
    return float(taken.max(initial=0.0))


# The plugin


def pytest_addoption(parser):
    parser.addoption("--margins", help="File that the shares are added to.")


def pytest_configure(config):
    import torch

    scalar = type(pytest.approx(1.0))
    allclose, close, equal = np.testing.assert_allclose, torch.testing.assert_close, scalar.__eq__

    def assert_allclose(actual, desired, rtol=1e-7, atol=0, **options):
        allclose(actual, desired, rtol, atol, **options)
        note(caller(), largest_share(actual, desired, rtol, atol))

    def assert_close(actual, expected, *, rtol=None, atol=None, **options):
        close(actual, expected, rtol=rtol, atol=atol, **options)
        if isinstance(actual, torch.Tensor) and actual.is_floating_point():
            widths = (1.3e-6, 1e-5) if rtol is None else (rtol, atol)
            note(caller(), largest_share(actual.detach().double(), expected.detach().double(), *widths))

    def approximately(self, actual):
        same = equal(self, actual)
        if same and isinstance(self.expected, float) and math.isfinite(self.expected) and np.ndim(actual) == 0:
            note(caller(), abs(float(actual) - self.expected) / self.tolerance if self.tolerance else 0.0)
        return same

    np.testing.assert_allclose, torch.testing.assert_close = assert_allclose, assert_close
    scalar.__eq__ = approximately


def pytest_assertion_pass(item, lineno, orig, expl):
    for match in COMPARISON.finditer(expl.splitlines()[0] if expl else ""):
        measured, relation, bound = match.groups()
        if "." in measured + bound or "e" in measured + bound:
            note(f"{item.location[0]}:{lineno}", share_of(float(measured), relation, float(bound)))


def pytest_sessionfinish(session):
    if (path := session.config.getoption("--margins")) and shares:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(shares) + "\n")


# The page


def main(paths: list[str]) -> None:
    """Print the comparisons that take more than half of their bound somewhere, and differ between the runs."""
    runs = [defaultdict(float) for _ in paths]
    for run, path in zip(runs, paths, strict=True):
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            for place, share in json.loads(line).items():
                run[place] = max(run[place], share)
    places = sorted(set().union(*runs))
    told = 0
    for place in places:
        each = [run[place] for run in runs if place in run]
        if max(each) > WORTH_A_LINE and not math.isclose(min(each), max(each), rel_tol=1e-9):
            told += 1
            print(place, *(f"{run[place]:.3f}" if place in run else "-" for run in runs))
    print(f"{len(places)} comparisons of fractions, {told} of them above {WORTH_A_LINE} of their bound in some run")


if __name__ == "__main__":
    main(sys.argv[1:])
