"""The backbone is the HRNet that the field's weights were trained with: parameter counts, names and shapes."""

import pytest
import torch
from torch import nn

from glnet.config import PRESETS
from glnet.hrnet import HRNet, initialize


@pytest.fixture
def small_backbone(tiny_config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HRNet(tiny_config.backbone).eval()


@pytest.mark.parametrize(("preset", "published"), [("w18-small", 13_187_464), ("w32", 41_232_680), ("w48", 77_469_864)])
def test_parameter_counts_are_those_published_for_image_classification(preset, published):
    with torch.device("meta"):
        backbone = HRNet(PRESETS[preset].backbone)
    classifier = 2048 * 1000 + 1000  # the only layer of the classification network that is left out here
    assert sum(p.numel() for p in backbone.parameters()) + classifier == published


def test_parameters_have_the_fields_names_and_shapes():
    with torch.device("meta"):
        state = HRNet(PRESETS["w32"].backbone).state_dict()
    expected = {  # of the authors' HRNet-W32-C
        "conv1.weight": (64, 3, 3, 3),
        "bn2.running_mean": (64,),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.num_batches_tracked": (),
        "layer1.3.conv3.weight": (256, 64, 1, 1),
        "transition1.0.0.weight": (32, 256, 3, 3),
        "transition1.1.0.0.weight": (64, 256, 3, 3),
        "transition1.1.0.1.bias": (64,),
        "transition2.2.0.0.weight": (128, 64, 3, 3),
        "transition3.3.0.0.weight": (256, 128, 3, 3),
        "stage2.0.branches.1.3.conv2.weight": (64, 64, 3, 3),
        "stage2.0.fuse_layers.0.1.0.weight": (32, 64, 1, 1),
        "stage2.0.fuse_layers.1.0.0.0.weight": (64, 32, 3, 3),
        "stage3.2.fuse_layers.2.0.0.0.weight": (32, 32, 3, 3),
        "stage3.2.fuse_layers.2.0.1.0.weight": (128, 32, 3, 3),
        "stage3.3.branches.2.0.bn1.weight": (128,),
        "stage4.2.fuse_layers.3.0.2.1.running_var": (256,),
        "stage4.2.fuse_layers.0.3.1.weight": (32,),
        "incre_modules.0.0.conv1.weight": (32, 32, 1, 1),
        "incre_modules.3.0.downsample.0.weight": (1024, 256, 1, 1),
        "downsamp_modules.0.0.weight": (256, 128, 3, 3),
        "downsamp_modules.2.0.bias": (1024,),
        "final_layer.0.weight": (2048, 1024, 1, 1),
        "final_layer.1.weight": (2048,),
    }
    assert {name: tuple(state[name].shape) for name in expected if name in state} == expected
    for absent in ("transition2.0.0.weight", "transition3.2.0.weight", "stage4.3.branches.0.0.conv1.weight", "layer1.4"):
        assert not [name for name in state if name.startswith(absent)]


def test_features_are_a_quarter_of_the_image_and_one_vector(small_backbone, tiny_config):
    features = small_backbone(torch.randn(2, 3, 96, 64))
    assert features.pixels.shape == (2, tiny_config.backbone.channels[0], 24, 16)
    assert features.pooled.shape == (2, tiny_config.backbone.feature_channels)
    assert features.pooled.dtype == torch.float32


def test_every_parameter_takes_part(small_backbone):
    """A branch or fusion that is built but not wired would have no gradient."""
    features = small_backbone(torch.randn(2, 3, 64, 64))
    (features.pixels.square().sum() + features.pooled.square().sum()).backward()
    for name, parameter in small_backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_pooled_feature_is_the_mean_over_the_last_map(small_backbone):
    seen = []
    small_backbone.final_layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    features = small_backbone(torch.randn(2, 3, 64, 64))
    assert seen[0].shape[-2:] == (2, 2)  # stride 32
    torch.testing.assert_close(features.pooled, seen[0].mean((2, 3)))

    features = small_backbone.half()(torch.randn(2, 3, 64, 64).half())
    assert seen[1].dtype == features.pixels.dtype == torch.float16
    # A mean of four half-precision numbers that is itself float32: 1e-6, not the 5e-4 of half precision.
    assert features.pooled.dtype == torch.float32
    torch.testing.assert_close(features.pooled, seen[1].float().mean((2, 3)), atol=1e-6, rtol=1e-6)


def test_initial_activations_neither_vanish_nor_explode():
    """He initialisation with quiet residual branches, over the full depth of w18-small (batch statistics)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = HRNet(PRESETS["w18-small"].backbone)
        initialize(backbone)
        with torch.no_grad():
            features = backbone.train()(torch.randn(2, 3, 128, 128))
    assert 0.1 < features.pixels.std() < 10
    assert 0.1 < features.pooled.std() < 10
    assert not [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d) and layer.weight.std() == 0]
