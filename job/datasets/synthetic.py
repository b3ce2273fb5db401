"""Synthetic aerial photographs of four species, drawn: a dataset for trying things out.

Guarantees that one seed gives the same files byte for byte with one version of NumPy and Pillow, that every animal is
labelled with the box of its visible part, and that all species are in both splits.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

NUM_IMAGES = {"train": 160, "val": 48}

SIZE = 256
"""Width and height of a picture, px."""

FINE = 2
"""Animals and bushes are drawn this many times larger and then reduced, for smooth edges."""

EVERY_NTH_IS_EMPTY = 10
"""One picture in so many shows no animal."""

MALES, AT_A_BUSH, STONES = 0.65, 0.22, 0.25
"""Shares of ostriches, of animals at a bush, and of random plants and stones."""

SEEN_SHARE = 0.45
"""Smallest visible share of an animal behind a bush."""

Points = NDArray[np.float64]
"""Corners of a polygon, ``(n, 2)``; of an animal: x ahead, y to its right, in lengths of its body."""

Colour = tuple[int, int, int]

Part = tuple[Points, Colour]

Pixels = NDArray[np.floating[Any]]
"""Values from 0 to 255."""

Rng = np.random.Generator


def draw_demo_dataset(folder: Path, seed: int = 0, num_images: Mapping[str, int] | None = None) -> None:
    """Draw the dataset in YOLO format: ``images``, ``labels`` and ``data.yaml``; another seed, other pictures.

    `num_images` has the number of pictures by split; `NUM_IMAGES` if left out.
    """
    for split_number, (split, num_drawn) in enumerate((num_images or NUM_IMAGES).items()):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(num_drawn):
            rng = np.random.default_rng([seed, split_number, number])
            picture, rows = _draw_picture(rng, is_empty=number % EVERY_NTH_IS_EMPTY == EVERY_NTH_IS_EMPTY - 1)
            picture.save(folder / "images" / split / f"{split}_{number:03}.jpg", quality=90)
            labels = folder / "labels" / split / f"{split}_{number:03}.txt"
            labels.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    data = {"train": "images/train", "val": "images/val", "names": {n: kind.name for n, kind in enumerate(SPECIES)}}
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


# Animals from above -------------------------------------------------------------------------------------------------

CIRCLE: Points = np.array([(math.cos(angle), math.sin(angle)) for angle in np.linspace(0, 2 * math.pi, 25)[:-1]])


def _oval(x: float, y: float, half_length: float, half_width: float, turn: float = 0.0) -> Points:
    return _placed(CIRCLE * (half_length, half_width), x, y, turn)


def _limb(start: tuple[float, float], end: tuple[float, float], bend: float, width: float, tip: float) -> Points:
    """Return a tapering curve, such as a neck, a trunk or a horn; a bend is to its right."""
    along = np.linspace(0, 1, 9)[:, None]
    (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
    middle = np.array([[x, y]]) + along * (dx, dy) + 4 * bend * along * (1 - along) * (-dy, dx)
    ahead = np.gradient(middle, axis=0)
    side = ahead[:, ::-1] * (-1, 1) / np.linalg.norm(ahead, axis=1, keepdims=True)
    half = (width + (tip - width) * along) / 2
    return np.concatenate([middle + side * half, (middle - side * half)[::-1]])


def _placed(points: Points, x: float, y: float, turn: float) -> Points:
    cos, sin = math.cos(turn), math.sin(turn)
    ahead, right = points.T
    return np.stack([x + cos * ahead - sin * right, y + sin * ahead + cos * right], axis=1)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue


def _legs(
    rng: Rng, at: Iterable[tuple[float, float]], sway: float, size: tuple[float, float], skin: Colour
) -> list[Part]:
    return [(_oval(x + rng.uniform(-sway, sway), y, *size), skin) for x, y in at]


def _elephant(rng: Rng) -> list[Part]:
    grey, dust = rng.uniform(92, 132), rng.uniform(0, 26)
    skin: Colour = (round(grey + dust), round(grey + dust * 0.6), round(grey))
    look, spread = rng.uniform(-0.12, 0.12), rng.uniform(0.8, 1.15)
    return [
        *_legs(rng, product((-0.24, 0.24), (-0.21, 0.21)), 0.05, (0.09, 0.07), _shade(skin, 0.72)),
        (_limb((-0.4, 0), (-0.56, rng.uniform(-0.08, 0.08)), 0.1, 0.04, 0.02), _shade(skin, 0.7)),
        (_limb((0.55, look), (0.86, look + rng.uniform(-0.16, 0.16)), rng.uniform(-0.3, 0.3), 0.12, 0.05), skin),
        *((_limb((0.54, look + y), (0.72, look + y * 1.5), 0, 0.035, 0.02), (238, 232, 214)) for y in (-0.08, 0.08)),
        (_oval(0, 0, 0.43, 0.25), skin),
        (_oval(-0.02, 0, 0.34, 0.1), _shade(skin, 1.1)),
        *(
            (_oval(0.36, look + y * spread, size, size * 1.6, -y * 1.9), _shade(skin, light))
            for size, light in ((0.125, 0.68), (0.1, 0.86))
            for y in (-0.25, 0.25)
        ),
        (_oval(0.47, look, 0.15, 0.115), _shade(skin, 1.12)),
    ]


def _zebra(rng: Rng) -> list[Part]:
    white, black, look = _shade((236, 230, 218), rng.uniform(0.88, 1.05)), (34, 30, 30), rng.uniform(-0.16, 0.16)
    parts = [
        *_legs(rng, product((-0.25, 0.22), (-0.15, 0.15)), 0.06, (0.07, 0.035), _shade(white, 0.7)),
        (_limb((-0.38, 0), (-0.6, rng.uniform(-0.12, 0.12)), 0.1, 0.05, 0.02), black),
        (_oval(0, 0, 0.41, 0.18), white),
        (_limb((0.28, 0), (0.58, look), 0, 0.2, 0.13), white),
        (_oval(0.62, look * 1.1, 0.14, 0.07, look), white),
        (_oval(0.72, look * 1.2, 0.05, 0.05), black),
    ]
    lean = rng.uniform(-0.03, 0.03)
    for x in np.arange(-0.33, 0.36, 0.115):
        half = 0.175 * math.sqrt(max(0.0, 1 - (x / 0.42) ** 2))
        parts.append((_limb((x + lean, -half), (x - lean, half), 0.08, 0.05, 0.05), black))
    return [*parts, (_limb((0.3, 0), (0.6, look), 0, 0.045, 0.035), black)]


def _antelope(rng: Rng) -> list[Part]:
    coat, look, horns = _shade((168, 116, 70), rng.uniform(0.8, 1.2)), rng.uniform(-0.2, 0.2), (48, 36, 28)
    parts = [
        *_legs(rng, product((-0.24, 0.24), (-0.13, 0.13)), 0.08, (0.07, 0.03), _shade(coat, 0.7)),
        (_oval(0, 0, 0.39, 0.155), coat),
        (_oval(-0.3, 0, 0.1, 0.11), (240, 226, 200)),
        (_limb((-0.26, 0), (0.3, 0), 0, 0.07, 0.05), _shade(coat, 0.58)),
        (_limb((0.28, 0), (0.55, look), 0, 0.14, 0.1), coat),
        (_oval(0.6, look * 1.1, 0.12, 0.065, look), _shade(coat, 1.12)),
        *((_oval(0.53, look + y, 0.03, 0.06, -3 * y), _shade(coat, 0.8)) for y in (-0.1, 0.1)),
    ]
    tip = 0.58 - rng.uniform(0.16, 0.3)
    ends = [((0.58, look + y), (tip, look + 5 * y), -6 * y) for y in (-0.03, 0.03)]
    return parts + [(_limb(start, end, bend, 0.035, 0.02), horns) for start, end, bend in ends]


def _ostrich(rng: Rng) -> list[Part]:
    is_male = rng.random() < MALES
    feathers: Colour = (36, 33, 36) if is_male else (112, 98, 86)
    wings: Colour = (240, 236, 228) if is_male else (168, 152, 134)
    skin: Colour = (222, 166, 146)
    look, spread = rng.uniform(-0.22, 0.22), rng.uniform(0.2, 0.3)
    return [
        *((_limb((-0.05, y), (-0.3 + rng.uniform(-0.2, 0.3), y * 1.6), 0, 0.05, 0.04), skin) for y in (-0.13, 0.13)),
        *((_oval(-0.34, y, 0.13, 0.07, 6 * y), wings) for y in (-0.06, 0, 0.06)),
        *((_oval(-0.1, y, 0.17, 0.07, -y), wings) for y in (-spread, spread)),
        (_oval(-0.05, 0, 0.31, 0.24), feathers),
        (_oval(-0.08, 0, 0.2, 0.12), _shade(feathers, 1.35)),
        (_limb((0.18, 0), (0.6, look), rng.uniform(-0.25, 0.25), 0.1, 0.06), skin),
        (_oval(0.63, look, 0.07, 0.05), _shade(skin, 0.9)),
    ]


@dataclass(frozen=True, slots=True)
class _Species:
    name: str
    parts: Callable[[Rng], list[Part]]
    length: tuple[float, float]
    """Shortest and longest body, px."""

    height: float
    """Length of its shadow, in lengths of its body."""

    herd: int
    """Largest herd."""


SPECIES = (
    _Species("elephant", _elephant, (38, 66), 0.26, 4),
    _Species("zebra", _zebra, (30, 42), 0.22, 5),
    _Species("antelope", _antelope, (24, 36), 0.24, 6),
    _Species("ostrich", _ostrich, (24, 34), 0.3, 4),
)


# A picture ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Animal:
    species: int
    x: float
    y: float
    length: float
    heading: float


def _draw_picture(rng: Rng, *, is_empty: bool) -> tuple[Image.Image, list[str]]:
    """Return a picture and its label rows."""
    sun = rng.uniform(0, 2 * math.pi)
    ground = _draw_ground(rng)
    animals = [] if is_empty else _herds(rng)
    body, ids = _Layer(), Image.new("L", (SIZE, SIZE))
    body_ids = ImageDraw.Draw(ids)
    for number, animal in enumerate(animals, start=1):
        for points, colour in SPECIES[animal.species].parts(rng):
            placed = _placed(points * animal.length, animal.x, animal.y, animal.heading)
            body.polygon(placed, colour)
            body_ids.polygon(placed.ravel().tolist(), fill=number)
    height = float(np.mean([SPECIES[a.species].height * a.length for a in animals])) if animals else 0.0
    picture = body.onto(ground, sun, height, relief=2.2, rng=rng)
    bushes = _Layer()
    ids = _grow_bushes(rng, bushes, animals, ids)
    picture = bushes.onto(picture, sun, 7.0, relief=3.0, rng=rng)
    light = np.array([1.03, 1.0, 0.95]) * rng.uniform(0.88, 1.12)
    picture = picture * light + rng.normal(0, 3.0, picture.shape)
    drawn = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return drawn, _label_rows(animals, np.asarray(ids))


class _Layer:
    """Things above the ground, with a shadow and light from one side."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIZE * FINE, SIZE * FINE))
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, colour: Colour) -> None:
        self.draw.polygon((points * FINE).ravel().tolist(), fill=colour)

    def onto(self, ground: Pixels, sun: float, height: float, relief: float, rng: Rng) -> Pixels:
        """Return the ground with the layer's shadow and the layer itself on it; the height is the shadow's, px."""
        small = self.image.reduce(FINE)
        alpha = small.getchannel("A")
        shadow = alpha
        for step in np.linspace(0, height, max(2, round(height / 2))):
            right, down = round(math.cos(sun) * step), round(math.sin(sun) * step)
            shadow = ImageChops.lighter(shadow, alpha.crop((-right, -down, SIZE - right, SIZE - down)))
        soft = np.asarray(shadow.filter(ImageFilter.GaussianBlur(1.2)), np.float32) / 255
        shaded = ground * (1 - 0.55 * soft)[..., None]
        swell = np.asarray(alpha.filter(ImageFilter.GaussianBlur(2.5)), np.float32) / 255
        by_y, by_x = np.gradient(swell)
        slope = np.asarray(by_x * math.cos(sun) + by_y * math.sin(sun))
        lit = np.asarray(small.convert("RGB"), np.float32) * (1 + relief * slope)[..., None]
        lit += rng.normal(0, 5.0, (SIZE, SIZE, 1))
        cover = np.asarray(alpha, np.float32)[..., None] / 255
        return np.asarray(shaded * (1 - cover) + lit * cover)


def _noise(rng: Rng, cells: int) -> Pixels:
    """Return smooth noise with so many cells across, values about -1 to 1, ``(SIZE, SIZE)``."""
    grid = Image.fromarray(rng.normal(0, 0.5, (cells + 2, cells + 2)).astype(np.float32))
    return np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)


LEAVES: Colour = (82, 98, 46)
STONE: Colour = (126, 114, 102)

GROUNDS: tuple[tuple[Colour, Colour], ...] = (
    ((186, 160, 112), (150, 140, 84)),  # dry grass
    ((176, 118, 78), (196, 154, 106)),  # red soil
    ((128, 138, 76), (164, 150, 96)),  # green season
    ((204, 186, 150), (178, 160, 122)),  # sand
)


def _draw_ground(rng: Rng) -> Pixels:
    first, second = (np.array(colour, np.float32) for colour in GROUNDS[rng.integers(len(GROUNDS))])
    mix = np.clip(0.5 + 0.9 * _noise(rng, 4) + 0.5 * _noise(rng, 12), 0, 1)[..., None]
    rough = 10 * _noise(rng, 24) + 13 * _noise(rng, 64) + 9 * _noise(rng, 128)
    ground = first * mix + second * (1 - mix) + rough[..., None]
    ground = ground * (1 - 0.22 * _tracks(rng))[..., None]
    tufts = np.clip(_noise(rng, 80) - 0.75, 0, 1)[..., None]
    return np.asarray(ground * (1 - tufts) + np.array(LEAVES) * tufts)


def _tracks(rng: Rng) -> Pixels:
    """Return the depth of game trails and two ruts of a car, 0 to 1."""
    worn = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(worn)
    for _ in range(rng.integers(0, 3)):
        angle, bend = rng.uniform(0, 2 * math.pi), rng.uniform(-0.25, 0.25)
        centre, ahead = rng.uniform(40, SIZE - 40, 2), SIZE * np.array([math.cos(angle), math.sin(angle)])
        gap = rng.choice([0.0, 7.0])
        for side in (-gap / 2, gap / 2):
            offset = side * np.array([-math.sin(angle), math.cos(angle)])
            start, end = centre - ahead + offset, centre + ahead + offset
            width = 2.5 if gap else rng.uniform(2, 4)
            points = _limb((start[0], start[1]), (end[0], end[1]), bend, width, width)
            draw.polygon(points.ravel().tolist(), fill=255)
    return np.asarray(worn.filter(ImageFilter.GaussianBlur(1)), np.float32) / 255


def _herds(rng: Rng) -> list[_Animal]:
    animals: list[_Animal] = []
    for _ in range(rng.integers(2, 4)):
        species = int(rng.integers(len(SPECIES)))
        kind = SPECIES[species]
        x, y = rng.uniform(0.12 * SIZE, 0.88 * SIZE, 2)
        heading = rng.uniform(0, 2 * math.pi)
        for _ in range(rng.integers(1, kind.herd + 1)):
            length = rng.uniform(*kind.length)
            for _ in range(12):
                spread = kind.length[1] * 1.3
                at_x, at_y = np.clip(rng.normal((x, y), spread), 0.05 * SIZE, 0.95 * SIZE)
                if all(math.hypot(at_x - a.x, at_y - a.y) > 0.55 * (length + a.length) for a in animals):
                    turn = heading + rng.normal(0, 0.6)
                    animals.append(_Animal(species, float(at_x), float(at_y), length, turn))
                    break
    return animals


def _grow_bushes(rng: Rng, layer: _Layer, animals: list[_Animal], ids: Image.Image) -> Image.Image:
    """Draw bushes, some of them over animals, and stones; return the visible animal at each pixel."""
    whole = seen = np.bincount(np.asarray(ids).ravel(), minlength=len(animals) + 1)[1:]
    spots = [
        (*rng.uniform(0, SIZE, 2), rng.uniform(5, 17), STONE if rng.random() < STONES else LEAVES)
        for _ in range(rng.integers(2, 9))
    ]
    for animal in animals:
        if rng.random() < AT_A_BUSH:
            angle, away = rng.uniform(0, 2 * math.pi), animal.length * rng.uniform(0.3, 0.6)
            x, y = animal.x + away * math.cos(angle), animal.y + away * math.sin(angle)
            spots.append((x, y, animal.length * rng.uniform(0.25, 0.4), LEAVES))
    for x, y, radius, colour in spots:
        tone = _shade(colour, rng.uniform(0.7, 1.25))
        shift, size, light = rng.normal(0, 0.42, (26, 2)), rng.uniform(0.2, 0.5, 26), rng.uniform(0.75, 1.3, 26)
        leaves = [(radius * (CIRCLE * size[n] + shift[n]) + (x, y), _shade(tone, light[n])) for n in range(26)]
        grown = ids.copy()
        draw = ImageDraw.Draw(grown)
        for points, _ in leaves:
            draw.polygon(points.ravel().tolist(), fill=0)
        left = np.bincount(np.asarray(grown).ravel(), minlength=len(animals) + 1)[1:]
        if np.all(left >= (seen if colour == STONE else SEEN_SHARE * whole)):
            ids, seen = grown, left
            for points, shade in leaves:
                layer.polygon(points, shade)
    return ids


def _label_rows(animals: list[_Animal], ids: NDArray[np.uint8]) -> list[str]:
    rows = []
    for number, animal in enumerate(animals, start=1):
        down, right = np.nonzero(ids == number)
        left, top = right.min() / SIZE, down.min() / SIZE
        width, height = (right.max() + 1) / SIZE - left, (down.max() + 1) / SIZE - top
        rows.append(f"{animal.species} {left + width / 2:.6f} {top + height / 2:.6f} {width:.6f} {height:.6f}")
    return rows
