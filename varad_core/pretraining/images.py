"""Procedural images to distil on: textures, shapes and marks under a lamp, seen by a camera. No photograph.

Scenes are dead leaves (shapes that cover one another, sizes by a power law) with textures of many kinds, or a
single part on a ground. That such images teach features that hold on photographs: Baradad et al., "Learning
to See by Looking at Noise", NeurIPS 2021.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]  # (S, S)
Picture = NDArray[np.float32]  # (S, S, 3), about 0 to 1
Rng = np.random.Generator


def render_image(seed: int, index: int, side_px: int) -> NDArray[np.uint8]:
    """Image `index` of a seed's endless sequence: uint8 (side_px, side_px, 3), RGB."""
    rng = np.random.default_rng([seed, index])
    picture = _textured(rng, side_px)
    scene = rng.random()
    if scene < 0.45:
        _dead_leaves(rng, picture)
    elif scene < 0.8:
        _part(rng, picture)
    for _ in range(rng.poisson(1.5)):
        _mark(rng, picture)
    _light(rng, picture)
    return _camera(rng, picture)


# ---- textures: a scalar field each, brought to 0 to 1


def _grid(side: int) -> tuple[Field, Field]:
    line = np.arange(side, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _rotated(rng: Rng, side: int) -> tuple[Field, Field]:
    """Pixel coordinates in a frame turned by any angle."""
    x, y = _grid(side)
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def _spectral(rng: Rng, side: int) -> Field:
    """Noise of power 1 / f^b, b from near white to clouds; at times stretched in one direction."""
    fx = np.fft.rfftfreq(side).astype(np.float32)[None, :]
    fy = np.fft.fftfreq(side).astype(np.float32)[:, None]
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 2.5) * (rng.random() < 0.4))
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    radius = np.sqrt((along * stretch) ** 2 + (across / stretch) ** 2) + 0.5 / side
    noise = np.fft.rfft2(rng.standard_normal((side, side), np.float32))
    amplitude = radius ** -rng.uniform(0.3, 2.2)
    if rng.random() < 0.3:  # one octave only: grain, orange peel, labyrinths
        amplitude = np.exp(-np.square(np.log(radius / np.exp(rng.uniform(-4.2, -1.2))) / 0.35))
    return np.fft.irfft2(noise * amplitude, (side, side)).astype(np.float32)


def _warped(rng: Rng, side: int) -> Field:
    """Marble and wood: waves bent by a slow noise."""
    along, _ = _rotated(rng, side)
    bend = cv2.GaussianBlur(_spectral(rng, side), (0, 0), 4)
    bend /= float(bend.std()) + 1e-6
    return np.sin(2 * np.pi * along / rng.uniform(8, 60) + rng.uniform(0.5, 4) * bend)


def _grating(rng: Rng, side: int) -> Field:
    """One or two gratings, soft or square."""
    along, across = _rotated(rng, side)
    wave = np.sin(2 * np.pi * along / np.exp(rng.uniform(1.1, 3.7)))
    if rng.random() < 0.6:
        other = np.sin(2 * np.pi * across / np.exp(rng.uniform(1.1, 3.7)))
        wave = wave * other if rng.random() < 0.5 else np.maximum(wave, other)
    return np.tanh(np.exp(rng.uniform(-0.5, 2.5)) * wave)


def _weave(rng: Rng, side: int) -> Field:
    """Woven threads: warp and weft take turns on top, each rounded across; plain, twill or satin."""
    along, across = _rotated(rng, side)
    pitch, float_over = np.exp(rng.uniform(1.3, 3.0)), int(rng.integers(2, 6))
    jitter = rng.uniform(0, 0.15) * _unit(_spectral(rng, side))
    u, v = along / pitch + jitter, across / (pitch * rng.uniform(0.7, 1.4)) + jitter
    over = (np.floor(u) + int(rng.integers(1, 3)) * np.floor(v)) % float_over < float_over // 2
    warp, weft = np.abs(np.sin(np.pi * u)), np.abs(np.sin(np.pi * v))
    return np.where(over, warp, weft * rng.uniform(0.5, 1)).astype(np.float32)


def _knit(rng: Rng, side: int) -> Field:
    """Columns of V-shaped stitches."""
    along, across = _rotated(rng, side)
    pitch = np.exp(rng.uniform(1.6, 3.2))
    column = np.abs((along / pitch) % 1 - 0.5)
    return np.sin(2 * np.pi * (across / pitch + rng.uniform(0.6, 2) * column)) * np.sqrt(column + 0.05)


def _brushed(rng: Rng, side: int) -> Field:
    """Fine lines in one direction, straight or in circles."""
    noise = rng.standard_normal((side, side), np.float32)
    length = int(rng.integers(15, 90))
    lines = cv2.blur(noise, (length, int(rng.integers(1, 3))))
    if rng.random() < 0.3:
        centre = tuple(rng.uniform(0.2, 0.8, 2) * side)
        return cv2.warpPolar(
            lines, (side, side), centre, side * 0.9, cv2.WARP_INVERSE_MAP | cv2.WARP_FILL_OUTLIERS
        ).astype(np.float32)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 180), 1.0)
    return cv2.warpAffine(lines, turn, (side, side), borderMode=cv2.BORDER_REFLECT).astype(np.float32)


def _speckle(rng: Rng, side: int) -> Field:
    """Grains: blurred noise cut at a level."""
    noise = cv2.GaussianBlur(
        rng.standard_normal((side, side), np.float32), (0, 0), np.exp(rng.uniform(-0.3, 2))
    )
    noise /= float(noise.std())
    return np.tanh(rng.uniform(1, 8) * (noise - rng.uniform(-1, 2)))


def _cells(rng: Rng, side: int) -> Field:
    """Voronoi cells: each of its own height, or walls between them, or domes (leather, foam, granite)."""
    seeds = np.full((side, side), 255, np.uint8)
    count = int(np.exp(rng.uniform(2.5, 6.8)))
    seeds[tuple(rng.integers(0, side, (2, count)))] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    if rng.random() < 0.5:
        return rng.random(count + 2, np.float32)[labels]
    return np.asarray(distance if rng.random() < 0.5 else np.sqrt(distance), np.float32)


def _tiles(rng: Rng, side: int) -> Field:
    """Bricks and tiles with joints."""
    along, across = _rotated(rng, side)
    size = np.exp(rng.uniform(2.2, 4.2))
    row = np.floor(across / size)
    u, v = along / (size * rng.uniform(1, 2.2)) + rng.choice([0, 0.5]) * (row % 2), across / size
    joint = np.minimum(np.minimum(u % 1, -u % 1), np.minimum(v % 1, -v % 1)) < rng.uniform(0.02, 0.12)
    height = rng.random(4096, np.float32)[(np.floor(u) * 37 + row * 101).astype(np.int64) % 4096]
    return np.where(joint, rng.uniform(-1, 2), height * rng.uniform(0, 1)).astype(np.float32)


def _rings(rng: Rng, side: int) -> Field:
    """A turned face."""
    x, y = _grid(side)
    radius = np.hypot(x - rng.uniform(0, side), y - rng.uniform(0, side))
    return np.sin(2 * np.pi * radius / np.exp(rng.uniform(1.2, 3.5)))


def _plain(rng: Rng, side: int) -> Field:
    """Nearly nothing: a slope."""
    along, _ = _rotated(rng, side)
    return along


TEXTURES: tuple[Callable[[Rng, int], Field], ...] = (
    _spectral, _spectral, _warped, _grating, _weave, _knit, _brushed, _speckle, _cells, _tiles, _rings,
    _plain,
)  # fmt: skip


def _unit(field: Field) -> Field:
    low, high = np.percentile(field[::4, ::4], (1, 99))
    return np.clip((field - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)


def _textured(rng: Rng, side: int) -> Picture:
    """A texture, or two mixed, in two or three colours, some of it in relief."""
    field = _unit(TEXTURES[rng.integers(len(TEXTURES))](rng, side))
    if rng.random() < 0.4:
        share = np.float32(rng.uniform(0.1, 0.6))
        field = (1 - share) * field + share * _unit(TEXTURES[rng.integers(len(TEXTURES))](rng, side))
    colours = _palette(rng)
    middle = np.float32(rng.uniform(0.3, 0.7))
    steps = np.interp(np.arange(256) / 255, np.array([0.0, middle, 1.0]), [0, 1, 2])
    table = np.stack([np.interp(steps, [0, 1, 2], colours[:, c]) for c in range(3)], axis=1)
    picture = table.astype(np.float32)[(field * 255).astype(np.uint8)]
    if rng.random() < 0.3:
        picture *= _relief(rng, field)[..., None]
    return picture


def _palette(rng: Rng) -> NDArray[np.float64]:
    """Three colours near or far from one another; grey ones often. (3, 3)."""
    base = rng.uniform(0.05, 0.95) + rng.uniform(-0.35, 0.35, 3) * (rng.random() < 0.6)
    contrast = np.exp(rng.uniform(-3.2, -0.5))
    light = rng.standard_normal((3, 1)) * contrast
    tint = rng.standard_normal((3, 3)) * contrast * rng.uniform(0, 0.8)
    return np.clip(base + light + tint, 0.0, 1.0)


def _relief(rng: Rng, height: Field) -> Field:
    """Shading of a height field under a lamp from one side."""
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(1, 6)
    dx, dy = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
    slope = depth * (np.cos(angle) * dx + np.sin(angle) * dy)
    return np.clip(1 + 0.3 * slope, 0.2, 2).astype(np.float32)


# ---- shapes: a coverage mask each, 0 to 1


def _shape(rng: Rng, side: int, radius: float, centre: NDArray[np.float64]) -> Field:
    """A disc, ring, polygon, star, gear, blob or bar."""
    kind = rng.integers(6)
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False) + rng.uniform(0, 6.3)
    reach = np.full(96, radius)
    if kind == 1:  # regular polygon
        corners = int(rng.integers(3, 9))
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 6.3)
        reach = np.full(corners, radius)
    elif kind == 2:  # any polygon
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 10))))
        reach = radius * rng.uniform(0.5, 1, len(angle))
    elif kind == 3:  # gear, star
        teeth = int(rng.integers(4, 16))
        reach = radius * (1 - rng.uniform(0.08, 0.5) * (np.sin(teeth * angle) > rng.uniform(-0.5, 0.5)))
    elif kind == 4:  # blob
        for k in (2, 3, 5):
            reach = reach + radius * rng.uniform(0, 0.3) / k * np.sin(k * angle + rng.uniform(0, 6.3))
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
    if kind == 5:  # bar
        points = points.clip(-radius * 0.7, radius * 0.7)
    points[:, 1] *= rng.uniform(0.15, 1) if rng.random() < 0.4 else 1
    turn = rng.uniform(0, 2 * np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + centre
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    for _ in range(rng.poisson(0.5)):  # holes
        hole = centre + rng.uniform(-0.5, 0.5, 2) * radius
        cv2.circle(
            mask, [int(v) for v in hole], max(1, int(radius * rng.uniform(0.05, 0.4))), 0, -1, cv2.LINE_AA
        )
    return np.asarray(mask / np.float32(255), np.float32)


def _lay(rng: Rng, picture: Picture, mask: Field, cover: Picture) -> None:
    """Put `cover` on the picture where the mask is; at times with a shadow or a bevelled edge."""
    style = rng.random()
    left, top, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    near = slice(max(0, top - 16), top + height + 16), slice(max(0, left - 16), left + width + 16)
    picture, mask, cover = picture[near], mask[near], cover[near]
    if style < 0.35:
        shift = np.array([[1, 0, rng.uniform(-8, 8)], [0, 1, rng.uniform(-8, 8)]])
        shadow = cv2.warpAffine(cv2.GaussianBlur(mask, (0, 0), rng.uniform(1, 6)), shift, mask.shape[::-1])
        picture *= 1 - rng.uniform(0.2, 0.7) * shadow[..., None]
    elif style < 0.6:
        cover = cover * _relief(rng, cv2.GaussianBlur(mask, (0, 0), rng.uniform(1, 5)) * 2)[..., None]
    picture += mask[..., None] * (cover - picture)


def _dead_leaves(rng: Rng, picture: Picture) -> None:
    side = len(picture)
    covers = [_textured(rng, side) for _ in range(int(rng.integers(1, 4)))]
    for _ in range(int(np.exp(rng.uniform(0.7, 4.2)))):
        radius = side * float(np.clip(0.03 * rng.pareto(1.2) + 0.02, 0.02, 0.45))
        if rng.random() < 0.4:
            cover: Picture = np.broadcast_to(_palette(rng)[0].astype(np.float32), picture.shape)
        else:
            cover = np.roll(covers[rng.integers(len(covers))], tuple(rng.integers(0, side, 2)), (0, 1))
        _lay(rng, picture, _shape(rng, side, radius, rng.uniform(0, side, 2)), cover)


def _part(rng: Rng, picture: Picture) -> None:
    """One part near the middle, seldom more, with features on it and a calm ground."""
    side = len(picture)
    if rng.random() < 0.6:
        picture[:] = cv2.GaussianBlur(picture, (0, 0), np.exp(rng.uniform(-0.5, 3)))
    for _ in range(1 + int(rng.random() < 0.2)):
        centre, radius = side * rng.uniform(0.35, 0.65, 2), side * rng.uniform(0.2, 0.5)
        _lay(rng, picture, _shape(rng, side, radius, centre), _textured(rng, side))
        for _ in range(rng.poisson(3)):
            place = centre + rng.uniform(-0.7, 0.7, 2) * radius
            cover = np.broadcast_to(_palette(rng)[0].astype(np.float32), picture.shape)
            _lay(rng, picture, _shape(rng, side, radius * rng.uniform(0.03, 0.4), place), cover)


# ---- marks: what is printed, scratched or spilt


def _mark(rng: Rng, picture: Picture) -> None:
    """Printing, a scratch, a crack, a spot, dust or a stain, strong or faint."""
    side = len(picture)
    mask = np.zeros((side, side), np.uint8)
    kind = rng.integers(5)
    start = rng.uniform(0, side, 2)
    if kind == 0:
        text = "".join(chr(rng.integers(33, 126)) for _ in range(rng.integers(1, 9)))
        font, scale, thickness = int(rng.integers(8)), float(rng.uniform(0.3, 2.2)), int(rng.integers(1, 4))
        cv2.putText(mask, text, [int(v) for v in start * (0.6, 1)], font, scale, 255, thickness, cv2.LINE_AA)
    elif kind <= 2:  # scratch: smooth; crack: jagged
        turn = np.cumsum(rng.normal(0, 0.08 if kind == 1 else 0.7, 40)) + rng.uniform(0, 6.3)
        steps = np.stack([np.cos(turn), np.sin(turn)], axis=1) * rng.uniform(0.5, 5)
        path = np.round((start + np.cumsum(steps, axis=0)) * 16).astype(np.int32)
        cv2.polylines(mask, [path], False, 255, 1 + int(rng.integers(4) == 0), cv2.LINE_AA, 4)
    elif kind == 3:
        for point in rng.uniform(0, side, (int(rng.integers(1, 30)), 2)):
            cv2.circle(mask, [int(v) for v in point], int(rng.integers(1, 4)), 255, -1, cv2.LINE_AA)
    else:
        mask = (255 * _shape(rng, side, side * rng.uniform(0.02, 0.2), start)).astype(np.uint8)
    soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.2 if kind < 4 else 6)).astype(np.float32) / 255
    picture += (rng.uniform(0.1, 1) * soft)[..., None] * (_palette(rng)[0].astype(np.float32) - picture)


# ---- lamp and camera


def _light(rng: Rng, picture: Picture) -> None:
    """A slope of light, vignetting, a highlight."""
    side = len(picture)
    along, across = (axis / side - 0.5 for axis in _rotated(rng, side))
    if rng.random() < 0.5:
        picture *= (1 + rng.uniform(0, 0.6) * (along - along.mean()))[..., None]
    if rng.random() < 0.3:
        picture *= (
            1 - rng.uniform(0.1, 0.7) * ((along - along.mean()) ** 2 + (across - across.mean()) ** 2)
        )[..., None]
    if rng.random() < 0.2:
        x, y = _grid(side)
        cx, cy = rng.uniform(0, side, 2)
        spot = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (side * rng.uniform(0.05, 0.3)) ** 2))
        picture += (1 - picture) * (rng.uniform(0.2, 0.8) * spot)[..., None]


def _camera(rng: Rng, picture: Picture) -> NDArray[np.uint8]:
    """Blur, exposure, grey cameras, noise, 8 bits, and at times JPEG."""
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.5))
    picture = np.clip(picture, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.25:
        picture = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    sigma = np.exp(rng.uniform(-6.5, -3.2))
    noise = rng.standard_normal((*picture.shape[:2], 1) if rng.random() < 0.5 else picture.shape, np.float32)
    image = (np.clip(picture + sigma * noise, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 97))])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image
