"""The eight ways a simulated button goes wrong, each drawn into the part before it is lit and posed.

A drawing function changes the part in place and returns its mask, uint8 (S, S), 255 = defective. Severity 0
is barely visible to a person who knows where to look, 1 is gross. Lengths are in button radii (`_r`); stroke
widths are in px of a 512 px picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drivers.button_surfaces import CHAMFER_R, HOLE_AT_R, HOLE_RADIUS_R, Float32, Stock, UInt8, turned_body

Rng = np.random.Generator
Points = NDArray[np.float64]  # (N, 2) x, y in radii

RADIUS_AT_512_PX = 184.0


@dataclass(slots=True, eq=False)
class Part:
    """One button lying straight in its tile, unlit.

    Attributes:
        stock: its line's static parts.
        height_px: (S, S) surface.
        cover: (S, S) 0 to 1, where there is material; the holes are cut last.
        albedo_rgb: float32 (S, S, 3), 0 to 255.
        holes_r: x, y, radius of each hole still to be drilled.
    """

    stock: Stock
    height_px: Float32
    cover: Float32
    albedo_rgb: Float32
    holes_r: list[tuple[float, float, float]]

    def drill(self) -> None:
        """Cut the holes with their chamfers."""
        r_px = self.stock.radius_px
        for x, y, radius in self.holes_r:
            chamfer = CHAMFER_R * min(1.0, radius / HOLE_RADIUS_R)
            box, dist = self.around(x, y, radius + chamfer)
            self.height_px[box] -= np.clip(radius + chamfer - dist, 0.0, chamfer * 1.2) * r_px
            self.cover[box] *= np.clip((dist - radius) * r_px + 0.5, 0.0, 1.0)

    def around(self, x: float, y: float, reach_r: float) -> tuple[tuple[slice, slice], Float32]:
        """The box of the tile that holds a disc, and its pixels' distance to the centre in radii."""
        half_px, r_px = (self.cover.shape[0] - 1) / 2, self.stock.radius_px
        reach_px = reach_r * r_px + 2
        rows, cols = (
            slice(max(int(half_px + c * r_px - reach_px), 0), int(half_px + c * r_px + reach_px) + 2)
            for c in (y, x)
        )
        dist = np.hypot(
            self.stock.x_r[rows, cols] - np.float32(x), self.stock.y_r[rows, cols] - np.float32(y)
        )
        return (rows, cols), dist

    def fill(self, outline_r: Points) -> UInt8:
        """Antialiased polygon, 0 to 255."""
        centre_px = (self.cover.shape[0] - 1) / 2
        points = np.rint((centre_px + outline_r * self.stock.radius_px) * 16).astype(np.int32)
        canvas = np.zeros(self.cover.shape, np.uint8)
        cv2.fillPoly(canvas, [points], 255.0, lineType=cv2.LINE_AA, shift=4)
        return canvas

    def ribbon(self, path_r: Points, width_px: NDArray[np.float64]) -> UInt8:
        """A stroke along a path, with its width at each point."""
        along = np.gradient(path_r, axis=0)
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.hypot(*along.T)[:, None], 1e-9)
        offset = normal * (width_px / 2 / RADIUS_AT_512_PX)[:, None]
        return self.fill(np.concatenate([path_r + offset, (path_r - offset)[::-1]]))

    def disc(self, x: float, y: float, radius_r: float) -> UInt8:
        """A filled circle, 0 or 255."""
        canvas = np.zeros(self.cover.shape, np.uint8)
        box, dist = self.around(x, y, radius_r)
        canvas[box] = np.where(dist <= radius_r, np.uint8(255), np.uint8(0))
        return canvas

    def on_surface(self, mask_u8: UInt8) -> UInt8:
        """The mask without what lies beside the part or in its holes."""
        mask_u8 = np.where(self.cover > 0.5, mask_u8, np.uint8(0))
        for x, y, radius in self.holes_r:
            box, dist = self.around(x, y, radius)
            mask_u8[box][dist <= radius] = 0
        return mask_u8

    def blend(self, weight: Float32, colour_rgb: Float32) -> None:
        """Paint: 0 leaves the surface, 1 covers it."""
        box = _box(weight)
        self.albedo_rgb[box] += weight[box][..., None] * (colour_rgb - self.albedo_rgb[box])

    def darken(self, weight: Float32, factor_rgb: tuple[float, float, float]) -> None:
        """Multiply the colour: weight 0 by 1, weight 1 by the factor."""
        box = _box(weight)
        self.albedo_rgb[box] *= 1.0 + weight[box][..., None] * (
            np.array(factor_rgb, np.float32) - np.float32(1)
        )


def _box(weight: Float32) -> tuple[slice, slice]:
    """Where the weight is not zero: most damage is small, and three-channel arithmetic is what costs."""
    x, y, width, height = cv2.boundingRect((weight > 0).astype(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def intact_holes_r() -> list[tuple[float, float, float]]:
    """The four holes of a good button."""
    return [(sx * HOLE_AT_R, sy * HOLE_AT_R, HOLE_RADIUS_R) for sx in (-1, 1) for sy in (-1, 1)]


def _lerp(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _polar(radius_r: float, angle: float) -> tuple[float, float]:
    return radius_r * float(np.cos(angle)), radius_r * float(np.sin(angle))


def _blob_r(rng: Rng, centre_r: tuple[float, float], radius_r: float, roughness: float) -> Points:
    """Outline of an irregular round patch."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for k in range(2, 8):
        radius += roughness / k**0.7 * rng.standard_normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    radius = radius_r * np.clip(radius, 0.45, 1.6)
    return np.stack([centre_r[0] + radius * np.cos(angle), centre_r[1] + radius * np.sin(angle)], axis=1)


def _soft(mask_u8: UInt8, sigma_px: float) -> Float32:
    """The mask as weights 0 to 1, blurred; only round the mask is there anything to compute."""
    x, y, width, height = cv2.boundingRect(mask_u8)
    margin = int(4 * sigma_px) + 2
    box = slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin)
    weight = np.zeros(mask_u8.shape, np.float32)
    weight[box] = cv2.GaussianBlur(mask_u8[box], (0, 0), sigma_px)
    weight[box] /= np.float32(255)
    return weight


def _scratch(part: Part, rng: Rng, severity: float) -> UInt8:
    """A shallow pale groove, clear of the holes."""
    length = _lerp(0.26, 1.15, severity)
    heading = rng.uniform(0, 2 * np.pi)
    along, across = np.array(_polar(1.0, heading)), np.array(_polar(1.0, heading + np.pi / 2))
    t = np.linspace(-0.5, 0.5, 40)
    offset = rng.choice([-1, 1]) * rng.uniform(0.40, 0.62)
    bend = offset + length * rng.uniform(-0.4, 0.4) * t**2 + 0.003 * rng.standard_normal(40)
    path = length * t[:, None] * along + bend[:, None] * across
    mask = part.ribbon(path, _lerp(1.7, 4.2, severity) * (1 - (2 * np.abs(t)) ** 3 * 0.7))
    groove = _soft(mask, 0.8)
    part.height_px -= groove * np.float32(_lerp(0.5, 1.8, severity))
    part.blend(groove * np.float32(_lerp(0.42, 0.75, severity)), part.stock.scraped_rgb)
    return part.on_surface(mask)


def _crack(part: Part, rng: Rng, severity: float) -> UInt8:
    """A dark jagged split running inwards from the edge, with a branch when it is long."""
    steps = 26
    angle = rng.uniform(0, 2 * np.pi)
    drift = np.clip(0.17 * np.cumsum(rng.standard_normal(steps)), -0.8, 0.8)
    heading = angle + np.pi + drift + rng.normal(0, 0.45, steps)
    step = np.stack([np.cos(heading), np.sin(heading)], axis=1) * _lerp(0.24, 1.0, severity) / steps
    path = np.array(_polar(1.0, angle)) + np.cumsum(step, axis=0)
    mask = part.ribbon(path, np.linspace(_lerp(2.2, 5.0, severity), 0.9, steps))
    if severity > 0.4:
        cos, sin = _polar(0.8, rng.choice([-1, 1]) * rng.uniform(0.5, 0.9))
        branch = path[steps // 2] + (path[steps // 2 :] - path[steps // 2]) @ np.array(
            [[cos, sin], [-sin, cos]]
        )
        mask = np.maximum(mask, part.ribbon(branch, np.linspace(2.2, 0.8, len(branch))))
    part.height_px -= _soft(mask, 0.7) * np.float32(_lerp(1.2, 3.0, severity))
    left = _lerp(0.42, 0.18, severity)
    part.darken(_soft(mask, 0.4), (left, left, left))
    return part.on_surface(mask)


def _chip(part: Part, rng: Rng, severity: float) -> UInt8:
    """A piece broken out of the edge: some material gone, a pale rough fracture behind it."""
    angle = rng.uniform(0, 2 * np.pi)
    size = _lerp(0.085, 0.30, severity)
    outline = _blob_r(rng, _polar(1.0, angle), size, 0.16)
    mask = part.on_surface(part.fill(outline))
    middle = outline.mean(axis=0)
    gone = part.fill(middle + 0.74 * (outline - middle) + np.array(_polar(0.40 * size, angle)))
    grit = rng.standard_normal((72, 72), dtype=np.float32)
    rough = np.asarray(cv2.resize(grit, mask.shape, interpolation=cv2.INTER_CUBIC), np.float32)
    depth_px = 0.16 * size * part.stock.radius_px
    slope = _soft(mask, max(0.12 * size * part.stock.radius_px, 1.0))
    part.height_px -= slope * (np.float32(depth_px) + np.float32(0.025 * depth_px) * rough)
    part.blend(_soft(mask, 0.9) * np.clip(0.62 + 0.10 * rough, 0.0, 1.0), part.stock.broken_rgb)
    part.cover *= 1.0 - _soft(gone, 0.5)
    return mask


def _stain(part: Part, rng: Rng, severity: float) -> UInt8:
    """A translucent patch, dark oil or blue ink, with a darker border where it dried."""
    centre = _polar(rng.uniform(0.34, 0.72), rng.uniform(0, 2 * np.pi))
    size = _lerp(0.075, 0.34, severity)
    soft_px = max(0.05 * size * part.stock.radius_px, 0.8)
    mask = part.fill(_blob_r(rng, centre, size, 0.20))
    weight = _soft(mask, soft_px)
    border: Float32 = np.clip(weight * (1.0 - _soft(mask, 3 * soft_px)) * 3.0, 0.0, 1.0)
    density = (np.float32(0.75) * weight + np.float32(0.5) * border) * np.float32(_lerp(0.46, 0.85, severity))
    part.darken(density, ((0.42, 0.34, 0.28), (0.32, 0.40, 0.66))[int(rng.integers(2))])
    return part.on_surface(mask)


def _missing_hole(part: Part, rng: Rng, severity: float) -> UInt8:
    """A hole drilled too small or, from severity 0.7 on, not at all."""
    x, y, radius = part.holes_r.pop(int(rng.integers(4)))
    left = radius * (1.0 - _lerp(0.22, 1.12, severity))
    mask = part.disc(x, y, radius)
    if left > 0.15 * radius:
        part.holes_r.append((x, y, left))
        mask -= part.disc(x, y, left)
    return mask


def _extra_hole(part: Part, rng: Rng, severity: float) -> UInt8:
    """A hole where none belongs, from a pinhole to full size."""
    x, y = _polar(rng.uniform(0.46, 0.62), rng.uniform(0, 2 * np.pi))
    radius = HOLE_RADIUS_R * _lerp(0.32, 1.0, severity)
    part.holes_r.append((x, y, radius))
    return part.disc(x, y, radius)


def _deformation(part: Part, rng: Rng, severity: float) -> UInt8:
    """A flattened or bulging stretch of the outline; the rim follows it."""
    centre, width = rng.uniform(-np.pi, np.pi), rng.uniform(0.26, 0.50)
    depth = _lerp(0.024, 0.125, severity) * (1.0 if rng.random() < 0.35 else -1.3)
    turn_x, turn_y = np.float32(np.cos(centre)), np.float32(np.sin(centre))
    stock = part.stock
    radius_r = np.asarray(cv2.magnitude(stock.x_r, stock.y_r), np.float32)
    # exp(-angle^2 / (2 width^2)) about `centre`, by 1 - cos(angle) ~ angle^2 / 2: no arctan per pixel.
    cosine = (stock.x_r * turn_x + stock.y_r * turn_y) / np.maximum(radius_r, np.float32(1e-3))
    grip = np.clip((radius_r - np.float32(0.45)) / np.float32(0.55), 0.0, 1.0)
    bump = np.float32(depth) * grip * np.asarray(cv2.exp((cosine - 1) / np.float32(width**2)), np.float32)
    before = part.cover
    part.height_px, part.cover = turned_body(radius_r / (1 + bump), stock.radius_px)
    dented_rim = (np.abs(bump) > 0.02) & (radius_r > 0.7) & (part.cover > 0.5)
    return np.where(dented_rim | (np.abs(part.cover - before) > 0.3), np.uint8(255), np.uint8(0))


def _contamination(part: Part, rng: Rng, severity: float) -> UInt8:
    """Something lying on the surface: a fibre, a drop of glue, or crumbs."""
    centre = np.array(_polar(rng.uniform(0.34, 0.68), rng.uniform(0, 2 * np.pi)))
    colours = ((236.0, 236.0, 232.0), (52.0, 74.0, 150.0), (150.0, 40.0, 46.0), (38.0, 38.0, 40.0))
    colour_rgb, opacity, bulge_px = colours[int(rng.integers(4))], 0.92, 1.2
    match int(rng.integers(3)):
        case 0:
            t = np.linspace(0, 1, 60)
            heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.22, 60)) * _lerp(
                0.5, 1.1, severity
            )
            step = np.stack([np.cos(heading), np.sin(heading)], axis=1) * _lerp(0.28, 1.3, severity) / 60
            path = np.cumsum(step, axis=0)
            mask = part.ribbon(path - path.mean(axis=0) + centre, _lerp(2.0, 3.2, severity) * (1 - 0.25 * t))
        case 1:
            colour_rgb, opacity, bulge_px = (226.0, 214.0, 170.0), 0.45, _lerp(2.0, 5.0, severity)
            mask = part.fill(_blob_r(rng, (centre[0], centre[1]), _lerp(0.055, 0.20, severity), 0.12))
        case _:
            mask = np.zeros(part.cover.shape, np.uint8)
            for x, y in centre + rng.normal(
                0, _lerp(0.05, 0.16, severity), (round(_lerp(3, 16, severity)), 2)
            ):
                mask = np.maximum(mask, part.fill(_blob_r(rng, (x, y), rng.uniform(0.018, 0.034), 0.22)))
    r_px = part.stock.radius_px
    shift = max(1, round(0.012 * r_px))
    shaded = _soft(np.roll(mask, shift, axis=(0, 1)), 0.008 * r_px + 0.3) * (1 - _soft(mask, 0.3))
    part.darken(shaded, (0.72, 0.72, 0.72))
    part.height_px += _soft(mask, 0.8 if opacity > 0.5 else 0.03 * r_px) * np.float32(bulge_px)
    part.blend(_soft(mask, 0.4) * np.float32(opacity), np.array(colour_rgb, np.float32))
    return part.on_surface(mask)


# By name; the order is the order of `buttons.DEFECTS` and part of what a seed means.
DRAW: dict[str, Callable[[Part, Rng, float], UInt8]] = {
    "scratch": _scratch,
    "crack": _crack,
    "chip": _chip,
    "stain": _stain,
    "missing_hole": _missing_hole,
    "extra_hole": _extra_hole,
    "deformation": _deformation,
    "contamination": _contamination,
}
