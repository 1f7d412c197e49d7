"""Draws one `shapes` example: a textured scene with 1-3 objects whose class is their shape.

An object's shape decides its class. Its hue is close to its class's hue, as with real things, and
rarely nearer to that of another class. Texture, light, size, rotation and occlusion are random. An
example is a pure function of (seed, split, index, image_size), and needs NumPy only. The constants
below set the difficulty; lengths are in pixels of a 64x64 image and grow with `image_size`.
"""

from __future__ import annotations

import colorsys

import numpy as np

from data.label_values import VOID
from data.shapes import outlines, textures
from data.shapes.textures import Field

CLASS_NAMES = ("background", "disk", "square", "triangle", "star", "ring", "cross")
REFERENCE_SIZE = 64

# Objects.
MIN_OBJECTS, MAX_OBJECTS = 1, 3
MIN_DIAMETER, MAX_DIAMETER = 22.0, 46.0  # log-uniform, of the circumscribed circle
MAX_STRETCH = 1.15  # the longer axis over the shorter
MAX_ROTATION = 25.0  # degrees either way
MIN_INSIDE = 0.8  # share of an object's area within the image
MIN_VISIBLE = 0.7  # share of an object's pixels that later objects must leave uncovered
PLACEMENT_TRIES = 12
HUE_DEVIATION = 14.0  # degrees around the class's hue; the classes' hues are 60 degrees apart
MIN_SATURATION, MIN_BRIGHTNESS = 0.5, 0.45  # of an object's colour; at most 1
MIN_CONTRAST = 80.0  # Euclidean RGB distance between an object's and the background's mean colour
OBJECT_TEXTURE = 0.25  # how far an object's second colour is from its first, 0..1
SHADING = 0.2  # depth of the light on an object

# Scene.
BACKGROUND_TEXTURE = 0.25
BACKGROUND_SATURATION = 0.35  # 0: grey; 1: any colour an object may have
MAX_BLOBS = 2  # soft clutter
MAX_LINES = 2  # thin clutter
LIGHT_GRADIENT = 0.3
MAX_BLUR = 0.8  # standard deviation, pixels of the image
MIN_NOISE, MAX_NOISE = 1.0, 6.0  # standard deviation, 0..255


def draw(seed: int, split: str, index: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one example.

    Args:
      seed: of the whole data set.
      split: "train" or "val"; the two share no random numbers.
      index: of the example in its split.
      image_size: side of the square image, at least 16.

    Returns:
      image uint8 [H, W, 3] and label uint8 [H, W]: 0 background, 1..6 as in `CLASS_NAMES`, 255 on
      the pixel next to an object's outline.
    """
    rng = np.random.default_rng([seed, {"train": 0, "val": 1}[split], index])
    image = _background(rng, image_size)
    label = np.zeros((image_size, image_size), np.uint8)
    for class_id, distance in _place_objects(rng, image_size):
        image = _paint_object(rng, image, class_id, distance)
        mask = distance <= 0
        label[_next_to(mask)] = VOID
        label[mask] = class_id
    return _photograph(rng, image), label


def _background(rng: np.random.Generator, size: int) -> Field:
    """Two textures joined along a soft border, with clutter and a light gradient: [H, W, 3]."""
    first = textures.textured(rng, size, _muted(rng), BACKGROUND_TEXTURE)
    second = textures.textured(rng, size, _muted(rng), BACKGROUND_TEXTURE)
    border = textures.smooth_noise(rng, size, 3) + textures.ramp(rng, size)
    sharpness = rng.uniform(4, 40)
    image = textures.mix(first, second, textures.sigmoid(sharpness * (border - border.mean())))
    for _ in range(rng.integers(MAX_BLOBS + 1)):
        image = textures.mix(image, _muted(rng), _blob(rng, size))
    for _ in range(rng.integers(MAX_LINES + 1)):
        image = textures.mix(image, _muted(rng), _line(rng, size))
    light = 1 + LIGHT_GRADIENT * rng.uniform(-1, 1) * (textures.ramp(rng, size) - 0.5)
    return image * light[..., None]


def _muted(rng: np.random.Generator) -> np.ndarray:
    """A colour [3] of the background: greyer than objects, so that they stand out."""
    colour = rng.uniform(30, 225, 3)
    return colour.mean() + BACKGROUND_SATURATION * (colour - colour.mean())


def _blob(rng: np.random.Generator, size: int) -> Field:
    """Opacity [H, W] of a soft, irregular spot: clutter without an outline."""
    centre, radius = rng.uniform(0, size, 2), rng.uniform(0.05, 0.16) * size
    y, x = outlines.pixel_centres(size)
    distance = np.hypot(y - centre[0], x - centre[1]) / radius
    wobble = 0.7 * (textures.smooth_noise(rng, size, 8) - 0.5)
    return rng.uniform(0.3, 0.8) * textures.sigmoid(4 * (1 + wobble - distance))


def _line(rng: np.random.Generator, size: int) -> Field:
    """Opacity [H, W] of a thin, slightly bent line across the image."""
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4) * size
    y, x = (plane - size / 2 for plane in outlines.pixel_centres(size))
    across = x * np.cos(angle) + y * np.sin(angle) - offset
    bend = rng.uniform(-0.15, 0.15) * size
    along = (-x * np.sin(angle) + y * np.cos(angle)) / size
    half_width = rng.uniform(0.4, 1.2) * size / REFERENCE_SIZE
    distance = np.abs(across + bend * along**2) - half_width
    return rng.uniform(0.5, 1.0) * np.clip(0.5 - distance, 0, 1)


def _place_objects(rng: np.random.Generator, size: int) -> list[tuple[int, Field]]:
    """Chooses objects, back to front, so that each stays recognisable.

    Returns:
      (class id, signed distance [H, W] in pixels, negative inside) of each object.
    """
    placed: list[tuple[int, Field]] = []
    visible: list[np.ndarray] = []
    for _ in range(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1)):
        class_id = int(rng.integers(1, len(CLASS_NAMES)))
        for _ in range(PLACEMENT_TRIES):
            distance, area = _random_object(rng, class_id, size)
            mask = distance <= 0
            left = [(v & ~mask).sum() for v in visible]
            whole = [(d <= 0).sum() for _, d in placed]
            inside = mask.sum() >= MIN_INSIDE * area
            if inside and all(a >= MIN_VISIBLE * b for a, b in zip(left, whole)):
                visible = [v & ~mask for v in visible] + [mask]
                placed.append((class_id, distance))
                break
    return placed


def _random_object(rng: np.random.Generator, class_id: int, size: int) -> tuple[Field, float]:
    """An outline in a random pose: its signed distance [H, W], and the area inside all of it."""
    unit = size / REFERENCE_SIZE
    radius = 0.5 * unit * np.exp(rng.uniform(np.log(MIN_DIAMETER), np.log(MAX_DIAMETER)))
    pose = outlines.Pose(
        centre=rng.uniform(0.1 * size, 0.9 * size, 2),
        radius=radius,
        angle=np.radians(rng.uniform(-MAX_ROTATION, MAX_ROTATION)),
        stretch=np.exp(rng.uniform(-1, 1) * np.log(MAX_STRETCH) / 2),
    )
    name = CLASS_NAMES[class_id]
    return outlines.signed_distance(name, pose, size), outlines.AREA[name] * radius**2


def _object_colour(rng: np.random.Generator, class_id: int) -> np.ndarray:
    """A colour float [3], 0..255, whose hue leans towards the class's."""
    class_hue = 360.0 * (class_id - 1) / (len(CLASS_NAMES) - 1)
    hue = (class_hue + HUE_DEVIATION * rng.normal()) / 360.0 % 1.0
    saturation, brightness = rng.uniform(MIN_SATURATION, 1), rng.uniform(MIN_BRIGHTNESS, 1)
    return 255.0 * np.array(colorsys.hsv_to_rgb(hue, saturation, brightness))


def _paint_object(rng: np.random.Generator, image: Field, class_id: int, distance: Field) -> Field:
    """Paints one object, its light and its shadow over the image [H, W, 3]."""
    size = len(image)
    below = image[distance <= 0].mean(axis=0)
    for _ in range(PLACEMENT_TRIES):
        colour = _object_colour(rng, class_id)
        if np.linalg.norm(colour - below) >= MIN_CONTRAST:
            break
    fill = textures.textured(rng, size, colour, OBJECT_TEXTURE)
    shade = 1 + SHADING * rng.uniform(-1, 1) * 2 * (textures.ramp(rng, size) - 0.5)
    reach = rng.uniform(1, 4) * size / REFERENCE_SIZE
    shadow = rng.uniform(0, 0.45) * textures.sigmoid(-2 * distance / reach)
    image = image * (1 - shadow[..., None])
    coverage = np.clip(0.5 - distance, 0, 1)  # anti-aliasing: the share of the pixel inside
    return textures.mix(image, fill * shade[..., None], coverage)


def _next_to(mask: np.ndarray) -> np.ndarray:
    """Pixels outside `mask` [H, W] with one of their 8 neighbours inside."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return (rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]) & ~mask


def _photograph(rng: np.random.Generator, image: Field) -> np.ndarray:
    """Blur, exposure and sensor noise: float [H, W, 3] -> uint8."""
    image = textures.blur(image, rng.uniform(0, MAX_BLUR))
    image = image * rng.uniform(0.8, 1.2)
    image = image + rng.normal(0, rng.uniform(MIN_NOISE, MAX_NOISE), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
