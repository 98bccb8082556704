"""Tracks against a simulation that knows who is who."""

import numpy as np
import pytest

from glnet_infer.video.tracks import NOBODY, Tracker, intersection_over_union


def box(x, y, height=200.0, width=80.0):
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def switches(frames, tracker=None):
    """How often a person's number changes, and the share of boxes with one; frames are (time, persons, boxes, scores)."""
    tracker, last, changed, tracked, total = tracker or Tracker(), {}, 0, 0, 0
    for time, persons, boxes, scores in frames:
        numbers = tracker.update(np.array(boxes).reshape(-1, 4), np.array(scores), time)
        found = numbers[numbers != NOBODY]
        assert len(found) == len(set(found.tolist()))
        for person, number in zip(persons, numbers.tolist(), strict=True):
            total += 1
            if number == NOBODY:
                continue
            tracked += 1
            changed += last.get(person, number) != number
            last[person] = number
    return changed, tracked / max(total, 1)


def crowd(seed, frames=300, rate=30.0, misses=0.1, hidden=(100, 125)):
    """Three persons who cross, with noise, misses, unsure boxes, and one who is gone for 25 frames."""
    draw = np.random.default_rng(seed)
    for index in range(frames):
        time = index / rate
        persons, boxes, scores = [], [], []
        for person, (x, speed, y) in enumerate(((100, 60, 300), (900, -55, 330), (500, 5, 420))):
            if draw.random() < misses or (person == 2 and hidden[0] <= index < hidden[1]):
                continue
            persons.append(person)
            boxes.append(np.array(box(x + speed * time, y + 10 * np.sin(3 * time))) + draw.normal(0, 3, 4))
            scores.append(draw.uniform(0.2, 0.5) if draw.random() < 0.1 else draw.uniform(0.6, 0.95))
        yield time, persons, boxes, scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [30.0, 12.0])
def test_who_crosses_keeps_their_number(seed, rate):
    changed, share = switches(crowd(seed, frames=int(10 * rate), rate=rate))
    assert changed == 0 and share > 0.97


def test_numbers_do_not_depend_on_the_order_of_the_boxes():
    draw = np.random.default_rng(0)

    def shuffled():
        for time, persons, boxes, scores in crowd(1):
            order = draw.permutation(len(persons))
            yield time, [persons[i] for i in order], [boxes[i] for i in order], [scores[i] for i in order]

    assert switches(shuffled())[0] == 0


def test_who_is_hidden_while_walking_is_found_again():
    def frames():
        for index in range(120):
            gone = 40 <= index < 65
            yield index / 30, [] if gone else [0], [] if gone else [box(200 + 3 * index, 300)], [] if gone else [0.9]

    assert switches(frames()) == (0, 1.0)


def test_who_stays_away_is_somebody_new():
    tracker = Tracker()
    first = tracker.update(np.array([box(200, 300)]), np.array([0.9]), 0.0)
    tracker.update(np.zeros((0, 4)), np.zeros(0), 1.0)
    second = tracker.update(np.array([box(200, 300)]), np.array([0.9]), 5.0)
    assert first.tolist() == [1] and second.tolist() == [2]


def test_somebody_elsewhere_or_of_another_size_is_nobodys_return():
    for other in (box(900, 300), box(200, 300, height=500, width=200)):
        tracker = Tracker()
        tracker.update(np.array([box(200, 300)]), np.array([0.9]), 0.0)
        assert tracker.update(np.array([other]), np.array([0.9]), 0.2).tolist() == [2]


def test_unsure_boxes_begin_no_track_but_keep_one():
    tracker = Tracker()
    assert tracker.update(np.array([box(200, 300)]), np.array([0.3]), 0.0).tolist() == [NOBODY]
    assert tracker.update(np.array([box(200, 300)]), np.array([0.8]), 0.1).tolist() == [1]
    assert tracker.update(np.array([box(202, 300)]), np.array([0.3]), 0.2).tolist() == [1]
    assert tracker.update(np.array([box(202, 300)]), np.array([0.05]), 0.3).tolist() == [NOBODY]


def test_sure_boxes_choose_before_unsure_ones():
    tracker = Tracker()
    tracker.update(np.array([box(200, 300)]), np.array([0.9]), 0.0)
    near, nearer = box(215, 300), box(203, 300)
    assert tracker.update(np.array([nearer, near]), np.array([0.3, 0.9]), 0.1).tolist() == [NOBODY, 1]


def test_overlap_is_what_counting_pixels_says():
    one, other = np.array([[0, 0, 10, 20], [5, 5, 9, 9]], float), np.array([[5, 10, 15, 30], [100, 100, 110, 110]], float)
    canvas = np.zeros((4, 120, 120), bool)
    for index, (x1, y1, x2, y2) in enumerate(np.concatenate([one, other]).astype(int)):
        canvas[index, y1:y2, x1:x2] = True
    expected = [[(canvas[i] & canvas[j]).sum() / (canvas[i] | canvas[j]).sum() for j in (2, 3)] for i in (0, 1)]
    np.testing.assert_allclose(intersection_over_union(one, other), expected, atol=1e-12)
