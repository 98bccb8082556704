"""Muon for the hidden layers' kernels, AdamW for the rest."""

import copy
import dataclasses

import pytest
import torch

from glnet.body import Body
from glnet.config import CropSpec
from glnet.random_init import random_recovery
from glnet_infer.errors import TrainingError
from glnet_train.fit.optimizer import ENDS, Optimizer
from glnet_train.fit.trainer import Trainer
from glnet_train.recipe import GUIDANCES, Recipe

RATE = 0.01


@pytest.fixture
def config(small_config):
    return dataclasses.replace(small_config, crop=CropSpec(size=64), keypoint_origin="pixel", keypoints=29)


@pytest.fixture
def stepped(config, demo_body: Body):
    """Parameters by name before and after one step, with their gradients and the other ones' AdamW."""
    network = random_recovery(config, demo_body, seed=0).network
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * torch.logspace(-2, 0, parameter.shape[-1])
    twin = copy.deepcopy(network)
    for parameter, original in zip(twin.parameters(), network.parameters(), strict=True):
        parameter.grad = original.grad.clone()
    optimizer = Optimizer(network, [], RATE, weight_decay=0.0)
    optimizer.take_gradients(torch.amp.GradScaler("cpu", enabled=False))
    optimizer.step()
    torch.optim.AdamW(twin.parameters(), RATE, weight_decay=0.0).step()
    before = dict(random_recovery(config, demo_body, seed=0).network.named_parameters())
    return before, dict(network.named_parameters()), dict(twin.named_parameters())


def hidden(name, parameter):
    return parameter.ndim >= 2 and not name.startswith(ENDS)


def test_singular_values_of_a_kernels_change_are_alike(stepped):
    before, after, _ = stepped
    kernels = [name for name, parameter in before.items() if hidden(name, parameter)]
    assert len(kernels) > 50
    for name in kernels:
        change = (before[name] - after[name]).detach().flatten(1).double()
        values = torch.linalg.svdvals(change) / (RATE * 0.2 * max(change.shape) ** 0.5)
        # The iteration brings them to about 0.7 to 1.2 (Jordan et al.), the smallest of a wide spread of 100 not quite.
        assert values.max() < 1.35 and values.median() > 0.6, name


def test_everything_else_moves_as_adamw_moves_it(stepped):
    before, after, twin = stepped
    others = [name for name, parameter in before.items() if not hidden(name, parameter)]
    assert {"backbone.conv1.weight", "coarse.weight", "confidence.weight", "local_encoding.offsets.weight"} < set(others)
    for name in others:
        assert torch.equal(after[name], twin[name]), name
        assert not torch.equal(after[name], before[name]), name


def test_every_layer_that_adamw_keeps_exists(config, demo_body):
    names = [name for name, _ in random_recovery(config, demo_body, seed=0).network.named_parameters()]
    assert all(any(name.startswith(f"{end}.") for name in names) for end in ENDS)


def test_kernels_that_have_moved_are_noticed(config, demo_body):
    """Muon would go on with the old ones."""
    network = random_recovery(config, demo_body, seed=0).network
    optimizer = Optimizer(network, [], RATE, weight_decay=0.0)
    network.to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="moved"):
        optimizer.take_gradients(torch.amp.GradScaler("cpu", enabled=False))


def test_a_step_that_overflows_in_float16_is_left_out_and_the_scale_is_lowered(config, demo_body):
    recipe = Recipe(steps=4, batch=2, warmup=1, block=2, blocks=1, curriculum=0, precision="float16")
    training = Trainer(config, recipe, demo_body)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    before = [parameter.clone() for parameter in training.network.parameters()]
    next(training.run(1))
    assert all(torch.equal(a, b) for a, b in zip(training.network.parameters(), before, strict=True))
    assert training.scaler.get_scale() == 2.0**119
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    next(training.run(2))
    assert not any(torch.equal(a, b) for a, b in zip(training.network.parameters(), before, strict=True))


def test_a_training_in_float16_that_diverged_ends(config, demo_body):
    recipe = Recipe(steps=40, batch=2, warmup=1, block=2, blocks=1, curriculum=0, precision="float16")
    training = Trainer(config, recipe, demo_body)
    with torch.no_grad():
        training.network.coarse.bias[0] = float("nan")
    training.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with pytest.raises(TrainingError, match="diverged at step 3"):
        for _ in training.run(40):
            pass


def test_guidance_fades_and_is_told_at_full_weight(config, demo_body, monkeypatch):
    """At a quarter of its weight the guidance's own layers get a quarter of the gradient; the log does not change."""
    recipe = Recipe(steps=4, batch=2, warmup=1, block=2, blocks=1, curriculum=0, precision="float32", clip=1e9)
    found = []
    for share in (1.0, 0.25):
        monkeypatch.setattr(Recipe, "guiding", lambda self, step, share=share: share)
        training = Trainer(dataclasses.replace(config, local_encoding=True), recipe, demo_body)
        terms = next(training.run(4))
        found.append((terms, training.guidance.heat.weight.grad, training.network.coarse.weight.grad))
    (terms, heat, coarse), (faded_terms, faded_heat, faded_coarse) = found
    assert set(GUIDANCES[recipe.guidance]) < set(terms)
    assert terms == faded_terms and terms["loss"] == pytest.approx(sum(terms.values()) - terms["loss"])
    torch.testing.assert_close(faded_heat, heat / 4, rtol=1e-4, atol=1e-7)
    assert (faded_coarse - coarse).abs().max() < coarse.abs().max()  # its own losses stay
