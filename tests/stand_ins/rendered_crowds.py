"""Pictures of several rendered persons, with their boxes."""

import cv2
import numpy as np

from glnet_infer.contract import CropSpec


def crowds(body):
    """Twenty pictures, 1280 x 720, BGR, each with the boxes of four rendered persons who stand.

    The persons are pasted over a rendered background, the smaller ones first. They are 190 to 520 pixels tall or so, whole
    in the picture, and their boxes overlap by an intersection over union of 0.15 at most.
    """
    import torch  # boxes are compared without it, too

    from glnet_render import Spread, SyntheticSource
    from glnet_render.placement import place

    count, each = 20, 4
    source = SyntheticSource(body, CropSpec(size=256), seed=5, spread=Spread(difficulty=0.0))
    persons = []
    with torch.no_grad():
        for _ in range(count * each // 16):
            people = source._people(source.draw, 16)
            placement = place(source.draw, people.vertices, people.joints, source.crop, 0.0)
            _, colors, coverage = source._render(source.draw, people, placement)
            persons += [torch.cat(pair, dim=-1).clamp(0, 1).numpy() for pair in zip(colors, coverage, strict=True)]
        scenes = source._backgrounds.sample(source.draw, count, 512).clamp(0, 1).numpy()
    rng = np.random.default_rng(1)
    return [_pasted(rng, scenes[index], persons[index * each : (index + 1) * each]) for index in range(count)]


def _pasted(rng, scene, persons, width=1280, height=720, overlap=0.15):
    picture, boxes = cv2.resize(scene, (width, height)), []
    sides = np.sort(rng.uniform(250, 600, len(persons))).astype(int)
    for side, person in zip(sides, persons, strict=True):
        how = cv2.INTER_AREA if side < person.shape[0] else cv2.INTER_LINEAR
        layer = cv2.resize(person, (side, side), interpolation=how)
        rows, columns = (np.flatnonzero((layer[..., 3] > 0.5).any(axis)) for axis in (1, 0))
        layer = layer[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        tall, wide = layer.shape[:2]
        for _ in range(1000):
            x, y = int(rng.uniform(0, width - wide)), int(rng.uniform(0, height - tall))
            box = [x, y, x + wide, y + tall]
            if not boxes or overlaps([box], boxes).max() <= overlap:
                break
        else:
            raise AssertionError("there is no room for so many persons")
        under = picture[y : y + tall, x : x + wide]
        under[:] = layer[..., :3] + under * (1 - layer[..., 3:])
        boxes.append(box)
    return np.ascontiguousarray((picture.clip(0, 1) * 255).round().astype(np.uint8)[..., ::-1]), np.array(boxes, float)


def overlaps(first, second):
    """Intersection over union of all pairs of boxes."""
    first, second = np.asarray(first, float)[:, None], np.asarray(second, float)[None]
    sides = (np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])).clip(0)
    common = sides.prod(-1)
    return common / ((first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - common)
