"""IUV maps: U and V written out for one point at a time, and what a chart must be whatever its formula."""

import numpy as np
import pytest
import torch

from glnet.config import CropSpec
from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, PARENTS, mirror_order
from glnet_render import SyntheticSource
from glnet_render.charts import Charts, vertex_segments
from glnet_render.targets import BACKGROUND, UNKNOWN


@pytest.fixture(scope="module")
def charted(demo_body):
    """Charts, and the parts, places and charts of the vertices of the mean body."""
    charts, segments, places = Charts(demo_body), vertex_segments(demo_body), demo_body.template.view(-1, 3)
    return charts, segments, places, charts(segments, places)


def by_hand(body, joint, place):
    """U and V in float64, for one point."""
    data = body.data
    rest = data.joint_regressor @ data.v_template
    rest = np.concatenate([rest, data.v_template[data.leaf_vertices]])
    children = [child for child, parent in enumerate(PARENTS) if parent == joint]
    names = [JOINT_NAMES[child] for child in children]
    child = children[names.index("spine1")] if joint == 0 else children[names.index("neck") if "neck" in names else 0]
    bone = rest[child] - rest[joint]
    bone /= np.linalg.norm(bone)
    own = data.v_template[data.weights.argmax(1) == joint]
    middle = own.mean(0)
    ends = (own - middle) @ bone
    upwards = abs(bone[2]) > 0.8
    zero = np.array([0.0, 1.0, 0.0]) if upwards else np.array([0.0, 0.0, 1.0])
    zero -= bone * (zero @ bone)
    zero /= np.linalg.norm(zero)
    away = place - middle
    u = (away @ bone - ends.min()) / (ends.max() - ends.min())
    angle = np.arctan2(away @ np.cross(bone, zero), away @ zero)
    return np.clip(u, 0, 1), angle / (2 * np.pi) + 0.5


def test_charts_are_the_formula_written_out(charted, demo_body):
    _, segments, places, found = charted
    rows = np.random.default_rng(0).choice(len(segments), 300, replace=False)
    expected = np.array([by_hand(demo_body, int(segments[row]), places[row].double().numpy()) for row in rows])
    difference = found.numpy()[rows] - expected
    difference[:, 1] -= np.round(difference[:, 1])  # 0 and 1 are one line
    # Float32 places to 1e-7 m, divided by parts of some centimetres and, for V, by distances of a centimetre from the bone.
    np.testing.assert_allclose(difference, 0, atol=1e-4)


def test_every_part_is_charted_from_end_to_end(charted):
    _, segments, _, found = charted
    assert found.min() >= 0 and found.max() <= 1
    for joint in segments.unique():
        u, v = found[segments == joint].T
        assert float(u.min()) == pytest.approx(0, abs=1e-5) and float(u.max()) == pytest.approx(1, abs=1e-5)
        if JOINT_NAMES[joint].endswith(("hip", "knee", "shoulder", "elbow")):  # the upper and lower limbs
            assert float(v.max() - v.min()) > 0.8  # all the way around, as far as the vertices are dense


def test_neighbours_on_the_surface_are_neighbours_on_the_chart_and_others_are_not(charted):
    """A chart that confused distant points would be no label of where a pixel is."""
    _, segments, places, found = charted
    for joint in range(BODY_JOINTS):
        own = (segments == joint).nonzero().squeeze(1)
        if len(own) < 50:
            continue
        step = found[own][:, None] - found[own][None]
        step[..., 1] -= step[..., 1].round()
        near = step.square().sum(-1).fill_diagonal_(torch.inf).argmin(1)
        size = (places[own].amax(0) - places[own].amin(0)).norm()
        apart = (places[own] - places[own][near]).norm(dim=-1) / size
        # Nostrils, ears and fingers fold the surface: there alone may two points share a place on the chart.
        assert float(apart.quantile(0.9)) < 0.25, JOINT_NAMES[joint]


def test_a_mirrored_point_has_the_same_way_along_the_mirrored_part(charted):
    charts, segments, places, found = charted
    mirrored = charts(
        torch.tensor(mirror_order(BODY_JOINTS), dtype=torch.uint8)[segments.long()], places * torch.tensor([-1.0, 1, 1])
    )
    assert (mirrored[:, 0] - found[:, 0]).abs().max() < 0.05  # as symmetric as the body's own joints are
    turned = mirrored[:, 1] - (1 - found[:, 1])
    assert float((turned - turned.round()).abs().quantile(0.95)) < 0.05


def test_rendered_cells_have_the_charts_of_the_points_they_see(charted, demo_body):
    charts, _, places, _ = charted
    sample = SyntheticSource(demo_body, CropSpec(64), seed=5).sample(4)
    seen = (sample.segments != UNKNOWN) & (sample.segments != BACKGROUND)
    assert int(seen.sum()) > 50
    found = charts(sample.segments, sample.places[..., :3])[seen]
    for part, place, chart in zip(sample.segments[seen], sample.places[..., :3][seen], found, strict=True):
        assert float((places - place).norm(dim=-1).min()) < 0.05  # a point of the surface, within a triangle
        difference = chart.numpy() - by_hand(demo_body, int(part), place.double().numpy())
        difference[1] -= np.round(difference[1])
        np.testing.assert_allclose(difference, 0, atol=1e-3)  # float32, and points that lie within millimetres of a bone
