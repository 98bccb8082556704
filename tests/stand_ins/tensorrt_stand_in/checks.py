"""What many tests ask of results, errors and the machine."""

import numpy as np
import pytest

from glnet_infer import BackendError
from tensorrt_stand_in.computing import cut, results


def right(outputs, *inputs):
    """The outputs are those of crops and their cameras, or of a frame, its squares and their cameras."""
    *pictures, cameras = inputs
    expected = results(cut(*pictures) if len(pictures) == 2 else pictures[0], cameras)
    assert list(outputs) == list(expected)
    for name, values in expected.items():
        assert outputs[name].dtype == values.dtype
        np.testing.assert_array_equal(outputs[name], values, err_msg=name)


def refused(call, *words, kind=BackendError):
    """The call fails; the error says all of these words, the cause and the remedy."""
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert word in str(error.value), str(error.value)
    assert error.value.what and error.value.why and error.value.fix
    return error.value


def ways(machine):
    """Copies between host and device, as (from, to, bytes)."""
    return [event[1:] for event in machine.named("copy")]


def public_names(kind):
    """What a stand-in's class offers of the real one."""
    return sorted(name for name in vars(kind) if not name.startswith("_"))
