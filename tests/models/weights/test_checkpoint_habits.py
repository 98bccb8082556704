"""Checkpoints as training frameworks save them: weights are found under any wrapper and prefix, and it is said where."""

import argparse
import collections
import datetime
import functools
import itertools
import os
import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from glnet.checkpoint import Checkpoint

PREFIXES = (
    "module.",
    "_orig_mod.",
    "_orig_mod.module.",
    "module._orig_mod.",
    "model.",
    "net.backbone_and_heads.",
    "a.b.c.",
)


def named(state, prefix):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model"])
def test_a_prefix_of_all_names_is_taken_off_and_said(state, read, assert_loads, prefix, wrapper):
    document = named(state, prefix)
    said = assert_loads(read({wrapper: document, "epoch": 3} if wrapper else document))
    for part in {each + "." for each in prefix.split(".") if each in ("_orig_mod", "module", "model")}:
        assert part in said


@pytest.mark.parametrize("prefix", PREFIXES)
def test_our_own_document_may_have_a_prefix_inside(checkpoint, state, path, assert_loads, prefix):
    torch.save(
        {
            "format": "glnet-checkpoint",
            "version": 1,
            "config": checkpoint.config.to_dict(),
            "state_dict": named(state, prefix),
        },
        path,
    )
    found = Checkpoint.load(path)
    assert found.says_body
    assert "taken off" in assert_loads(found)


def test_names_of_a_compiled_part_are_taken_for_its_own(state, read, assert_loads):
    document = {name.replace("backbone.", "backbone._orig_mod.", 1): value for name, value in state.items()}
    assert "_orig_mod" in assert_loads(read(document))


@pytest.mark.parametrize("wrapper", ["model", "model_state_dict", "net", "params", "ema", "generator"])
def test_weights_may_lie_under_any_key_beside_other_things(state, read, assert_loads, wrapper):
    optimizer = {"state": {0: {"exp_avg": torch.zeros(5), "step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    said = assert_loads(read({"epoch": 7, "optimizer": optimizer, wrapper: state, "loss": [0.3, 0.2]}))
    assert repr(wrapper) in said


class Bunch(dict):
    """A dictionary of its own class, whose keys are attributes too."""


@pytest.mark.parametrize(
    "wrap, place",
    [
        (lambda state, rest: (state, rest), "0"),
        (lambda state, rest: [rest, {"net": state}], "1.net"),
        (lambda state, rest: Bunch(weights=state, rest=rest), "weights"),
        (lambda state, rest: {"model": Bunch(state), "optimizer": rest}, "model"),
    ],
    ids=["pair", "list", "own class", "state of own class"],
)
def test_weights_may_lie_in_pairs_and_in_dictionaries_of_other_classes(state, read, assert_loads, wrap, place):
    assert assert_loads(read(wrap(state, {"lr": 0.1, "steps": list(range(50))}))) == f"weights of {place!r}"


def test_the_counter_of_an_average_is_left_aside(state, read, assert_loads):
    """As ``torch.optim.swa_utils.AveragedModel`` holds it."""
    said = assert_loads(read({"n_averaged": torch.tensor(5), **named(state, "module.")}))
    assert "1 tensors with other names left aside" in said


def test_a_plain_checkpoint_of_ours_says_nothing(checkpoint, path, assert_loads):
    checkpoint.save(path, metrics={"pve_mm": 12.5})
    assert not assert_loads(Checkpoint.load(path))


AVERAGES = ["state_dict_ema", "ema", "model_ema", "modelEMA", "teacher", "polyak", "momentum_encoder", "target_network"]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("first", [True, False])
def test_of_raw_and_averaged_weights_the_raw_are_taken_and_the_others_named(state, read, assert_loads, average, first):
    averaged = {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}
    document = {average: averaged, "state_dict": state} if first else {"state_dict": state, average: averaged}
    said = assert_loads(read(document))
    assert "'state_dict'" in said
    assert f"{average!r} would fit too: --weights-key" in said
    assert assert_loads(read(key=average), averaged) == f"weights of {average!r}"


def test_averages_that_differ_by_prefix_alone_are_told_apart(state, read, assert_loads):
    averaged = {name: value * 2 if value.is_floating_point() else value for name, value in state.items()}
    both = {**named(averaged, "ema_model."), **named(state, "model."), "loss.weight": torch.zeros(3)}
    said = assert_loads(read({"state_dict": both}))
    assert f"{len(state) + 1} tensors with other names left aside" in said
    assert "'state_dict.ema_model'" in said
    assert_loads(read(key="state_dict.ema_model"), averaged)


def test_a_key_that_names_no_weights_is_answered_with_those_that_do(state, path, refused):
    torch.save({"model": state, "teacher": {"network": dict(state)}}, path)
    text = refused("mode")
    assert "'mode'" in text
    assert "'model', 'teacher.network'" in text
    assert "--weights-key" in text


class Foreign:
    """A class that only whoever trained has."""

    def __init__(self, **values):
        self.__dict__.update(values)


class Settings(dict):
    """A dictionary of its own kind, as yacs' nodes are."""


def test_settings_numbers_and_arrays_beside_the_weights_are_left_aside(state, read, assert_loads):
    beside = {
        "best": np.float64(41.8),
        "count": np.int64(3),
        "history": np.arange(6.0).reshape(2, 3),
        "names": np.array(["a", "b"]),
        "args": argparse.Namespace(lr=1e-3, out=Path("runs"), when=datetime.date(2024, 5, 17)),
        "cfg": Settings(MODEL=Settings(NAME="x", SIZE=[256, 192]), **{"EPOCHS": 3}),
        "hyper_parameters": Foreign(width=32, inner=Foreign(kind=collections.OrderedDict(a=1))),
        "seen": {1, 2, 3},
        "kept": frozenset({"x"}),
        "raw": bytearray(b"abc"),
        "by_pair": {(0, 1): 2.0},
        "counts": collections.Counter("aab"),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "rng": torch.get_rng_state(),
        "epochs": range(3),
        "error": KeyError("x"),
        "nothing": type(None),
        "counter": itertools.count(3),
        "signal": signal.SIGINT,
        "factory": functools.partial(torch.optim.AdamW, lr=1e-3),
    }
    for legacy in (False, True):
        assert_loads(read({"state_dict": state, **beside}, _use_new_zipfile_serialization=not legacy))


@pytest.mark.parametrize("kind", ["parameters", "double", "half", "bfloat16", "views", "one storage", "ordered"])
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_of_other_forms_load(state, read, assert_loads, kind, legacy):
    expected = state
    if kind == "parameters":
        document = {name: torch.nn.Parameter(each, requires_grad=each.is_floating_point()) for name, each in state.items()}
    elif kind == "views":
        document = {name: torch.stack([each, each], -1)[..., 1] for name, each in state.items()}
    elif kind == "one storage":
        flat = torch.cat([each.flatten() for each in state.values() if each.is_floating_point()])
        places = iter(flat.split([each.numel() for each in state.values() if each.is_floating_point()]))
        document = {
            name: next(places).view(each.shape) if each.is_floating_point() else each for name, each in state.items()
        }
    elif kind == "ordered":
        document = collections.OrderedDict(state)
        document._metadata = {"": {"version": 1}}  # as Module.state_dict has
    else:
        dtype = getattr(torch, kind)
        document = {name: each.to(dtype) if each.is_floating_point() else each for name, each in state.items()}
        expected = document
    assert_loads(read(document, _use_new_zipfile_serialization=not legacy), expected)


def test_counters_of_batches_may_be_missing(state, read, assert_loads):
    read({name: value for name, value in state.items() if "num_batches_tracked" not in name}).network()
    counted = {name: value.float() if "num_batches_tracked" in name else value for name, value in state.items()}
    assert_loads(read(counted))


def test_safetensors_load(state, checkpoint, tmp_path, assert_loads):
    save_file({name: value.contiguous() for name, value in named(state, "model.").items()}, tmp_path / "a.safetensors")
    assert "'model.'" in assert_loads(Checkpoint.load(tmp_path / "a.safetensors", checkpoint.config))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_safetensors_of_a_name_that_is_no_text_load(state, checkpoint, tmp_path, assert_loads):
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "a.safetensors")
    path = (tmp_path / "a.safetensors").rename(tmp_path / os.fsdecode(b"Stra\xdfe.safetensors"))
    assert_loads(Checkpoint.load(path, checkpoint.config))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_plain_pickle_of_arrays_loads(state, path, read, assert_loads, protocol):
    path.write_bytes(pickle.dumps({"model": {name: value.numpy() for name, value in state.items()}}, protocol))
    assert_loads(read())


def test_python_2s_pickle_of_an_ordered_dictionary_is_read(state, path, read, refused):
    """A list of pairs is what it gave its class."""
    path.write_bytes(b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'weight'\naI1\naatR.")
    assert "no state dict of tensors" in refused()
