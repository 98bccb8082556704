"""``glnet-train speed``: crops rendered and trained on in a second."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from glnet_infer.commands.console import errors_reported, print_json, print_result, say
from glnet_train.commands.opening import open_body
from glnet_train.commands.requirements import check_installed


def speed_command(
    config: Annotated[
        list[str] | None,
        typer.Option(help="Preset or .json file of a network; repeatable.", show_default="demo, w32"),
    ] = None,
    batch: Annotated[int, typer.Option(min=2, help="Crops of a training step.")] = 32,
    block: Annotated[int, typer.Option(min=1, help="Crops rendered at a time.")] = 64,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Precision of the training; repeatable.", show_default="float32, and bfloat16 on a GPU"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds to measure each row for.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure how fast crops are rendered, and how fast networks are trained on crops that are rendered already."""
    with errors_reported(as_json):
        check_installed()
        import torch

        from glnet.config import load_config
        from glnet_train.distributed import Processes
        from glnet_train.fit.speed import rendering_speed, training_speed

        device = Processes.join().device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
        precisions = precision or (["float32", "bfloat16"] if device.type == "cuda" else ["float32"])
        body = open_body("demo")
        rows: list[dict[str, Any]] = []
        for each in config or ["demo", "w32"]:
            network = load_config(each)
            say(f"{each}: rendering")
            found = rendering_speed(body, network, block, seconds, device)
            rows.append({"work": "render", "network": each, "crops": block, "precision": "float32", **asdict(found)})
            for kind in precisions:
                say(f"{each}: training in {kind}")
                found = training_speed(body, network, batch, kind, seconds, device)
                rows.append({"work": "train", "network": each, "crops": batch, "precision": kind, **asdict(found)})
        if as_json:
            print_json({"device": name, "torch": torch.__version__, "rows": rows})
            return
        print_result(f"{name}, PyTorch {torch.__version__}\n\n{_table(rows)}")


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| work | network | crops | precision | crops/s | ms p50 | middle half |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            f"| {row['work']} | {row['network']} | {row['crops']} | {row['precision']} | {row['per_second']:.0f} "
            f"| {row['milliseconds']:.1f} | {100 * row['spread']:.0f} % |"
        )
    return "\n".join(lines)
