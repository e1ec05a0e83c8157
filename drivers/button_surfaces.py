"""What all simulated buttons of a line share, computed once per image size: shape, material, belt, noise.

Lengths with suffix `_r` are in button radii, so that a picture scales with its size. Arrays are read-only.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Material = Literal["wood", "plastic"]
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

RADIUS_SHARE = 0.36  # button radius / shorter image side
TILE_HALF_R = 1.14  # half the side of the button's own tile: room for a bulge
HOLE_AT_R, HOLE_RADIUS_R, CHAMFER_R = 0.185, 0.088, 0.034
MAX_SHEET_RADIUS_PX = 368.0  # material and belt of larger pictures are enlarged: a sheet takes seconds beyond
SHADOW_RADIUS_PX = 96.0  # soft enough to be enlarged
SLACK_PX = 192  # how far the belt and noise sheets exceed the image, for random crops

# Height of the turned profile over the radius, both in radii: flat well, raised rim, rounded edge.
_PROFILE_RADIUS_R = (0.00, 0.56, 0.62, 0.68, 0.76, 0.84, 0.91, 0.96, 0.985, 1.0, 1.2)
_PROFILE_HEIGHT_R = (0.085, 0.095, 0.105, 0.145, 0.178, 0.182, 0.162, 0.120, 0.080, 0.03, 0.03)


@dataclass(frozen=True, slots=True, eq=False)
class Stock:
    """The static parts of a line's pictures.

    Attributes:
        radius_px: the button's nominal radius.
        x_r, y_r: (S, S) coordinates of the button's tile in radii.
        height_px: (S, S) surface of a blank without holes.
        cover: (S, S) 0 to 1, antialiased silhouette of a blank without holes.
        shadow_u8: (S2, S2) soft shadow on the belt of a blank of SHADOW_RADIUS_PX.
        material_rgb: (M, M, 3) uint8 sheet the part's surface is cut from, grain along x.
        material_scale: px of the sheet per px of the tile.
        gloss: strength of the specular highlight.
        broken_rgb: colour of a fresh fracture.
        scraped_rgb: colour of a scratch.
        belt_rgb: uint8 (H + SLACK_PX, W + SLACK_PX, 3).
        noise_dn: int16 (H + SLACK_PX, W + SLACK_PX, 3) sensor noise in grey levels.
        ramp_x, ramp_y: (H, W) from -0.5 to 0.5.
        vignette: (H, W) lens falloff.
    """

    radius_px: float
    x_r: Float32
    y_r: Float32
    height_px: Float32
    cover: Float32
    shadow_u8: UInt8
    material_rgb: UInt8
    material_scale: float
    gloss: float
    broken_rgb: Float32
    scraped_rgb: Float32
    belt_rgb: UInt8
    noise_dn: NDArray[np.int16]
    ramp_x: Float32
    ramp_y: Float32
    vignette: Float32


@lru_cache(maxsize=2)
def stock(material: Material, width_px: int, height_px: int) -> Stock:
    """The static parts for one material and image size; a quarter second at 512 x 512, then remembered."""
    rng = np.random.default_rng([1707, width_px, height_px])
    radius_px = RADIUS_SHARE * min(width_px, height_px)
    axis_r = _tile_axis_r(radius_px, TILE_HALF_R)
    x_r, y_r = (np.ascontiguousarray(a, np.float32) for a in np.meshgrid(axis_r, axis_r))
    height, cover = turned_body(np.hypot(x_r, y_r), radius_px)

    shadow_axis_r = _tile_axis_r(SHADOW_RADIUS_PX, 1.6)
    disc = (np.hypot(*np.meshgrid(shadow_axis_r, shadow_axis_r)) < 1.0).astype(np.float32)
    shadow = cv2.GaussianBlur(disc, (0, 0), 0.085 * SHADOW_RADIUS_PX)

    sheet_radius_px = min(radius_px, MAX_SHEET_RADIUS_PX)
    sheet_side = round(2.2 * 2 * TILE_HALF_R * sheet_radius_px)
    wooden = material == "wood"
    material_rgb = (_wood_rgb if wooden else _pearl_rgb)(rng, sheet_side, sheet_radius_px)
    ramp_y, ramp_x = np.meshgrid(
        np.linspace(-0.5, 0.5, height_px, dtype=np.float32),
        np.linspace(-0.5, 0.5, width_px, dtype=np.float32),
        indexing="ij",
    )
    shape = (height_px + SLACK_PX, width_px + SLACK_PX)
    shrink = sheet_radius_px / radius_px
    small_belt_rgb = _belt_rgb(rng, (ceil(shape[0] * shrink), ceil(shape[1] * shrink)), sheet_radius_px)
    belt_rgb = cv2.resize(small_belt_rgb, shape[::-1], interpolation=cv2.INTER_LINEAR)
    made = Stock(
        radius_px=radius_px,
        x_r=x_r,
        y_r=y_r,
        height_px=height,
        cover=cover,
        shadow_u8=_to_u8(shadow * 255.0),
        material_rgb=material_rgb,
        material_scale=shrink,
        gloss=0.34 if wooden else 0.50,
        broken_rgb=_rgb(222, 190, 142) if wooden else _rgb(196, 196, 192),
        scraped_rgb=_rgb(246, 232, 208) if wooden else _rgb(96, 94, 98),
        belt_rgb=np.asarray(belt_rgb, np.uint8),
        noise_dn=np.rint(rng.standard_normal((*shape, 3), dtype=np.float32) * 1.9).astype(np.int16),
        ramp_x=np.ascontiguousarray(ramp_x),
        ramp_y=np.ascontiguousarray(ramp_y),
        vignette=(1.0 - 0.16 * (ramp_x**2 + ramp_y**2)).astype(np.float32),
    )
    for name in Stock.__slots__:
        value = getattr(made, name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return made


def turned_body(radius_r: Float32, radius_px: float) -> tuple[Float32, Float32]:
    """Height in px and antialiased silhouette of a blank, from each pixel's distance to the axis in radii."""
    table_r = np.linspace(0.0, 1.2, 1201)
    table = np.interp(table_r, _PROFILE_RADIUS_R, _PROFILE_HEIGHT_R).astype(np.float32)
    table_px = cv2.GaussianBlur(table[None, :], (0, 0), 14.0) * np.float32(radius_px)
    at = (radius_r * np.float32(1000)).astype(np.float32)
    height = cv2.remap(table_px, at, np.zeros_like(at), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = np.clip((1.0 - radius_r) * radius_px + 0.5, 0.0, 1.0)
    return np.asarray(height, np.float32), cover.astype(np.float32)


def _tile_axis_r(radius_px: float, half_r: float) -> Float32:
    half_px = int(np.ceil(half_r * radius_px))
    return (np.arange(-half_px, half_px + 1, dtype=np.float32) / np.float32(radius_px)).astype(np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: tuple[float, float]) -> Float32:
    """Smooth noise of unit variance at its grid points, `cell_px` = (along y, along x)."""
    grid_shape = [int(np.ceil(n / max(c, 1.0))) + 3 for n, c in zip(shape, cell_px, strict=True)]
    grid = rng.standard_normal(grid_shape, dtype=np.float32)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def _rgb(red: float, green: float, blue: float) -> Float32:
    return np.array((red, green, blue), np.float32)


def _to_u8(values: Float32) -> UInt8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _wood_rgb(rng: np.random.Generator, side: int, r: float) -> UInt8:
    """Flat-sawn grain: sawtooth growth rings bent by slow noise, fibres, and short dark pores."""

    def noise(cell_y_r: float, cell_x_r: float) -> Float32:
        return _noise(rng, (side, side), (cell_y_r * r, cell_x_r * r))

    across_r = np.arange(side, dtype=np.float32)[:, None] / np.float32(r)
    rings = 6.0 * across_r + 1.5 * noise(0.7, 2.2) + 0.16 * noise(0.1, 0.6)
    phase = rings - np.floor(rings)
    late = phase**1.8 * (
        1.0 - np.clip((phase - 0.86) / 0.14, 0.0, 1.0) ** 2
    )  # dark, with a sharp end of year
    fibres = 0.6 * noise(0.010, 0.3) + 0.4 * noise(0.025, 0.9)
    pores = np.clip(noise(0.013, 0.11) - 1.55, 0.0, 0.8)
    tone = 0.74 - 0.34 * late + 0.045 * fibres + 0.05 * noise(1.2, 2.5) - 0.28 * pores
    tone = np.clip(cv2.GaussianBlur(tone, (0, 0), 0.6), 0.0, 1.0)[..., None]
    dark, light = _rgb(92, 56, 30), _rgb(222, 178, 124)
    return _to_u8(dark + (light - dark) * tone)


def _pearl_rgb(rng: np.random.Generator, side: int, r: float) -> UInt8:
    """Cast polyester with pearl flake: noise whose coordinates are bent by noise (domain warping)."""

    def noise(cell_r: float) -> Float32:
        return _noise(rng, (side, side), (cell_r * r, cell_r * r))

    y, x = (a.astype(np.float32) for a in np.indices((side, side)))
    map_x = x + np.float32(r) * (0.30 * noise(0.6) + 0.05 * noise(0.22))
    map_y = y + np.float32(r) * (0.30 * noise(0.6) + 0.05 * noise(0.22))

    def bent(values: Float32) -> Float32:
        remapped = cv2.remap(values, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(remapped, np.float32)

    swirl = bent(noise(0.5) + 0.35 * noise(0.2))
    milky = 0.5 + 0.5 * np.tanh(0.9 * swirl)
    vein = np.exp(-((bent(noise(0.42)) / 0.20) ** 2)) * np.clip(0.6 + 0.5 * bent(noise(0.8)), 0.0, 1.0)
    shaded, bright = _rgb(150, 146, 150), _rgb(206, 200, 190)
    rgb = (
        shaded + (bright - shaded) * milky[..., None] - 17.0 * vein[..., None] + 1.6 * noise(0.02)[..., None]
    )
    rgb += _rgb(5.0, -1.0, -6.0) * np.clip(bent(noise(0.5)), -1.5, 1.5)[..., None]
    return _to_u8(cv2.GaussianBlur(rgb, (0, 0), 0.8))


def _belt_rgb(rng: np.random.Generator, shape: tuple[int, int], r: float) -> UInt8:
    """Dark green-grey woven conveyor belt with wear marks along the direction of travel (x)."""
    y, x = (a.astype(np.float32) for a in np.indices(shape))
    pitch = max(0.038 * r, 3.0)
    row = np.floor(y / pitch)
    weave = np.cos(2 * np.pi * y / pitch) * 0.5 + np.cos(2 * np.pi * (x / (2.2 * pitch) + 0.5 * row)) * 0.5
    level = 62.0 + 3.2 * weave + 2.6 * _noise(rng, shape, (0.02 * r, 0.02 * r))
    level += 2.5 * _noise(rng, shape, (0.03 * r, 1.2 * r)) + 3.0 * _noise(rng, shape, (0.8 * r, 1.4 * r))
    return _to_u8(level[..., None] * _rgb(0.92, 1.02, 0.98))
