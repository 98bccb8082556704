"""Run by torchrun in test_processes.py: train a little, and write down what every process ends with."""

import json
import sys
from pathlib import Path

import torch

from glnet.body import Body, find_body, load_body
from glnet.config import GLNetConfig
from glnet_train.distributed import Processes
from glnet_train.fit.trainer import Trainer
from glnet_train.recipe import Recipe

folder = Path(sys.argv[1])
torch.set_num_threads(1)
processes = Processes.join()
config = GLNetConfig.from_dict(json.loads((folder / "config.json").read_text()))
recipe = Recipe(steps=3, batch=8, warmup=1, block=8, blocks=1, refresh=9, curriculum=2, precision="float32")
trainer = Trainer(config, recipe, Body(load_body(find_body("demo"))), processes=processes)
losses = [terms["loss"] for terms in trainer.run(3)]
agreed = [processes.any(processes.rank == 1), processes.any(False)]
torch.save(
    {"losses": losses, "agreed": agreed, "parameters": [value.detach() for value in trainer.network.parameters()]},
    folder / f"{processes.rank}.pt",
)
processes.leave()
