"""``glnet-train eval``: scores of a checkpoint or a bundle."""

import copy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glnet_infer.commands.console import errors_reported, print_json, print_result, say, talk
from glnet_infer.errors import BodyError, CheckpointError, InputError
from glnet_train.commands.opening import WeightsKey, open_body, open_weights, say_left_out
from glnet_train.commands.requirements import check_installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from glnet.body import Body
    from glnet_infer.backends import Backend
    from glnet_infer.contract import CropSpec
    from glnet_train.data import AnnotatedImages
    from glnet_train.scores import Evaluation, EvaluationProtocol

RENDERED = 1024
"""Held-out crops to score on, by default."""


def evaluate_command(
    target: Annotated[Path, typer.Argument(help="Checkpoint or bundle to score.", readable=False)],
    weights_key: WeightsKey = None,
    crops: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of crops; of a dataset, spread evenly.  [default: 1024 rendered ones, all of a dataset]"
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="JSON list of datasets to score on (docs/training.md), in place of rendered crops.")
    ] = None,
    regressor: Annotated[
        Path | None, typer.Option(help="J_regressor_h36m.npy, to score datasets as the literature does.", readable=False)
    ] = None,
    male: Annotated[Path | None, typer.Option(help="SMPL's male body, for men's true meshes.", readable=False)] = None,
    female: Annotated[
        Path | None, typer.Option(help="SMPL's female body, for women's true meshes.", readable=False)
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Backend that runs a bundle; see glnet-infer --help.  [default: onnxruntime-cpu]")
    ] = None,
    bystanders: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of rendered crops with another person.  [default: 0]")
    ] = None,
    choices: Annotated[
        bool, typer.Option("--choices", help="Score what a checkpoint would answer by other pixels than the chosen one.")
    ] = False,
    pictures: Annotated[Path | None, typer.Option(help="Picture to write, of the best, median and worst crops.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Score a checkpoint or a bundle on held-out rendered crops, beside the standing mean body; or on datasets."""
    with errors_reported(as_json):
        if data is None and (regressor or male or female):
            raise typer.BadParameter("--regressor, --male and --female belong to --data")
        if data is not None and pictures is not None:
            raise typer.BadParameter("--pictures shows rendered crops; leave --data out")
        if data is not None and bystanders is not None:
            raise typer.BadParameter("--bystanders is for rendered crops; leave --data out")
        if choices and data is not None:
            raise typer.BadParameter("--choices needs rendered crops; leave --data out")
        if choices and target.is_dir():
            raise typer.BadParameter("a bundle has no other answers; --choices is for checkpoints")
        if backend is not None and target.is_file():
            raise typer.BadParameter("a checkpoint is run by PyTorch; --backend is for bundles")
        check_installed()
        import torch

        from glnet.backend import TorchBackend
        from glnet.decoding import GLNetRecovery
        from glnet_infer.backends import open_backend
        from glnet_infer.bundle import Bundle
        from glnet_infer.image_files import check_image_path
        from glnet_render import Spread
        from glnet_train.scores import CHOICES, EvaluationProtocol, evaluate, load_regressor, score_choices

        if pictures is not None:
            check_image_path(pictures)
        if not target.exists():
            raise CheckpointError(
                f"There is no checkpoint or bundle {target}.",
                fix="give the path of a .pth file or of an exported directory",
            )
        if target.is_dir():
            bundle = Bundle.open(target)
            body = open_body(bundle.manifest.body.name)
            runner, spec = open_backend(backend or "onnxruntime-cpu", bundle), bundle.manifest.crop
        else:
            network = open_weights(target, weights_key).network()
            body = open_body(network.config.body)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            # The network gets its own copy of the body on the device; the labels keep theirs on the CPU.
            recovery = GLNetRecovery(network, copy.deepcopy(body)).eval().to(device)
            runner = TorchBackend(recovery)
            spec = network.config.crop
        if data is not None:
            gendered = {name: _actor_body(file, body) for name, file in (("male", male), ("female", female)) if file}
            joints = None if regressor is None else load_regressor(regressor, len(body.data.v_template))
            _score_datasets(runner, data, spec, EvaluationProtocol(body, gendered, joints), crops, as_json)
            return
        spread = Spread(bystanders=bystanders or 0.0)
        result = evaluate(runner, body, spec, crops or RENDERED, spread=spread)
        found, baseline = result.scores.summary(), result.baseline.summary()
        others = {}
        if choices:
            scored = score_choices(recovery, body, crops or RENDERED, spread=spread)
            others = {name: scores.summary() for name, scores in scored.items()}
        if as_json:
            document: dict[str, Any] = {"backend": runner.name, "spread": asdict(spread)}
            document |= {"found": found.as_dict(), "standing": baseline.as_dict()}
            if choices:
                document["choices"] = {name: summary.as_dict() for name, summary in others.items()}
            print_json(document)
        else:
            print_result(f"{runner.name:<16} {found}")
            print_result(f"{'standing body':<16} {baseline}")
            for name, summary in others.items():
                print_result(f"{CHOICES[name]:<16} {summary}")
            if spread.bystanders:
                print_result(f"with --bystanders {spread.bystanders:g}")
        if pictures is not None:  # last: a path that cannot be written costs no scores
            _draw(result, body.data.faces, pictures)


def _score_datasets(
    runner: "Backend", listing: Path, spec: "CropSpec", protocol: "EvaluationProtocol", crops: int | None, as_json: bool
) -> None:
    """Score on every dataset of a list, and print a line for each."""
    from rich.progress import Progress, TaskID

    from glnet_train.data import load_datasets
    from glnet_train.scores import score_dataset

    found = []
    datasets, _ = load_datasets(listing, protocol.body, spec)
    say_left_out(datasets)
    for dataset in datasets:
        _note_bodies(dataset, protocol)
        with Progress(console=talk, transient=True, disable=not talk.is_terminal) as bar:
            task = bar.add_task(dataset.name)

            def show(done: int, total: int, bar: Progress = bar, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            scores = score_dataset(runner, dataset, protocol, crops, show)
        summary = scores.summary()
        if not summary.values:
            raise InputError(
                f"Nothing of {dataset.name} can be scored.",
                why="no person has a label that a metric needs",
                fix="switch the set's labels on in the list, or leave the set out",
            )
        found.append((dataset.name, summary))
        if not as_json:
            print_result(f"{dataset.name:<16} {summary}")
        for name, count in scores.counts().items():
            if count < summary.crops:
                say(f"{dataset.name}: {name} is the mean over the {count} persons that have the labels for it")
    if as_json:
        print_json({"backend": runner.name, "datasets": [{"name": name, **scores.as_dict()} for name, scores in found]})


def _note_bodies(dataset: "AnnotatedImages", protocol: "EvaluationProtocol") -> None:
    """Print whose true meshes are not made with the body that they were fitted with, as far as the set says."""
    posed = [annotation.gender for annotation in dataset if annotation.rotations is not None]
    others = sum(gender is not None and gender not in protocol.gendered for gender in posed)
    if others:
        say(
            f"{dataset.name}: true meshes of {others} of {len(posed)} persons are made with the neutral body, though they "
            "were fitted with SMPL's male or female one: they differ by some millimetres; give --male and --female"
        )
    if not posed and (protocol.regressor is not None or protocol.gendered):
        say(f"{dataset.name}: nobody has a labelled pose, so regressor and bodies are not used")
    if protocol.gendered and None in posed:
        say(
            f"{dataset.name}: the set does not say with which body {posed.count(None)} of {len(posed)} persons were "
            "fitted; their true meshes are made with the neutral one"
        )


def _actor_body(file: Path, neutral: "Body") -> "Body":
    """An actor's body, which must share the neutral one's mesh."""
    body = open_body(file)
    if len(body.data.v_template) != len(neutral.data.v_template):
        raise BodyError(
            f"{file} does not fit the network's body.",
            why=f"it has {len(body.data.v_template)} vertices, the other {len(neutral.data.v_template)}",
            fix="give the male and female bodies of the same SMPL release",
        )
    return body


def _draw(result: "Evaluation", faces: "NDArray[np.int32]", path: Path) -> None:
    """Write a picture of the crops of least, middle and greatest error with their meshes."""
    from glnet_infer.image_files import write_image
    from glnet_train.scores.pictures import best_median_worst, sheet

    rows = best_median_worst(result.scores.values("mpjpe_mm").numpy())
    shown = result.shown
    picture = sheet(shown.crops[rows], shown.vertices[rows], faces, shown.cameras[rows], len(rows) // 3)
    write_image(path, picture[..., ::-1])
