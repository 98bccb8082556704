"""Scores on annotated photographs: which joints, whose body, which pixels."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from glnet.body import Body
from glnet.position_errors import pa_mpjpe
from glnet_infer.camera import Intrinsics
from glnet_infer.contract import CropSpec
from glnet_infer.errors import BackendError, InputError
from glnet_infer.skeleton import JOINT_NAMES
from glnet_train.commands.main import app
from glnet_train.data import AnnotatedImages, Annotation
from glnet_train.scores import EvaluationProtocol, load_regressor, score_dataset

SIZE = 64
LIMBS = ["left_wrist", "right_ankle"]


@pytest.fixture
def person(standing, matrices, intrinsics, tmp_path, write_image):
    """A person with every label, in the middle of a photograph."""
    vectors, betas, _, joints = standing
    write_image(tmp_path / "photo.jpg")
    camera = Intrinsics.from_matrix(intrinsics)
    ones = np.ones(29, dtype=np.float32)
    return Annotation(
        image=tmp_path / "photo.jpg",
        box=np.array([110.0, 60, 230, 180]),
        intrinsics=camera,
        rotations=matrices(vectors.reshape(1, 72))[0].astype(np.float32),
        betas=betas.astype(np.float32),
        joints_3d=joints.astype(np.float32),
        joints_3d_weights=ones,
        keypoints_2d=camera.project(joints).astype(np.float32),
        keypoints_2d_weights=ones,
    )


class Answers:
    """A backend that answers every crop with one body, and with keypoints in crop pixels."""

    name = "answers"

    def __init__(self, body, rotations, betas, keypoints):
        with torch.no_grad():
            posed = body.pose(torch.tensor(rotations)[None], torch.tensor(betas)[None])
        self.vertices, self.joints = posed.vertices.numpy() + 5, posed.joints.numpy() + 5  # metres away
        self.rotations, self.betas, self.keypoints = rotations, betas, keypoints

    def run(self, crops, cameras):
        count = len(crops)
        one = {
            "vertices": self.vertices,
            "joints": self.joints,
            "keypoints_2d": self.keypoints[None],
            "rotations": self.rotations[None],
            "betas": self.betas[None],
            "translation": np.zeros((1, 3)),
            "confidence": np.ones(1),
            "reference_pixel": np.zeros((1, 2)),
        }
        return {name: np.repeat(value.astype(np.float32), count, 0) for name, value in one.items()}

    def close(self):
        pass


def dataset(*annotations):
    return AnnotatedImages("set", annotations, spec=CropSpec(size=SIZE))


def in_crop(person):
    """Keypoints of a person in crop pixels: its box is square, crops are 1.25 times as wide."""
    middle = (person.box[:2] + person.box[2:]) / 2
    return (person.keypoints_2d - middle) / (120 * 1.25) * SIZE + SIZE / 2


@pytest.fixture
def turned(person, matrices):
    """The person's pose with its knees bent further."""
    vectors = np.zeros((24, 3))
    vectors[[4, 5]] = [0.4, 0, 0]
    return (person.rotations @ matrices(vectors.reshape(1, 72))[0]).astype(np.float32)


def summary(scores):
    return scores.summary().as_dict()


def test_the_truth_scores_zero(body, person, rng):
    answers = Answers(body, person.rotations, person.betas, in_crop(person))
    regressor = torch.from_numpy(rng.dirichlet(np.ones(len(body.data.v_template)), 17))
    for protocol in (EvaluationProtocol(body), EvaluationProtocol(body, regressor=regressor)):
        found = summary(score_dataset(answers, dataset(person, person), protocol))
        assert set(found) == {"crops", "mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "keypoint_px"}  # no area, no similarity
        assert found.pop("crops") == 2
        assert max(found.values()) < 0.05  # mm and px: float32, five metres away


def test_joints_are_smpls_own_where_there_is_no_regressor(body, person, turned):
    """Against numpy, of the joints that have a label."""
    answers = Answers(body, turned, person.betas, in_crop(person))
    labelled = np.ones(29, dtype=np.float32)
    labelled[10:] = 0
    found = summary(
        score_dataset(answers, dataset(dataclasses.replace(person, joints_3d_weights=labelled)), EvaluationProtocol(body))
    )
    moved = (answers.joints[0] - answers.joints[0, 0]) - (person.joints_3d - person.joints_3d[0])
    assert found["mpjpe_mm"] == pytest.approx(1e3 * np.linalg.norm(moved[:10], axis=1).mean(), abs=0.01)
    aligned = pa_mpjpe(torch.tensor(answers.joints[:, :10]), torch.tensor(person.joints_3d[None, :10]))
    assert found["pa_mpjpe_mm"] == pytest.approx(aligned.item(), abs=0.01)


def test_a_regressor_gives_the_joints_of_the_literature(body, person, turned, tmp_path, rng):
    """14 of Human3.6M's 17, about the first of them; vertices about it too."""
    answers = Answers(body, turned, person.betas, in_crop(person))
    weights = rng.dirichlet(np.ones(len(body.data.v_template)) / 100, 17)
    np.save(tmp_path / "regressor.npy", weights)
    protocol = EvaluationProtocol(body, regressor=load_regressor(tmp_path / "regressor.npy", weights.shape[1]))
    found = summary(score_dataset(answers, dataset(person), protocol))
    with torch.no_grad():
        truth = body.pose(torch.tensor(person.rotations)[None], torch.tensor(person.betas)[None]).vertices[0].numpy()
    moved = answers.vertices[0] - truth
    joints = weights @ moved
    scored = [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16]
    assert found["mpjpe_mm"] == pytest.approx(1e3 * np.linalg.norm(joints - joints[0], axis=1)[scored].mean(), abs=0.01)
    assert found["pve_mm"] == pytest.approx(1e3 * np.linalg.norm(moved - joints[0], axis=1).mean(), abs=0.01)
    regressed = torch.tensor(weights @ answers.vertices[0])[None], torch.tensor(weights @ truth)[None]
    aligned = pa_mpjpe(*(each[:, scored] for each in regressed))  # the order of points does not matter
    assert found["pa_mpjpe_mm"] == pytest.approx(aligned.item(), abs=0.01)


def test_joints_that_a_set_gives_are_the_truth_before_those_of_the_mesh(body, person, rng):
    """As Human3.6M's, of the motion capture. Vertices stay those of the mesh."""
    answers = Answers(body, person.rotations, person.betas, in_crop(person))
    regressor = rng.dirichlet(np.ones(len(body.data.v_template)) / 100, 17)
    shifts = rng.normal(scale=0.02, size=(17, 3))  # metres
    captured = regressor @ answers.vertices[0] + shifts + [0.3, -0.1, 4.0]
    people = [dataclasses.replace(person, h36m_joints=captured.astype(np.float32)), person]
    protocol = EvaluationProtocol(body, regressor=torch.from_numpy(regressor))
    scores = score_dataset(answers, dataset(*people), protocol)
    scored = [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16]
    expected = 1e3 * np.linalg.norm(shifts - shifts[0], axis=1)[scored].mean()
    assert scores.values("mpjpe_mm").tolist() == pytest.approx([expected, 0], abs=0.05)  # mm: float32, metres away
    assert scores.values("pa_mpjpe_mm")[0] > 5 and scores.values("pve_mm").max() < 0.05
    unposed = dataclasses.replace(people[0], rotations=None, betas=None)
    assert set(summary(score_dataset(answers, dataset(unposed), protocol))) >= {"mpjpe_mm", "pa_mpjpe_mm"}


def test_true_meshes_are_the_actors_own(body, person):
    """A taller body for men: recovering the neutral one of the same betas is then an error, for men only."""
    tall = Body(dataclasses.replace(body.data, v_template=1.1 * body.data.v_template))
    answers = Answers(tall, person.rotations, person.betas, in_crop(person))
    people = [dataclasses.replace(person, gender=gender) for gender in ("male", "female", "male")]
    scores = score_dataset(answers, dataset(*people), EvaluationProtocol(body, {"male": tall}))
    errors = scores.values("pve_mm")
    assert scores.counts()["pve_mm"] == 3
    assert errors[0] == errors[2] < 0.01 and errors[1] > 20


def test_pose_alone_is_no_mesh_and_keypoints_alone_are_no_pose(body, person):
    answers = Answers(body, person.rotations, person.betas, in_crop(person))
    shapeless = dataclasses.replace(person, betas=None)
    assert "pve_mm" not in summary(score_dataset(answers, dataset(shapeless), EvaluationProtocol(body)))
    flat = dataclasses.replace(shapeless, rotations=None, joints_3d=None, joints_3d_weights=None)
    assert set(summary(score_dataset(answers, dataset(flat), EvaluationProtocol(body)))) == {"crops", "keypoint_px"}


def test_similarity_is_that_of_the_photograph(body, person):
    """COCO's similarity by hand: everything in image pixels, 150 of which are 64 of the crop."""
    keypoints = in_crop(person)
    keypoints[:, 0] += 3
    answers = Answers(body, person.rotations, person.betas, keypoints)
    weights = np.zeros(29, dtype=np.float32)
    weights[[JOINT_NAMES.index(name) for name in LIMBS]] = 1
    seen = dataclasses.replace(person, keypoints_2d_weights=weights, area=9000.0)
    found = summary(score_dataset(answers, dataset(seen), EvaluationProtocol(body)))
    off = 3 * 150 / 64
    sigmas = np.array([0.062, 0.089])  # COCO's of wrists and ankles
    expected = np.exp(-(off**2) / (2 * 9000 * (2 * sigmas) ** 2)).mean()
    assert found["oks"] == pytest.approx(expected, abs=1e-4)
    assert found["keypoint_px"] == pytest.approx(3, abs=1e-4)
    assert {"coco_ap", "coco_ap50"} < set(found)


def test_answers_that_are_no_numbers_are_no_score(body, person):
    """Left out of the mean, they would improve it."""
    answers = Answers(body, person.rotations, person.betas, in_crop(person))
    answers.vertices[0, 5] = np.nan
    with pytest.raises(BackendError, match="answers gave vertices"):
        score_dataset(answers, dataset(person), EvaluationProtocol(body))


def test_a_photograph_that_breaks_off_ends_the_scoring(body, person):
    answers = Answers(body, person.rotations, person.betas, in_crop(person))
    whole = person.image.read_bytes()
    person.image.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(InputError, match=r"photo\.jpg"):
        score_dataset(answers, dataset(person), EvaluationProtocol(body))


def test_a_part_of_a_dataset_is_spread_over_it(body, person, monkeypatch):
    people = [dataclasses.replace(person, area=float(row + 1)) for row in range(40)]
    seen = []
    monkeypatch.setattr(AnnotatedImages, "load", lambda self, row: seen.append(row) or load(self, row))
    progress = []
    load = _load
    scores = score_dataset(
        Answers(body, person.rotations, person.betas, in_crop(person)),
        dataset(*people),
        EvaluationProtocol(body),
        crops=20,
        progress=lambda *done: progress.append(done),
    )
    assert summary(scores)["crops"] == 20 and seen[0] == 0 and seen[-1] == 39 and len(set(seen)) == 20
    assert progress == [(16, 20), (20, 20)]


_load = AnnotatedImages.load


ANNOUNCED = (
    b"\x93NUMPY\x01\x00\x76\x00"
    + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000, 1000, 1000), }".ljust(117)
    + b"\n"
)


@pytest.mark.parametrize(
    "content",
    [b"nonsense", ANNOUNCED, np.zeros((24, 10)), np.full((17, 10), np.nan), np.zeros((17, 10), complex)],
    ids=["damaged", "announced", "SMPL's", "NaN", "complex"],
)
def test_what_is_no_regressor_is_refused(tmp_path, content):
    path = tmp_path / "regressor.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(InputError, match="regressor"):
        load_regressor(path, 10)


def test_the_command_scores_every_dataset_of_a_list(small_checkpoint, coco, write_json, tmp_path):
    write_json(coco)
    listing = tmp_path / "data.json"
    listing.write_text(json.dumps([{"reader": "coco", "annotations": "set.json", "images": "images"}] * 2))
    result = CliRunner().invoke(app, ["eval", str(small_checkpoint), "--data", str(listing)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and lines[0].startswith("COCO") and "1 crops" in lines[0]
    result = CliRunner().invoke(app, ["eval", str(small_checkpoint), "--data", str(listing), "--json"])
    assert [entry["name"] for entry in json.loads(result.stdout)["datasets"]] == ["COCO", "COCO"]
    cv2.imwrite(str(tmp_path / "images" / "000000000005.jpg"), np.zeros((2, 2, 3), dtype=np.uint8))
    assert CliRunner().invoke(app, ["eval", str(small_checkpoint), "--data", str(listing)]).exit_code == 3


def test_scores_are_told_before_what_fails_later(small_checkpoint, coco, write_json, tmp_path):
    """Scores of an earlier dataset, and of crops whose picture cannot be written. A set without labels is a failure."""
    write_json(coco)
    listing = tmp_path / "data.json"
    entry = {"reader": "coco", "annotations": "set.json", "images": "images"}
    listing.write_text(json.dumps([entry, {**entry, "labels": {"keypoints": False}}]))
    result = CliRunner().invoke(app, ["eval", str(small_checkpoint), "--data", str(listing)])
    assert result.exit_code == 3 and result.stdout.startswith("COCO") and len(result.stdout.splitlines()) == 1
    assert "Nothing of COCO can be scored" in result.stderr
    taken = tmp_path / "sheet.png"
    taken.mkdir()
    result = CliRunner().invoke(app, ["eval", str(small_checkpoint), "--crops", "2", "--pictures", str(taken)])
    assert result.exit_code == 9 and "standing body" in result.stdout


def test_options_that_belong_together(small_checkpoint, tmp_path):
    def code(*options):
        return CliRunner().invoke(app, ["eval", str(small_checkpoint), *map(str, options)]).exit_code

    assert code("--regressor", "j.npy") == code("--male", "m.pkl") == 2
    assert code("--data", "list.json", "--pictures", "p.png") == 2
    assert code("--data", "list.json", "--bystanders", "1") == 2
    assert code("--backend", "onnxruntime-cpu") == 2
