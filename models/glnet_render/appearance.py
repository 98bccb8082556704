"""The look of a body: its clothes and its light.

Regions (skin, trousers, shirt, shoes, hair) are signed distances in the rest pose, metres, given to vertices and
interpolated. So their borders are sharp in the image. Borders follow the joints of the rest skeleton, so any body in T-pose
(y up, facing +z) can be dressed. Colours come from small patterns, one per region, laid on in rest-pose coordinates, so
that they move with the body. Light is computed per vertex.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from glnet.body.smpl import Body
from glnet_render.limits import INDEX
from glnet_render.randomness import Draw
from glnet_render.renderer import Fragments
from glnet_render.textures import SIZE, colors, patterns

SKIN, TROUSERS, SHIRT, SHOES, HAIR = range(5)
REGIONS = 5

# sRGB of skin from light to dark, after the spread of human skin tones; samples lie between neighbours.
_SKIN_TONES = ((255, 224, 200), (241, 194, 160), (224, 172, 130), (190, 134, 96), (141, 90, 60), (92, 58, 40), (62, 40, 30))
_HAIR_TONES = ((20, 16, 14), (44, 30, 22), (80, 52, 34), (120, 82, 50), (190, 150, 96), (140, 62, 34), (150, 148, 145))


class Look(NamedTuple):
    """The look of N persons.

    Attributes:
        surface: N x V x 9: distances into trousers, shirt, shoes and hair (metres, positive inside), two coordinates in
            the patterns (texels), and the light's red, green and blue.
        patterns: N x 5 x SIZE x SIZE x 3, one per region.
    """

    surface: Tensor
    patterns: Tensor


class Wardrobe:
    """Dresses and lights a body."""

    def __init__(self, body: Body, device: torch.device) -> None:
        data = body.data
        joints = data.joint_regressor @ data.v_template
        self.rest = torch.tensor(data.v_template, dtype=torch.float32, device=device)
        self.normals = torch.tensor(_vertex_normals(data.v_template, data.faces), dtype=torch.float32, device=device)
        self.weights = body.weights.to(device)
        self.skin_tones = torch.tensor(_SKIN_TONES, device=device) / 255
        self.hair_tones = torch.tensor(_HAIR_TONES, device=device) / 255
        heights = {name: float(joints[joint, 1]) for name, joint in INDEX.items()}
        self.hip, self.knee, self.ankle = heights["left_hip"], heights["left_knee"], heights["left_ankle"]
        self.neck, self.waist = heights["neck"], heights["spine1"]
        self.head = torch.tensor(joints[INDEX["head"]], dtype=torch.float32, device=device)
        # From the head joint to its top: faces are alike in these units.
        self.head_unit = float(data.v_template[data.leaf_vertices[0], 1]) - heights["head"]
        self.shoulder, self.elbow, self.wrist = (
            abs(float(joints[INDEX[f"left_{name}"], 0])) for name in ("shoulder", "elbow", "wrist")
        )
        self.front = float(data.v_template[data.v_template[:, 1] > heights["head"], 2].max())
        self.features = self._facial_features()

    def _facial_features(self) -> Tensor:
        """Strength of eyes and brows, and of lips, V x 2; 1 in their middle."""
        unit = self.head_unit
        x, y, z = (self.rest - self.head).unbind(-1)
        x, y = x.abs() / unit, y / unit
        front = z > 0.3 * (self.front - self.head[2])
        eyes = torch.exp(-(((x - 0.21) / 0.07) ** 2 + ((y - 0.24) / 0.035) ** 2))
        brows = 0.7 * torch.exp(-(((x - 0.22) / 0.11) ** 2 + ((y - 0.4) / 0.03) ** 2))
        lips = torch.exp(-((x / 0.14) ** 2 + ((y + 0.18) / 0.05) ** 2))
        return torch.stack([torch.maximum(eyes, brows), lips], dim=-1) * front[:, None]

    def dress(self, draw: Draw, rotations: Tensor, betas: Tensor) -> Look:
        """A random look for N posed bodies.

        Args:
            draw: Random numbers.
            rotations: N x 24 x 3 x 3, global rotations relative to the camera.
            betas: N x 10; only N is used.
        """
        count = len(betas)
        surface = [*self._regions(draw, count), *self._coordinates(draw, count), *self._light(draw, rotations).unbind(-1)]
        return Look(torch.stack(surface, dim=-1), self._patterns(draw, count))

    def shade(self, look: Look, fragments: Fragments, pixels: int) -> Tensor:
        """Colours of the samples, Q x P x 3, 0 to 1 or a little above.

        Args:
            look: The look of the persons, from :meth:`dress`.
            fragments: The surface that is seen.
            pixels: Number of pixels of one image.
        """
        values = fragments.interpolate(look.surface)
        trousers, shirt, shoes, hair, u, v, *_ = values.unbind(-1)
        region = (trousers > 0) * TROUSERS
        region = torch.where(shirt > 0, SHIRT, region)
        region = torch.where(shoes > 0, SHOES, region)
        region = torch.where(hair > 0, HAIR, region)
        person = fragments.pixels.div(pixels, rounding_mode="floor")
        texel = ((person * REGIONS + region) * SIZE + v.long() % SIZE) * SIZE + u.long() % SIZE
        texels = look.patterns.view(-1, 3).index_select(0, texel.flatten()).view(*texel.shape, 3)
        return texels * values[..., 6:]

    def _regions(self, draw: Draw, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Distances into trousers, shirt, shoes and hair, each N x V."""
        x, y, z = self.rest.unbind(-1)
        arm = x.abs()

        def among(*ranges: tuple[float, float, float]) -> Tensor:
            """Uniform numbers of one of several ranges (weight, low, high), N x 1."""
            chosen = draw.choice(count, weights=tuple(weight for weight, _, _ in ranges))
            low, high = draw.constant(ranges)[chosen, 1:].unbind(-1)
            return (low + (high - low) * draw.uniform(count))[:, None]

        # Hems are not quite level, and never a straight line.
        wavy = 0.006 * torch.sin(60 * x + 40 * z + 6 * draw.uniform(count, 1))
        leg = among(
            (0.55, self.ankle, self.ankle + 0.08),
            (0.2, self.knee - 0.1, self.knee + 0.12),
            (0.15, self.knee + 0.12, self.hip - 0.08),
            (0.1, self.hip - 0.1, self.hip - 0.04),
        )
        waist = among((1.0, self.hip + 0.04, self.waist + 0.02))
        trousers = torch.minimum(waist - y, y - leg) + wavy

        end = among(
            (0.4, self.wrist - 0.05, self.wrist + 0.02),
            (0.38, self.shoulder + 0.07, self.elbow - 0.03),
            (0.1, self.elbow, self.wrist - 0.08),
            (0.12, self.shoulder - 0.05, self.shoulder),
        )
        hem = among(
            (0.4, self.hip - 0.1, self.hip + 0.03),
            (0.4, self.hip + 0.03, self.waist - 0.03),
            (0.06, self.waist, self.waist + 0.1),
            (0.14, self.knee - 0.1, self.hip - 0.15),
        )
        collar = among((0.75, 0.05, 0.085), (0.2, 0.085, 0.14), (0.05, -0.03, 0.0))
        # The opening for the neck: deeper in front.
        above = y - self.neck - 0.02
        opening = torch.sqrt(x**2 + (above * torch.where((z > 0.02) & (above < 0), 0.6, 1.0)) ** 2) - collar
        below_head = self.neck + 0.06 - y
        shirt = torch.minimum(torch.minimum(end - arm, y - hem), torch.minimum(opening, below_head)) + wavy
        bare = draw.chance(count, 1, probability=0.07)
        shirt = torch.where(bare, -1.0, shirt)
        tucked = draw.chance(count, 1, probability=0.3)
        shirt = torch.where(tucked, torch.minimum(shirt, y - waist), shirt)

        shoes = (
            among(
                (0.75, self.ankle - 0.03, self.ankle + 0.03),
                (0.12, self.ankle + 0.03, self.ankle + 0.3),
                (0.13, -2.0, -1.9),
            )
            - y
        )
        gloves = torch.where(draw.chance(count, 1, probability=0.05), arm - self.wrist, -1.0)
        shoes = torch.maximum(shoes, gloves)

        # Hair: behind and above a plane that leans back from the hairline, down to a level at the back of the head.
        unit = self.head_unit
        up, back = (y - self.head[1]) / unit, (self.front - z) / unit
        lean = torch.deg2rad(draw.uniform(count, 1, low=30, high=75))
        line = draw.uniform(count, 1, low=0.5, high=0.72)
        hair = torch.cos(lean) * (up - line) + torch.sin(lean) * (back - 0.25)
        ragged = 0.05 * torch.sin(70 * x + 6 * draw.uniform(count, 1)) * torch.sin(55 * y)
        level = among((0.5, -0.25, 0.1), (0.25, -0.7, -0.25), (0.15, 0.1, 0.4), (0.1, 3.0, 3.1))
        hair = torch.minimum(hair + ragged, up - level) * unit
        beard = torch.minimum(torch.minimum(-0.05 - up, up + 0.6), 0.75 - back) * unit
        hair = torch.maximum(hair, torch.where(draw.chance(count, 1, probability=0.1), beard, -1.0))
        hair = torch.where(arm < 0.16, hair, -1.0)
        return trousers, shirt, shoes, hair

    def _coordinates(self, draw: Draw, count: int) -> tuple[Tensor, Tensor]:
        """Texels at the vertices, each N x V: an oblique projection, so that no part of the surface is seen edge-on."""
        density = draw.log_uniform(count, 1, low=70, high=300)  # texels a metre
        slant = draw.uniform(count, 2, low=-0.7, high=0.7)
        x, y, z = self.rest.unbind(-1)
        # From the outside of the range on, so that texels are positive.
        u = (x + slant[:, :1] * z + 4) * density
        v = (y + slant[:, 1:] * z + 4) * density
        return u, v

    def _light(self, draw: Draw, rotations: Tensor) -> Tensor:
        """Red, green and blue of the light that vertices give back, N x V x 3.

        Lambert's law for one distant lamp, a sky that is brighter above, folds that stir the normals, and a highlight.
        """
        count = len(rotations)
        normals = self.normals + self._folds(draw, count)
        blended = (self.weights @ rotations.flatten(2)).unflatten(-1, (3, 3))
        normals = normalize((blended * normals.unsqueeze(-2)).sum(-1), dim=-1)
        # Lamps stand above and on the camera's side more often than not.
        lamp = normalize(draw.directions(count) + draw.constant((0.0, -0.7, -0.5)), dim=-1)
        diffuse = (normals @ lamp[:, :, None]).clamp(min=0)
        sky = 0.5 - 0.5 * normals[..., 1:2]
        strength = draw.uniform(count, 1, 1, low=0.2, high=1)
        ambient = draw.uniform(count, 1, 1, low=0.4, high=0.85)
        ground = draw.uniform(count, 1, 1, low=0.3, high=1)
        warmth = 1 + 0.12 * draw.uniform(count, 2, 1, low=-1, high=1) * draw.constant((1.0, 0.0, -1.0))
        halfway = normalize(lamp + draw.constant((0.0, 0.0, -1.0)), dim=-1)
        gloss = (normals @ halfway[:, :, None]).clamp(min=0).square().square().square().square()
        shine = draw.uniform(count, 1, 1).square() * 0.5 * strength
        light = strength * diffuse * warmth[:, :1] + ambient * (ground + (1 - ground) * sky) * warmth[:, 1:] + shine * gloss
        dark, lips = self.features[:, :1], self.features[:, 1:]
        lip_color = draw.constant((0.9, 0.55, 0.55))
        return light * (1 - 0.75 * dark) * (1 + lips * (lip_color - 1))

    def _folds(self, draw: Draw, count: int) -> Tensor:
        """Changes of the rest normals, N x V x 3: three wave fields of any direction, shallow on most, none on heads."""
        waves = draw.directions(count, 3) * draw.uniform(count, 3, 1, low=15, high=70)
        phase = self.rest @ waves.transpose(1, 2) + 6 * draw.uniform(count, 1, 3)
        depth = draw.uniform(count, 1, 1).square() * 0.45
        below = (self.rest[:, 1:2] < self.neck).float()
        return (phase.sin() * depth * below) @ normalize(waves, dim=-1)

    def _patterns(self, draw: Draw, count: int) -> Tensor:
        """The five patterns, N x 5 x SIZE x SIZE x 3."""
        between = draw.uniform(count, 1) * (len(self.skin_tones) - 1.001)
        low = between.long()
        tone = torch.lerp(self.skin_tones[low.squeeze(1)], self.skin_tones[low.squeeze(1) + 1], between - low)
        skin = (tone * draw.normal(count, 3, mean=1, deviation=0.04)).clamp(0, 1)
        hair = self.hair_tones[draw.integers(count, high=len(self.hair_tones))] * draw.uniform(count, 1, low=0.6, high=1.3)
        # Hats and dyed hair.
        hair = torch.where(draw.chance(count, 1, probability=0.12), colors(draw, count), hair.clamp(0, 1))
        trousers, shirt, shoes = colors(draw, count), colors(draw, count), colors(draw, count)
        # Trousers and shoes are mostly darker, some trousers are jeans.
        trousers = trousers * draw.uniform(count, 1, low=0.3, high=1)
        jeans = draw.constant((0.22, 0.3, 0.45)) * draw.uniform(count, 1, low=0.4, high=1.5)
        trousers = torch.where(draw.chance(count, 1, probability=0.25), jeans, trousers)
        # Suits, overalls and sportswear: both alike.
        shirt = torch.where(draw.chance(count, 1, probability=0.1), trousers, shirt)
        shoes = torch.where(draw.chance(count, 1, probability=0.5), shoes * 0.3, shoes)
        first = torch.stack([skin, trousers, shirt, shoes, hair])
        other = torch.stack([skin * 0.93, colors(draw, count), colors(draw, count), colors(draw, count), hair * 0.7])
        plain = (1.0, 0.8, 0.5, 0.85, 0.6)
        return torch.stack([patterns(draw, a, b, p) for a, b, p in zip(first, other, plain, strict=True)], dim=1)


def _vertex_normals(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """Area-weighted unit normals, V x 3."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normals)
    lengths: NDArray[np.float64] = np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    return normals / lengths
