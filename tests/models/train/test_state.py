"""The state of a training in a file: read without running code, and refused where it is not what a training saved."""

import io
import os
import pickle
import resource
import time
import zipfile

import pytest
import torch

from glnet_infer.errors import CheckpointError, GlnetError
from glnet_train.fit.state import read_state
from glnet_train.fit.trainer import Trainer
from glnet_train.recipe import Recipe

RECIPE = Recipe(steps=8, batch=4, warmup=2, block=8, blocks=2, refresh=3, curriculum=2, precision="float32")


@pytest.fixture(scope="module")
def saved(config, demo_body, tmp_path_factory):
    """A state after a step, as a file."""
    trainer = Trainer(config, RECIPE, demo_body)
    next(trainer.run(1))
    path = tmp_path_factory.mktemp("state") / "state.pt"
    trainer.save(path)
    return path


@pytest.fixture
def state(saved):
    """Its content, as PyTorch reads it."""
    return torch.load(saved, weights_only=True)


@pytest.fixture
def refused(demo_body, tmp_path):
    """Saves a state, and has it refused."""

    def refused(state) -> str:
        torch.save(state, tmp_path / "state.pt")
        with pytest.raises(GlnetError) as caught:
            Trainer.load(read_state(tmp_path / "state.pt"), demo_body)
        assert caught.value.why and caught.value.fix
        return str(caught.value)

    return refused


def same(found, expected):
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected) and found.dtype == expected.dtype and found.stride() == expected.stride()
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return type(found) is type(expected) and len(found) == len(expected) and all(map(same, found, expected))
    return found == expected and type(found) is type(expected)


def test_a_state_is_what_pytorch_reads(saved, state):
    assert same(read_state(saved), state)


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "a checkpoint"])
def test_what_is_no_training_state_is_refused(content, small_checkpoint, tmp_path):
    path = small_checkpoint
    if content is not None:
        path = tmp_path / "state.pt"
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="training state"):
        read_state(path)


def test_a_state_of_another_version_is_refused(config, demo_body, tmp_path):
    """Its recipe may lack what has since become part of it."""
    path = tmp_path / "state.pt"
    Trainer(config, RECIPE, demo_body).save(path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "version": state["version"] - 1}, path)
    with pytest.raises(CheckpointError, match="its version is"):
        read_state(path)


@pytest.mark.parametrize(
    "change",
    [
        *({"step": value} for value in ("1", None, -1, 1.0, True, 10**400, torch.zeros(()))),
        *({"processes": value} for value in ("2", 0, None)),
        {"photographs": ["a.jpg"]},
        {"config": None},
        {"recipe": []},
        {"matching": {"positives": "20"}},
        {"matching": {"unknown": 1}},
        {"weights": {"pose": float("nan")}},
        *({name: value} for name in ("network", "averaged", "guidance") for value in (None, [1], {}, {"a": 1})),
        *({"optimizer": value} for value in (None, [], {}, {"muon": {}, "adamw": {}})),
        {"version": 6.0},
    ],
    ids=str,
)
def test_values_of_other_kinds_are_refused(state, refused, change):
    refused({**state, **change})


@pytest.mark.parametrize(
    "change",
    [{"steps": "8"}, {"steps": 10**400}, {"steps": 8.5}, {"warmup": None}, {"seed": True}, {"precision": 3}, {"x": 1}],
)
def test_recipes_of_other_kinds_are_refused(state, refused, change):
    assert "training state" in refused({**state, "recipe": {**state["recipe"], **change}})


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda value: value.to(torch.complex64),
        lambda value: value > 0,
        lambda value: value.to_sparse(),
        lambda value: value.to("meta"),
        lambda value: value[:1],
        lambda value: torch.zeros(1).expand(4 * 10**8),
        lambda value: value * float("nan"),
    ],
    ids=["complex", "bool", "sparse", "meta", "smaller", "expanded", "NaN"],
)
def test_weights_of_other_kinds_are_refused(state, refused, spoilt):
    for part in ("network", "averaged", "guidance"):
        name = next(iter(state[part]))
        said = refused({**state, part: {**state[part], name: spoilt(state[part][name])}})
        assert "training state" in said or "not finite" in said


@pytest.mark.parametrize(
    "value", [torch.zeros(3), torch.zeros(1).expand(10**10), 5, None], ids=["shape", "huge", "number", "none"]
)
def test_an_optimizers_state_is_that_of_its_parameters(state, refused, value):
    for part in state["optimizer"].values():
        first = next(iter(part["state"].values()))
        key = next(key for key, held in first.items() if held.ndim)
        kept, first[key] = first[key], value
        refused(state)
        first[key] = kept
        part["param_groups"][0]["lr"], rate = "x", part["param_groups"][0]["lr"]
        refused(state)
        part["param_groups"][0]["lr"] = rate


def zipped(saved, name, content, method=zipfile.ZIP_STORED):
    """The file with another member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(saved) as given, zipfile.ZipFile(stream, "w") as made:
        for info in given.infolist():
            made.writestr(info.filename, given.read(info), zipfile.ZIP_STORED) if not info.filename.endswith(name) else None
        made.writestr(f"state/{name}", content, method)
    return stream.getvalue()


def written(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def doubled():
    value = [0]
    for _ in range(60):
        value = [value, value]
    return value


@pytest.mark.parametrize("kind", ["compressed", "expanded", "views", "deep", "shared", "itself", "code"])
def test_files_that_ask_for_much_are_refused_at_once(saved, state, tmp_path, kind):
    path, itself, views = tmp_path / "state.pt", [], torch.zeros(100_000)
    itself.append(itself)
    head = {"format": state["format"], "version": state["version"]}
    code = type("Code", (), {"__reduce__": lambda self: (os.system, (f"touch {tmp_path / 'ran'}",))})
    content = {
        "compressed": lambda: zipped(saved, "data/0", bytes(1 << 28), zipfile.ZIP_DEFLATED),
        "expanded": lambda: written({**state, "guidance": {"a": torch.zeros(1).expand(10**8)}}),
        "views": lambda: written({**state, "guidance": {str(each): views[each:] for each in range(1000)}}),
        "deep": lambda: zipped(saved, "data.pkl", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "shared": lambda: zipped(saved, "data.pkl", pickle.dumps({**head, "step": doubled()}, 2)),
        "itself": lambda: zipped(saved, "data.pkl", pickle.dumps({**head, "step": itself}, 2)),
        "code": lambda: zipped(saved, "data.pkl", pickle.dumps({**head, "step": code()}, 2)),
    }[kind]()
    path.write_bytes(content)
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError, match="training state") as caught:
        read_state(path)
    assert "weights_only" not in str(caught.value) and not (tmp_path / "ran").exists()
    assert time.process_time() - start < 5  # seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # kB
