"""Guidance by each kind of label: whom its gradient reaches, what it asks for, and that nothing of it is exported."""

import dataclasses
import hashlib

import pytest
import torch

from glnet.checkpoint import layout_of
from glnet.decoding import GLNetRecovery
from glnet_export.graph import trace
from glnet_infer.errors import InputError
from glnet_infer.skeleton import BODY_JOINTS
from glnet_render.charts import Charts
from glnet_train.fit.trainer import Trainer
from glnet_train.objective.guidance import CHART_WEIGHT, Guidance
from glnet_train.recipe import GUIDANCES, Recipe

RECIPE = Recipe(steps=4, batch=2, warmup=1, block=4, blocks=1, curriculum=0, precision="float32", bystanders=0)
KINDS = sorted(set(GUIDANCES) - {"none"})


@pytest.fixture(scope="module")
def lively(config, lively_recovery):
    """A network whose every part matters, with part points."""
    return lively_recovery(dataclasses.replace(config, local_encoding=True)).network.train()


@pytest.fixture(scope="module")
def batch(config, demo_body):
    """Rendered crops with all their labels."""
    return Trainer(config, RECIPE, demo_body).batches.at(0)


def pulled(module):
    """Names of the parameters that a backward pass has reached."""
    return {name for name, value in module.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}


@pytest.mark.parametrize("origin", ["pixel", "coarse"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_guidance_reaches_local_encoding_and_nothing_after_it(lively, batch, demo_body, kind, origin):
    """The gradient reaches the whole module and the backbone below it, but no coarse estimate, confidence or residual."""
    lively.zero_grad()
    torch.manual_seed(0)
    guidance = Guidance(lively.config, kind, demo_body)
    lively.local_encoding.from_coarse = origin == "coarse"
    terms = guidance(lively(batch.crops), batch.targets, torch.arange(20).repeat(2, 1) + 100)
    lively.local_encoding.from_coarse = False
    assert set(terms) == set(GUIDANCES[kind])
    sum(terms.values()).backward()
    found = pulled(lively)
    assert {name for name in found if not name.startswith("backbone.")} == {
        f"local_encoding.{name}" for name, _ in lively.local_encoding.named_parameters()
    }
    assert any(name.startswith("backbone.") for name in found)
    assert pulled(guidance) == {name for name, _ in guidance.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_reaches_the_backbone_through_local_encoding_alone(lively, batch, demo_body, kind, monkeypatch):
    """With the module's inputs cut off, its own parameters are all that is left."""
    lively.zero_grad()
    module, forward = lively.local_encoding, lively.local_encoding.forward

    def cut(features, pooled, keypoints, coarser):
        return forward(features.detach(), pooled.detach(), keypoints.detach(), [each.detach() for each in coarser])

    monkeypatch.setattr(module, "forward", cut)
    guidance = Guidance(lively.config, kind, demo_body)
    sum(guidance(lively(batch.crops), batch.targets, torch.arange(20).repeat(2, 1)).values()).backward()
    assert pulled(lively) == {f"local_encoding.{name}" for name, _ in module.named_parameters()}


def test_without_guidance_there_is_no_head_and_no_loss(config, demo_body, batch):
    training = Trainer(config, dataclasses.replace(RECIPE, guidance="none"), demo_body)
    assert not list(training.guidance.parameters())
    terms = next(training.run(1))
    assert not {name for names in GUIDANCES.values() for name in names} & set(terms) and terms["loss"] > 0


def test_guidance_by_an_unknown_label_is_refused():
    with pytest.raises(InputError, match="no guidance by 'masks'"):
        Recipe(guidance="masks")


def test_dense_labels_are_not_looked_at_by_sparse_guidance(lively, batch, demo_body):
    """The poster's claim is that no dense label is needed; and the dense ones do not look at the keypoints."""
    index = torch.arange(20).repeat(2, 1)
    prediction = lively(batch.crops)
    dense = batch.targets._replace(segments=batch.targets.segments * 0, places=batch.targets.places + 1)
    sparse = batch.targets._replace(
        estimate=batch.targets.estimate._replace(keypoints=batch.targets.estimate.keypoints + 0.1)
    )

    def losses(kind, targets):
        torch.manual_seed(0)
        return {
            name: float(term) for name, term in Guidance(lively.config, kind, demo_body)(prediction, targets, index).items()
        }

    with torch.no_grad():
        assert losses("keypoints", batch.targets) == losses("keypoints", dense) != losses("keypoints", sparse)
        for kind in ("segmentation", "iuv"):
            assert losses(kind, batch.targets) == losses(kind, sparse) != losses(kind, dense)


def test_guidance_by_iuv_asks_each_part_for_its_own_u_and_v(lively, batch, demo_body):
    """Answers that are right for every part cost nothing; V is the same after a whole turn, and U is not."""
    guidance, charts = Guidance(lively.config, "iuv", demo_body), Charts(demo_body)
    torch.nn.init.zeros_(guidance.surface.weight)
    torch.nn.init.zeros_(guidance.surface.bias)
    grid, part = lively.config.grid, 5
    segments = torch.full((2, grid, grid), part, dtype=torch.uint8)
    place = demo_body.template.view(-1, 3)[demo_body.weights.argmax(-1) == part][7]
    places = torch.cat([place, torch.zeros(1)]).expand(2, grid, grid, 4)
    targets = batch.targets._replace(segments=segments, places=places)
    u, v = charts(segments[:1, :1, :1], places[:1, :1, :1, :3]).flatten().tolist()
    prediction, index = lively(batch.crops), torch.arange(20).repeat(2, 1)
    rows = slice(BODY_JOINTS + 1 + 2 * part, BODY_JOINTS + 3 + 2 * part)
    for given, expected in (((u, v), 0), ((u, v + 1), 0), ((u + 0.2, v), 0.2), ((u, v - 0.1), 0.1), ((u + 1, v), 1)):
        with torch.no_grad():
            guidance.surface.bias[rows] = torch.tensor(given)
            found = guidance(prediction, targets, index)["charts"]
        assert float(found) == pytest.approx(CHART_WEIGHT * expected, abs=1e-5)
    assert rows.stop <= len(guidance.surface.bias) == BODY_JOINTS + 1 + 2 * BODY_JOINTS


def test_no_guidance_leaves_a_trace_in_the_checkpoint(config, demo_body):
    """After a step under each kind, checkpoints have the same configuration and names of weights: all that is exported."""
    config = dataclasses.replace(config, local_encoding=True)
    found, names = {}, layout_of(config)
    for kind in ("keypoints", "segmentation", "iuv", "none"):
        training = Trainer(config, dataclasses.replace(RECIPE, guidance=kind), demo_body)
        next(training.run(1))
        found[kind] = training.checkpoint()
        assert found[kind].config == config
        assert {name: (tuple(each.shape), each.dtype) for name, each in found[kind].state.items()} == names
    first = found.pop("keypoints").state
    for other in found.values():
        assert any(not torch.equal(value, first[name]) for name, value in other.state.items())  # it was trained otherwise


def test_the_graph_is_the_same_whatever_guided_the_training(config, demo_body, tmp_path):
    """Networks that were guided by each kind, given the weights of one of them, are traced to the same bytes."""
    config = dataclasses.replace(config, local_encoding=True)
    weights, digests = None, set()
    for kind in ("keypoints", "segmentation", "iuv", "none"):
        training = Trainer(config, dataclasses.replace(RECIPE, guidance=kind), demo_body)
        next(training.run(1))
        network = training.checkpoint().network()
        weights = weights or network.state_dict()
        network.load_state_dict(weights)
        trace(GLNetRecovery(network, demo_body).eval(), tmp_path / "model.onnx")
        digests.add(hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest())
    assert len(digests) == 1
