"""The data source: poses, a scene, an appearance and a picture, put together."""

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from glnet.body.smpl import Body, PosedBody
from glnet.estimate import viewing_axes
from glnet_infer.contract import GRID_STRIDE, CropSpec
from glnet_render.appearance import Wardrobe
from glnet_render.backgrounds import Backgrounds
from glnet_render.charts import vertex_segments
from glnet_render.corruptions import Occluders, camera_faults, in_crop, occluders
from glnet_render.placement import Placement, place, place_beside, project
from glnet_render.poses import PoseSampler, shapes, views
from glnet_render.randomness import Draw
from glnet_render.renderer import Fragments, Rasterizer
from glnet_render.seeds import BYSTANDERS, derived
from glnet_render.spread import SCORED, Spread
from glnet_render.targets import BACKGROUND, UNKNOWN

CHUNK = 16
"""Crops rendered at a time. This bounds the memory, and keeps intermediate results in a processor's cache."""


class SyntheticSample(NamedTuple):
    """N crops and their labels. Tensors on the source's device.

    Attributes:
        crops: N x S x S x 3 uint8, RGB.
        cameras: N x 4 float32: fx, fy, cx, cy in crop sides from the crop's centre, like
            ``glnet_infer.crops.CropSquares.cameras``.
        rotations: N x 24 x 3 x 3, local rotations, the root's relative to the camera (x right, y down, z forward).
        betas: N x 10, standard deviations.
        translation: N x 3, metres, SMPL's convention: ``vertices = body.pose(rotations, betas).vertices + translation``.
        visibility: N x 29 bool, joints in the crop that no occluder, nearer person or border of the image hides. Joints
            that the body itself hides count as visible.
        segments: N x G x G uint8, the surface that is seen (:class:`glnet_render.targets.Targets`). Cells that an occluder,
            a nearer person or the image's border hides have no label; farther persons are background. G is S / 4, as in
            HRNet's highest resolution.
        places: N x G x G x 4 metres, the places of that surface.
    """

    crops: Tensor
    cameras: Tensor
    rotations: Tensor
    betas: Tensor
    translation: Tensor
    visibility: Tensor
    segments: Tensor
    places: Tensor


class _People(NamedTuple):
    """N posed bodies that are not placed yet.

    Attributes:
        rotations: N x 24 x 3 x 3, local rotations.
        chained: N x 24 x 3 x 3, rotations relative to the camera.
        betas: N x 10.
        rest: N x 3, the root joint before the body is placed.
        posed: Surfaces and joints.
    """

    rotations: Tensor
    chained: Tensor
    betas: Tensor
    rest: Tensor
    posed: PosedBody

    @property
    def vertices(self) -> Tensor:
        """N x V x 3, metres from the root joint."""
        return self.posed.vertices - self.rest.unsqueeze(1)

    @property
    def joints(self) -> Tensor:
        """N x 29 x 3, metres from the root joint."""
        return self.posed.joints - self.rest.unsqueeze(1)


class SyntheticSource:
    """Renders training crops of a body, without end.

    The same seed gives the same sequence of samples on the same device, for the same sequence of counts. Most of the work
    is in many small steps: where several processes share a CPU's cores, give each one thread (``torch.set_num_threads``).

    Args:
        body: The body that is rendered; a copy is made where it lies on another device.
        crop: Size of the crops, and how much they show around a person.
        seed: Seed of all random numbers.
        device: Device that computes everything.
        backgrounds: Folder of photographs to put behind the persons, beside procedural pictures.
        spread: Spread of the samples; see also :meth:`begin`.

    Raises:
        InputError: The folder holds no photograph.
    """

    def __init__(
        self,
        body: Body,
        crop: CropSpec,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        backgrounds: Path | None = None,
        spread: Spread = SCORED,
    ) -> None:
        self.device = torch.device(device)
        self.body = body if body.weights.device == self.device else copy.deepcopy(body).to(self.device)
        self.crop = crop
        self.draw, self._draw_beside = Draw(torch.Generator(self.device)), Draw(torch.Generator(self.device))
        self.begin(seed, spread)
        self._poses = PoseSampler(self.device)
        self._rasterizer = Rasterizer(torch.tensor(body.data.faces, device=self.device), crop.size)
        self._segments = vertex_segments(self.body)
        self._wardrobe = Wardrobe(self.body, self.device)
        self._backgrounds = Backgrounds(backgrounds, self.device)

    @property
    def photographs(self) -> str | None:
        """A digest of the photographs behind the persons; None where there are none."""
        found = self._backgrounds.photographs
        return None if found is None else found.digest

    @torch.no_grad()
    def sample(self, count: int) -> SyntheticSample:
        """The next crops.

        Args:
            count: Number of crops; beside the result itself, the memory needed does not grow with it.
        """
        # Not inference mode: its tensors could not take part in a loss. Labels are exact only in float32, whatever
        # precision the caller trains in.
        with torch.autocast(self.device.type, enabled=False):
            chunks = [self._chunk(min(CHUNK, count - start)) for start in range(0, count, CHUNK)]
        return SyntheticSample(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))

    def begin(self, seed: int, spread: Spread = SCORED) -> None:
        """Start the sequence of a seed, whatever was sampled before."""
        self.spread = spread
        self.draw.generator.manual_seed(seed)
        # Bystanders have their own generator, so that the persons of a seed are the same whoever stands beside them.
        self._draw_beside.generator.manual_seed(derived(seed, BYSTANDERS, 0))

    def _chunk(self, count: int) -> SyntheticSample:
        draw, difficulty, size = self.draw, self.spread.difficulty, self.crop.size
        people = self._people(draw, count)
        placement = place(draw, people.vertices, people.joints, self.crop, difficulty)
        fragments, person, coverage = self._render(draw, people, placement)

        scenery = self._backgrounds.sample(draw, count, size)
        hidden = occluders(draw, count, size, scenery, difficulty)
        if self.spread.bystanders:
            scenery, hidden = self._add_bystanders(placement, scenery, hidden)
        image = hidden.cover(person.clamp(max=1) + scenery * (1 - coverage))
        # Beyond the image's border there is no camera: exactly black, as glnet_infer.crops has it.
        image = camera_faults(draw, image, difficulty) * hidden.inside.unsqueeze(-1)
        depths = people.vertices @ viewing_axes(placement.cameras).unsqueeze(-1)
        segments, places = self._surface(fragments, depths, hidden)
        translation = placement.root - people.rest
        keypoints = project(people.posed.joints + translation.unsqueeze(1), placement.cameras)
        return SyntheticSample(
            crops=(image * 255).round().to(torch.uint8),
            cameras=placement.cameras,
            rotations=people.rotations,
            betas=people.betas,
            translation=translation,
            visibility=in_crop(keypoints) & ~hidden.hides(keypoints),
            segments=segments,
            places=places,
        )

    def _people(self, draw: Draw, count: int) -> _People:
        betas = shapes(draw, count)
        rotations = self._postures(draw, count)
        chained = self.body.kinematics.chain(rotations)
        rest = self.body.rest_joints(betas)
        # Joints of the posed body start at the root's rest place, wherever it turns.
        return _People(rotations, chained, betas, rest[:, 0], self.body(chained, rotations, betas, rest))

    def _postures(self, draw: Draw, count: int) -> Tensor:
        """Local rotations, N x 24 x 3 x 3, the root's relative to the camera."""
        difficulty, tilted = self.spread.difficulty, self.spread.tilted
        rotations = self._poses.rotations(self._poses.angles(draw, count, difficulty), views(draw, count, difficulty))
        if not tilted:
            return rotations
        others = self._poses.rotations(self._poses.angles(draw, count, difficulty), views(draw, count, difficulty))
        # y is up for the body, down for the camera: the larger the entry, the further the pelvis is from upright.
        taken = draw.chance(count, probability=tilted) & (others[:, 0, 1, 1] > rotations[:, 0, 1, 1])
        return torch.where(taken[:, None, None, None], others, rotations)

    def _render(self, draw: Draw, people: _People, placement: Placement) -> tuple[Fragments, Tensor, Tensor]:
        """The seen parts of N people, their premultiplied colours, N x S x S x 3, and their coverage, N x S x S x 1."""
        vertices = people.posed.vertices + (placement.root - people.rest).unsqueeze(1)
        fragments = self._rasterizer(project(vertices, placement.cameras), vertices[..., 2])
        look = self._wardrobe.dress(draw, people.chained, people.betas)
        colors = self._wardrobe.shade(look, fragments, self.crop.size**2)
        return fragments, *fragments.resolve(colors, len(vertices), self.crop.size)

    def _add_bystanders(self, placement: Placement, scenery: Tensor, hidden: Occluders) -> tuple[Tensor, Occluders]:
        """Scenery and occluders, with another person in some of the crops: part of one or the other.

        Whole persons are layered by the depths of their roots, not pixel by pixel: where limbs would cross, the picture
        is wrong, but the labels follow the picture.
        """
        draw, share = self._draw_beside, self.spread.bystanders * self.spread.difficulty
        chosen = draw.chance(len(scenery), probability=share).nonzero().squeeze(1)
        if not len(chosen):
            return scenery, hidden
        first = Placement(*(part[chosen] for part in placement))
        others = self._people(draw, len(chosen))
        second = place_beside(draw, first, others.vertices)
        _, color, coverage = self._render(draw, others, second)
        color = color.clamp(max=1)
        nearer = (second.root[:, 2] < first.root[:, 2])[:, None, None, None]
        behind = color + scenery[chosen] * (1 - coverage)
        scenery = scenery.index_copy(0, chosen, torch.where(nearer, scenery[chosen], behind))
        return scenery, hidden.with_farthest(chosen, color * nearer, coverage * nearer)

    def _surface(self, fragments: Fragments, depths: Tensor, hidden: Occluders) -> tuple[Tensor, Tensor]:
        """Segments and places of the grid's cells, from depths behind the root, N x V x 1."""
        count, grid = len(depths), self.crop.size // GRID_STRIDE
        middles = fragments.every(GRID_STRIDE, self.crop.size)
        rest = self.body.template.view(1, -1, 3).expand(count, -1, -1)
        vertices = middles.corners[0].gather(-1, middles.weights[0].argmax(-1, keepdim=True)).squeeze(-1)
        segments = torch.full((count * grid * grid,), BACKGROUND, dtype=torch.uint8, device=self.device)
        segments[middles.pixels] = self._segments[vertices % rest.shape[1]]
        places = torch.zeros(count * grid * grid, 4, device=self.device)
        places[middles.pixels] = middles.interpolate(torch.cat([rest, depths], dim=-1))[0]
        segments, places = segments.view(count, grid, grid), places.view(count, grid, grid, 4)
        middle = slice(GRID_STRIDE // 2, None, GRID_STRIDE)
        unseen = (hidden.alpha > 0.5) | ~hidden.inside
        return segments.masked_fill_(unseen[:, middle, middle], UNKNOWN), places
