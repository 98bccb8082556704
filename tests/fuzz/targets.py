"""Every reader of files and values that somebody else made, with valid ones to begin from."""

import annotation_targets
import bundle_targets
import input_targets
import network_targets
import result_targets
from harness import Target

_ROOMS = (bundle_targets, network_targets, input_targets, result_targets, annotation_targets)

TARGETS = {target.name: target for room in _ROOMS for target in room.TARGETS}


def target(name: str) -> Target:
    """The target of a name."""
    return TARGETS[name]
