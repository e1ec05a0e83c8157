"""Renders garment buttons on a conveyor belt: every picture is a pure function of (seed, index).

A part is built lying straight in its own tile (surface height, silhouette, colour), damaged there, lit by one
lamp from the upper left, then laid on the belt at a random place and angle and seen through a lens with a
little blur and noise. Everything static lives in `button_surfaces`, the damage in `button_defects`.
"""

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from drivers.button_defects import DRAW, Part, intact_holes_r
from drivers.button_surfaces import SHADOW_RADIUS_PX, SLACK_PX, Material, Stock, UInt8, stock

DEFECTS = tuple(DRAW)

T = TypeVar("T", bound=np.generic)

_PLAN, _LOOK, _DAMAGE = range(3)  # independent random streams of one part


@dataclass(frozen=True, slots=True, eq=False)
class RenderedPart:
    """One simulated picture and the truth about it.

    Attributes:
        image_rgb: uint8 (H, W, 3), read-only.
        defect: one of `DEFECTS`, '' when the part is good.
        severity: 0 (barely visible) to 1 (gross); 0 when good.
        mask: bool (H, W), True on the defect; empty when good.
    """

    image_rgb: UInt8
    defect: str
    severity: float
    mask: NDArray[np.bool_]


def part_truth(*, seed: int, index: int, defect_rate: float) -> tuple[str, float]:
    """Defect ('' when good) and severity of a part, without rendering it."""
    rng = np.random.default_rng([seed, index, _PLAN])
    chance, which, severity = rng.random(3)
    if chance >= defect_rate:
        return "", 0.0
    return DEFECTS[int(which * len(DEFECTS))], float(severity)


def render_part(
    *,
    seed: int,
    index: int,
    defect_rate: float,
    width_px: int,
    height_px: int,
    material: Material = "wood",
    truth: tuple[str, float] | None = None,
) -> RenderedPart:
    """The picture of part `index` of the line `seed`.

    Args:
        seed: the line.
        index: the part, from 0.
        defect_rate: share of defective parts, 0 to 1.
        width_px: image width.
        height_px: image height.
        material: the line's product.
        truth: (defect, severity) to render instead of what `part_truth` draws, for contact sheets.

    Returns:
        The picture with its mask.
    """
    defect, severity = part_truth(seed=seed, index=index, defect_rate=defect_rate) if truth is None else truth
    line = stock(material, width_px, height_px)
    look = np.random.default_rng([seed, index, _LOOK])
    part = _blank(line, look)
    mask_u8 = None
    if defect:
        mask_u8 = DRAW[defect](part, np.random.default_rng([seed, index, _DAMAGE]), severity)
    part.drill()
    image_rgb, pose = _photograph(line, part, look)
    mask = np.zeros((height_px, width_px), np.bool_)
    if mask_u8 is not None:
        mask = cv2.warpAffine(mask_u8, pose, (width_px, height_px), flags=cv2.INTER_LINEAR) > 127
    image_rgb.setflags(write=False)
    mask.setflags(write=False)
    return RenderedPart(image_rgb, defect, severity, mask)


def _blank(line: Stock, rng: np.random.Generator) -> Part:
    """A part cut from a random place of the material sheet."""
    side, sheet_side = line.cover.shape[0], line.material_rgb.shape[0]
    grain = rng.normal(0, np.radians(6.0))
    scale = rng.uniform(0.92, 1.08) * line.material_scale
    reach = 0.78 * side * line.material_scale  # half the largest cut's diagonal: it stays on the sheet
    at = rng.uniform(reach, sheet_side - reach, 2)
    to_sheet = _similarity(grain, scale, side, (at[0], at[1]))
    cut = cv2.warpAffine(
        line.material_rgb,
        to_sheet,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    tint = rng.normal(1.0, 0.035) * rng.normal(1.0, 0.012, 3)
    albedo = np.asarray(cv2.transform(cut.astype(np.float32), np.diag(tint)), np.float32)
    return Part(line, line.height_px.copy(), line.cover.copy(), albedo, intact_holes_r())


def _photograph(line: Stock, part: Part, rng: np.random.Generator) -> tuple[UInt8, NDArray[np.float64]]:
    """Light the part, lay it on the belt and expose: the image and the pose, 2 x 3, from tile to image."""
    height, width = line.ramp_x.shape
    turn = rng.uniform(0, 2 * np.pi)
    lamp = np.radians(rng.normal(-128.0, 4.0))  # direction towards the lamp in the image: up and to the left
    lit_rgb = _lit(line, part, lamp - turn)

    scale = rng.uniform(0.97, 1.03)
    shift = rng.uniform(-0.035, 0.035, 2) * min(height, width)
    at = (width - 1) / 2 + shift[0], (height - 1) / 2 + shift[1]
    pose = _similarity(turn, scale, part.cover.shape[0], at)
    fall = 0.055 * line.radius_px
    shadow_at = at[0] - fall * np.cos(lamp), at[1] - fall * np.sin(lamp)
    shadow_pose = _similarity(
        0.0, scale * line.radius_px / SHADOW_RADIUS_PX, line.shadow_u8.shape[0], shadow_at
    )
    # Four channels in one go: OpenCV is twice as fast on them as on three.
    lit_rgba = cv2.merge([*cv2.split(lit_rgb), cv2.convertScaleAbs(part.cover, alpha=255)])
    laid_rgba = cv2.warpAffine(lit_rgba, pose, (width, height), flags=cv2.INTER_LINEAR)
    cover = laid_rgba[..., 3].astype(np.float32) * np.float32(1 / 255)
    laid_rgb = cv2.cvtColor(laid_rgba, cv2.COLOR_RGBA2RGB)
    shadow = cv2.warpAffine(line.shadow_u8, shadow_pose, (width, height), flags=cv2.INTER_LINEAR)

    gain, tilt_x, tilt_y = rng.normal(1.0, 0.02), rng.normal(-0.05, 0.02), rng.normal(-0.05, 0.02)
    light = (
        np.float32(gain) * line.vignette + np.float32(tilt_x) * line.ramp_x + np.float32(tilt_y) * line.ramp_y
    )
    on_part = cover * light
    on_belt = (light - on_part) * (1.0 - shadow * np.float32(0.72 / 255))
    belt_rgb = _crop(line.belt_rgb, height, width, rng)
    exposed = cv2.add(
        cv2.multiply(laid_rgb, cv2.merge([on_part] * 3), dtype=cv2.CV_32F),
        cv2.multiply(belt_rgb, cv2.merge([on_belt] * 3), dtype=cv2.CV_32F),
        dtype=cv2.CV_8U,
    )
    blurred = cv2.GaussianBlur(exposed, (5, 5), rng.uniform(0.55, 0.75))
    image_rgb = cv2.add(blurred, _crop(line.noise_dn, height, width, rng), dtype=cv2.CV_8U)
    return np.asarray(image_rgb, np.uint8), pose


def _lit(line: Stock, part: Part, lamp: float) -> UInt8:
    """Lambert and Blinn-Phong on the part's surface: uint8 (S, S, 3). `lamp` is its direction in the tile."""
    slope_x = cv2.Scharr(part.height_px, cv2.CV_32F, 1, 0, scale=1 / 32)
    slope_y = cv2.Scharr(part.height_px, cv2.CV_32F, 0, 1, scale=1 / 32)
    steepness = cv2.sqrt(slope_x * slope_x + slope_y * slope_y + np.float32(1))
    rise = np.radians(52.0)
    facing = slope_x * np.float32(-np.cos(lamp)) + slope_y * np.float32(-np.sin(lamp))
    diffuse = (facing * np.float32(np.cos(rise)) + np.float32(np.sin(rise))) / steepness
    shade = np.float32(0.46) + np.float32(0.64) * np.maximum(diffuse, 0)
    # Half vector between lamp and camera; six squarings are the 64th power.
    half = (np.pi / 2 - rise) / 2
    gloss = np.maximum((facing * np.float32(np.sin(half)) + np.float32(np.cos(half))) / steepness, 0)
    for _ in range(6):
        gloss *= gloss
    gloss *= np.float32(255 * line.gloss)
    matt = cv2.multiply(part.albedo_rgb, cv2.merge([shade] * 3))
    return np.asarray(cv2.add(matt, cv2.merge([gloss] * 3), dtype=cv2.CV_8U), np.uint8)


def _similarity(turn: float, scale: float, side: int, at: tuple[float, float]) -> NDArray[np.float64]:
    """2 x 3 map that lays the centre of a square tile at `at`, turned and scaled."""
    cos, sin, half = scale * np.cos(turn), scale * np.sin(turn), (side - 1) / 2
    return np.array(
        [[cos, -sin, at[0] - half * (cos - sin)], [sin, cos, at[1] - half * (sin + cos)]], np.float64
    )


def _crop(sheet: NDArray[T], height: int, width: int, rng: np.random.Generator) -> NDArray[T]:
    top, left = rng.integers(0, SLACK_PX + 1, 2)
    return sheet[top : top + height, left : left + width]
