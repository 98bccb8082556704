"""Readers of networks and bodies, and of tables of networks to train."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from making import file_target, saved_npz
from mutations import (
    change_bytes,
    change_json,
    change_npz,
    change_pickle,
    change_zip_of_pickle,
    pickled,
)


def config_seeds() -> list[bytes]:
    from glnet.config import GLNetConfig

    return [json.dumps(GLNetConfig().to_dict()).encode(), b'{"name": "mine", "keypoints": 31}']


def read_config(path: Path) -> None:
    from glnet.config import load_config

    load_config(str(path))


@cache
def tiny_network() -> Any:
    from glnet.config import GLNetConfig, HRNetConfig
    from glnet.network import GLNet

    backbone = HRNetConfig(1, 4, (4, 4, 4, 4), (1, 1, 1), 1, (4, 4, 4, 4), 8)
    return GLNet(GLNetConfig(name="tiny", backbone=backbone, pixel_channels=8, part_channels=4))


def checkpoint_seeds() -> list[bytes]:
    import torch

    from glnet.checkpoint import FORMAT, VERSION

    network = tiny_network()
    state = network.state_dict()
    document = {"format": FORMAT, "version": VERSION, "config": network.config.to_dict(), "state_dict": state}
    wrapped = {"model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3, "best": np.float64(1)}
    files = []
    for content, zipped in ((document, True), (state, True), (wrapped, True), (document, False)):
        output = io.BytesIO()
        torch.save(content, output, _use_new_zipfile_serialization=zipped)
        files.append(output.getvalue())
    return files


def safetensors_seeds() -> list[bytes]:
    from safetensors.torch import save

    return [save({f"module.{name}": value.contiguous() for name, value in tiny_network().state_dict().items()})]


def read_checkpoint(path: Path) -> None:
    from glnet.checkpoint import Checkpoint
    from glnet_infer.errors import CheckpointError

    try:
        checkpoint = Checkpoint.load(path)
    except CheckpointError as error:
        if "configuration" not in str(error) and "which network" not in str(error):
            raise
        checkpoint = Checkpoint.load(path, tiny_network().config)
    checkpoint.network()


def body_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    vertices = 40
    regressor, weights = rng.random((24, vertices)), rng.random((vertices, 24))
    parents = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": rng.normal(size=(vertices, 3, 10)),
        "posedirs": rng.normal(size=(vertices, 3, 207)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": rng.integers(0, vertices, (20, 3)).astype(np.uint32),
        "kintree_table": np.array([parents, range(24)], np.int64),
        "leaf_vertices": np.arange(5),
    }


def body_pickles() -> list[bytes]:
    arrays = body_arrays()
    lists = {key: value.tolist() for key, value in arrays.items()}
    try:
        from scipy import sparse

        arrays_sparse = {**arrays, "J_regressor": sparse.csc_matrix(arrays["J_regressor"])}
    except ImportError:
        arrays_sparse = arrays
    return [pickled(arrays), pickled(arrays, 4), pickled(arrays_sparse), pickled(lists, 0)]


def read_body(path: Path) -> None:
    from glnet.body import load_body

    load_body(path)


def table_seeds() -> list[bytes]:
    rows = [
        {"name": "one", "config": {"local_encoding": False, "backbone": {"blocks": 1}}, "poster": {"mpjpe_mm": 66.3}},
        {"name": "two", "recipe": {"steps": 3, "guidance": "iuv"}, "matching": {"static_share": 1}, "against": "one"},
        {"name": "three", "weights": {"pose": 0.1, "guidance": 2}, "against": "one"},
    ]
    return [json.dumps({"title": "rows", "decisive": ["mpjpe_mm"], "rows": rows}).encode()]


def read_rows(path: Path) -> None:
    from glnet.config import GLNetConfig
    from glnet_train.comparison.rows import Budget, Run
    from glnet_train.comparison.tables import read_table
    from glnet_train.recipe import Recipe

    for row in read_table(path).rows:
        run = Run.of(row, Budget(GLNetConfig(), Recipe(), 4), 0)
        run.folder(path.parent)
        run.scores(path.parent)


TARGETS = [
    file_target("table", table_seeds, change_json, ".json", read_rows),
    file_target("config", config_seeds, change_json, ".json", read_config),
    file_target("checkpoint", checkpoint_seeds, change_zip_of_pickle, ".pth", read_checkpoint),
    file_target("safetensors", safetensors_seeds, change_bytes, ".safetensors", read_checkpoint),
    file_target("body-pickle", body_pickles, change_pickle, ".pkl", read_body),
    file_target("body-npz", lambda: [saved_npz(body_arrays())], change_npz, ".npz", read_body),
]
