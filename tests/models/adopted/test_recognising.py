"""Which files are taken for which network, and what is refused by its name."""

import pytest
import torch
from public_layouts import shapes, state_dict

from glnet.adopted import ADOPTED, adopt, recognise, untrained
from glnet_infer.errors import CheckpointError

FORMS = {kind.name: kind for kind in ADOPTED}


@pytest.mark.parametrize(
    "form, tensors",
    [("cliff-hr48", 1967), ("hybrik-hrnet-w48", 1975), ("hybrik-hrnet-w48-regression", 1975), ("hybrik-resnet-34", 259)],
)
def test_each_form_is_recognised(form, tensors):
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes(form).items()}
    assert len(state) == tensors  # counted in the authors' own classes
    assert recognise(state) is FORMS[form]
    without_smpl = {name: value for name, value in state.items() if not name.startswith("smpl.")}
    assert recognise(without_smpl) is FORMS[form]


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_file_loads_and_a_wrong_one_is_refused_by_its_names(symmetric_body, form):
    kind, state = FORMS[form], state_dict(form, seed=2)
    network = adopt(kind, state, symmetric_body).network
    loaded = {network.name_in_file(name): value for name, value in network.state_dict().items()}
    assert set(loaded) == {name for name in state if not name.startswith("smpl.")}
    for name, value in loaded.items():
        assert torch.equal(value, state[name]) or name.endswith("num_batches_tracked"), name
    without_counts = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    adopt(kind, without_counts, symmetric_body)
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
