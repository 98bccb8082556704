"""What each step trains on: rendered and real crops, by number alone."""

import dataclasses
import json
import math

import cv2
import numpy as np
import pytest
import torch

from glnet.config import CropSpec
from glnet.decoding import Decoder
from glnet_infer.errors import InputError
from glnet_render import SyntheticSource
from glnet_train.data import load_mixture
from glnet_train.data.batches import Batches
from glnet_train.distributed import Processes
from glnet_train.fit.trainer import ALONE, Trainer
from glnet_train.recipe import Recipe

RECIPE = Recipe(batch=6, block=4, blocks=2, refresh=2, curriculum=2, synthetic=0.5)


@pytest.fixture
def config(small_config):
    return dataclasses.replace(small_config, crop=CropSpec(size=64), keypoint_origin="pixel", keypoints=29)


@pytest.fixture
def listing(tmp_path):
    """A COCO file of three persons in one photograph, and a list that names it."""
    (tmp_path / "coco" / "images").mkdir(parents=True)
    image = np.full((200, 300, 3), 90, dtype=np.uint8)
    cv2.circle(image, (150, 100), 30, (20, 200, 240), -1)
    cv2.imwrite(str(tmp_path / "coco" / "images" / "1.jpg"), image)
    keypoints = np.zeros((17, 3), dtype=int)
    keypoints[[5, 6, 13]] = [[120, 60, 2], [170, 62, 2], [130, 140, 1]]
    persons = [
        {"id": k, "image_id": 1, "iscrowd": 0, "bbox": [100 + k, 30, 90, 150], "area": 9000, "num_keypoints": 3,
         "keypoints": keypoints.ravel().tolist()}
        for k in range(3)
    ]  # fmt: skip
    document = {"images": [{"id": 1, "file_name": "1.jpg", "width": 300, "height": 200}], "annotations": persons}
    (tmp_path / "coco" / "persons.json").write_text(json.dumps(document))
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"reader": "coco", "annotations": "coco/persons.json", "images": "coco/images"}]))
    return path


@pytest.fixture
def make(config, demo_body, listing):
    def make(recipe=RECIPE, processes=ALONE, real=True):
        mixture = load_mixture(listing, demo_body, config.crop, seed=0) if real else None
        source = SyntheticSource(demo_body, CropSpec(64), seed=0)
        return Batches(recipe, config, Decoder(config, demo_body), source, processes, mixture)

    return make


def same(first, second):
    return torch.equal(first.crops, second.crops) and torch.equal(first.targets.rotations, second.targets.rotations)


def test_a_batch_has_its_share_of_real_crops_with_the_labels_that_they_have(make):
    batch = make().at(0)
    assert batch.crops.shape == (6, 64, 64, 3)
    assert batch.targets.pose_weights.amax(1).tolist() == [1, 1, 1, 0, 0, 0]
    assert (batch.targets.keypoint_weights[3:].sum(1) == 3).all()
    assert (batch.targets.depth_weights[3:] == 0).all() and (batch.targets.shape_weights[3:] == 0).all()


def test_batches_depend_on_the_step_alone(make):
    first = make()
    batches = [first.at(step) for step in range(6)]
    second = make()
    assert same(second.at(3), batches[3]) and same(second.at(5), batches[5])
    assert not same(batches[3], batches[4])


@pytest.mark.filterwarnings("ignore:.*stands in")
def test_another_person_stands_in_for_a_damaged_image(make, listing):
    """And a training whose images are all gone ends."""
    folder = listing.parent / "coco" / "images"
    document = json.loads((folder.parent / "persons.json").read_text())
    document["images"].append({**document["images"][0], "id": 2, "file_name": "2.jpg"})
    document["annotations"][1]["image_id"] = 2
    (folder.parent / "persons.json").write_text(json.dumps(document))
    (folder / "2.jpg").write_bytes((folder / "1.jpg").read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match=r"2\.jpg cannot be decoded\. Another person stands in"):
        batches = make()
        batch = batches.at(0)  # draws each of the three once
        batches._readers.shutdown()  # what is read ahead for the next step warns too
    assert (batch.targets.keypoint_weights[3:].sum(1) == 3).all()
    (folder / "1.jpg").unlink()
    batches = make()
    with pytest.warns(RuntimeWarning):
        with pytest.raises(InputError, match=r"was not read|cannot be decoded"):
            batches.at(0)
        batches._readers.shutdown()


def test_real_persons_are_cut_by_jittered_boxes(make):
    recipe = dataclasses.replace(RECIPE, synthetic=0.0, batch=6)
    first = make(recipe).at(0)
    known = first.targets.keypoint_weights > 0
    persons = [keypoints[row] for keypoints, row in zip(first.targets.estimate.keypoints, known, strict=True)]
    lengths = {round(float((each[0] - each[1]).norm()), 4) for each in persons}
    assert len(lengths) == 6  # three persons twice, each time of another size
    assert same(make(recipe).at(0), first)


def test_substitutes_are_others(make, listing, monkeypatch):
    """However the broken one is numbered: all but one of its set can be read."""
    batches = make(dataclasses.replace(RECIPE, synthetic=0.0))
    dataset = batches._mixture.datasets[0]
    load = dataset.load

    def broken(person, box=None):
        if person == 1:
            raise InputError("It is damaged.")
        return load(person, box)

    monkeypatch.setattr(dataset, "load", broken)
    for seed in range(20):
        with pytest.warns(RuntimeWarning, match="stands in"):
            batches._load(dataset, 1, seed)


def test_tilted_persons_fade_away_with_the_last_steps(make, monkeypatch):
    """By the step at which a block enters the pool, however often it is drawn from later."""
    recipe = dataclasses.replace(RECIPE, steps=30, refresh=2, block=4, blocks=3, synthetic=1.0, tilted=0.5)
    batches, told = make(recipe, real=False), []
    begin = batches._source.begin
    monkeypatch.setattr(batches._source, "begin", lambda *given: (told.append(given[1]), begin(*given)))
    for step in range(30):
        batches.at(step)
    # Three at the start, then one every second step; from step 20 on ever fewer.
    expected = [0.5] * (3 + 10) + [0.5 * (30 - step) / 10 for step in range(22, 30, 2)]
    assert [spread.tilted for spread in told] == pytest.approx(expected)
    assert {spread.bystanders for spread in told} == {RECIPE.bystanders}  # to the end


def test_turning_and_scaling_fade_away_with_the_last_steps(make):
    recipe = dataclasses.replace(RECIPE, steps=300, refresh=1000, blocks=1, synthetic=1.0)
    batches = make(recipe, real=False)
    scales = [
        {round(scale, 5) for scale in batches.at(step).targets.estimate.scale.flatten().tolist()} for step in (0, 299)
    ]
    assert len(scales[0]) == 6  # all different
    rendered = batches._pool.draw(64, torch.Generator().manual_seed(0)).targets.estimate.scale.flatten()
    ratios = torch.tensor(sorted(scales[1]))[:, None] / rendered[None]
    assert ((ratios - 1).abs().amin(1) < 0.002).all()  # 1 % of ln 1.2 at the last step
    assert [round(recipe.turning(step), 2) for step in (0, 200, 250, 299, 300, 301)] == [1, 1, 0.5, 0.01, 0, 0]
    assert [round(recipe.guiding(step), 3) for step in (0, 200, 250, 300)] == [1, 1, 0.625, 0.25]


def test_processes_draw_different_crops(make):
    halves = [make(processes=Processes(rank, 2, torch.device("cpu"))).at(1) for rank in range(2)]
    assert len(halves[0].crops) == 3
    assert not torch.equal(halves[0].crops[:2], halves[1].crops[:2])


@pytest.mark.parametrize("synthetic", [0.0, 1.0])
def test_one_kind_alone(make, synthetic):
    batch = make(dataclasses.replace(RECIPE, synthetic=synthetic), real=synthetic == 0).at(0)
    assert (batch.targets.shape_weights == synthetic).all()


def test_a_network_trains_on_both(config, demo_body, listing):
    real = load_mixture(listing, demo_body, config.crop, seed=0)
    trainer = Trainer(config, dataclasses.replace(RECIPE, steps=2, warmup=1), demo_body, real=real)
    losses = [terms["loss"] for terms in trainer.run(2)]
    assert np.isfinite(losses).all()


def test_shares_that_do_not_fit_are_refused(make):
    with pytest.raises(InputError, match="--data"):
        make(real=False)
    with pytest.raises(InputError, match="--synthetic"):
        make(dataclasses.replace(RECIPE, synthetic=1.0))
    with pytest.raises(InputError, match="shared by 4"):
        make(processes=Processes(0, 4, torch.device("cpu")))
    with pytest.raises(InputError, match="share synthetic"):
        Recipe(synthetic=1.5)
    with pytest.raises(InputError, match="precision"):
        Recipe(precision="float8")
    with pytest.raises(InputError, match="tilted"):
        Recipe(tilted=-0.1)
    with pytest.raises(InputError, match="bystanders"):
        Recipe(bystanders=1.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reader": "imagenet"}, "h36m"),
        ({"images": None}, "lacks 'images'"),
        ({"rato": 1}, "unknown 'rato'"),
        ({"ratio": -1}, "not a share"),
        ({"ratio": True}, "not a share"),
        ({"ratio": None}, "not a share"),
        ({"ratio": math.inf}, "not a share"),
        ({"ratio": 10**400}, "a huge number of coco is not a share"),
        ({"labels": {"keypoints": 2}}, "labels of coco"),
        ({"labels": {"hands": True}}, "labels of coco"),
    ],
)
def test_a_list_of_datasets_says_what_is_wrong_with_it(listing, config, demo_body, change, words):
    entries = json.loads(listing.read_text())
    entries[0].update(change)
    listing.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="list of datasets") as caught:
        load_mixture(listing, demo_body, config.crop, seed=0)
    assert words in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", "[]", "[3]"])
def test_what_is_no_list_of_datasets_is_refused(listing, config, demo_body, content):
    listing.write_text(content)
    with pytest.raises(InputError, match="list of datasets"):
        load_mixture(listing, demo_body, config.crop, seed=0)


def test_labels_can_be_switched_off(listing, config, demo_body):
    entries = json.loads(listing.read_text())
    entries[0]["labels"] = {"keypoints": False}
    listing.write_text(json.dumps(entries))
    sample = load_mixture(listing, demo_body, config.crop, seed=0).load(0)
    assert (sample.keypoint_weights == 0).all()
