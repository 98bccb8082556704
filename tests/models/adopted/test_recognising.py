"""Which files are taken for which network, and what is refused by its name."""

import pytest
import torch

from glnet.adopted import ADOPTED, adopt, recognise, untrained
from glnet_infer.errors import CheckpointError

FORMS = {kind.name: kind for kind in ADOPTED}


@pytest.fixture(scope="module")
def states(symmetric_body):
    """The state dict of each form, of zeros without memory, by the names in the authors' files."""
    with torch.device("meta"):
        networks = {key: kind.untrained(symmetric_body).network for key, kind in FORMS.items()}
    return {
        key: {network.name_in_file(name): value for name, value in network.state_dict().items()}
        for key, network in networks.items()
    }


@pytest.mark.parametrize(
    "form, tensors",
    [("cliff-hr48", 1967), ("hybrik-hrnet-w48", 1966), ("hybrik-hrnet-w48-regression", 1966), ("hybrik-resnet-34", 250)],
)
def test_each_form_is_recognised(states, form, tensors):
    assert len(states[form]) == tensors  # counted in the authors' own classes, without SMPL's nine
    assert recognise(states[form]) is FORMS[form]
    assert recognise({**states[form], "smpl.v_template": torch.zeros(6890, 3)}) is FORMS[form]


# Names and shapes by which the authors' classes differ from ours or from each other.
@pytest.mark.parametrize(
    "form, name, shape",
    [
        ("cliff-hr48", "encoder.final_layer.0.weight", (2048, 1024, 1, 1)),
        ("cliff-hr48", "fc1.weight", (1024, 2048 + 3 + 144 + 10 + 3)),
        ("cliff-hr48", "init_pose", (1, 144)),
        ("hybrik-hrnet-w48", "preact.final_layer.weight", (1856, 48, 1, 1)),
        ("hybrik-hrnet-w48", "preact.final_feat_layer.0.weight", (2048, 1024, 1, 1)),
        ("hybrik-hrnet-w48", "init_shape", (10,)),
        ("hybrik-hrnet-w48-regression", "fc_coord.weight", (87, 2048)),
        ("hybrik-resnet-34", "deconv_layers.6.weight", (256, 256, 4, 4)),
        ("hybrik-resnet-34", "preact.layer4.2.conv2.weight", (512, 512, 3, 3)),
        ("hybrik-resnet-34", "final_layer.weight", (1856, 256, 1, 1)),
        ("hybrik-resnet-34", "deccam.weight", (3, 1024)),
    ],
)
def test_names_and_shapes_are_the_authors(states, form, name, shape):
    assert tuple(states[form][name].shape) == shape


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_file_loads_and_a_wrong_one_is_refused_by_its_names(symmetric_body, form):
    kind = FORMS[form]
    recovery = untrained({"adopted": form}, symmetric_body, seed=2)
    state = {recovery.network.name_in_file(name): value for name, value in recovery.network.state_dict().items()}
    smpl = {"smpl.v_template": torch.zeros(6890, 3), "smpl.shapedirs": torch.zeros(6890, 3, 10)}
    counted = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    loaded = adopt(kind, {**counted, **smpl}, symmetric_body)
    for name, value in recovery.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value) or name.endswith("num_batches_tracked"), name
    heads = "decshape.weight"
    for change, words in (
        ({name: value for name, value in state.items() if name != heads}, ("missing", heads)),
        ({**state, "head.extra.weight": torch.zeros(2)}, ("unknown", "head.extra.weight")),
        ({**state, heads: torch.zeros(11, 3)}, ("wrong shape", heads, "(11, 3)")),
        ({**state, heads: state[heads].to(torch.int32)}, ("wrong type", heads, "int32")),
        ({**state, heads: state[heads] * float("nan")}, ("not finite", heads)),
    ):
        with pytest.raises(CheckpointError) as error:
            adopt(kind, change, symmetric_body)
        assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "names, title",
    [
        ({"decphi.weight": (108, 2048), "preact.final_layer.weight": (71, 48, 1, 1)}, "HybrIK-X"),
        ({"smplx_layer.v_template": (10475, 3), "preact.conv1.weight": (64, 3, 3, 3)}, "HybrIK-X"),
        ({"decphi.weight": (46, 1024), "deconv_layers.0.weight": (512, 256, 4, 4)}, "before August 2022"),
        ({"decpose.weight": (144, 1024), "encoder.layer4.0.conv1.weight": (512, 1024, 1, 1)}, "CLIFF with ResNet-50"),
        ({"model.head.decpose.weight": (132, 1024)}, "BEDLAM-CLIFF"),
        ({"backbone.blocks.0.attn.qkv.weight": (3840, 1280), "smpl_head.decpose.weight": (144, 1024)}, "4D-Humans"),
        ({"backbone.blocks.0.norm1.weight": (1280,), "smpl_head.tokenizer.x": (1,)}, "TokenHMR"),
        ({"preact.conv1.weight": (64, 3, 3, 3), "regressor.inn.0.weight": (4, 4)}, "NIKI"),
        ({"decpose.weight": (144, 1024), "layer4.0.conv1.weight": (512, 1024, 1, 1)}, "SPIN"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_its_name(names, title):
    state = {name: torch.empty(shape, device="meta") for name, shape in names.items()}
    with pytest.raises(CheckpointError, match=title) as error:
        recognise(state)
    assert error.value.why and error.value.fix


def test_another_network_is_none_of_them(tiny_config):
    from glnet.network import GLNet

    assert recognise(GLNet(tiny_config).state_dict()) is None


def test_another_smpl_is_noticed_and_never_taken(fabricated, symmetric_body):
    recovery, template = fabricated("hybrik-resnet-34"), torch.tensor(symmetric_body.data.v_template)
    assert recovery.other_body({}) == ""
    assert recovery.other_body({"smpl.v_template": template}) == ""
    assert "v_template differs by up to 0.001" in recovery.other_body({"smpl.v_template": template + 1e-3})
    assert "another mesh" in recovery.other_body({"smpl.v_template": torch.zeros(6890, 3)})
    assert recovery.body is symmetric_body


def test_networks_without_a_flip_test_say_so(symmetric_body):
    with pytest.raises(CheckpointError, match="CLIFF HRNet-W48 has no flip test"):
        untrained({"adopted": "cliff-hr48", "flip_test": True}, symmetric_body)
    with pytest.raises(CheckpointError, match="no adopted network 'other'"):
        untrained({"adopted": "other"}, symmetric_body)


@pytest.mark.parametrize("form", FORMS)
def test_origin_and_terms_are_known(form):
    assert FORMS[form].origin.startswith("https://github.com/") and "MIT" in FORMS[form].terms
