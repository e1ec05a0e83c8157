"""Find the part and bring it to a canonical pose, so that every token means the same place of the part.

`none` takes the whole image. `disc` finds a round part on a plain ground: centre and
radius from its outline, rotation from its rings correlated with a template learned on good parts. An image in
which no disc is found falls back to the usual pose of the training parts and says so (`Aligned.found`): it
must still be scored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from varad_core.config import AlignmentName
from varad_core.types import DataError

ImageRgb = NDArray[np.uint8]
Affine = NDArray[np.float64]  # (2, 3)

SEARCH_PX = 256  # the outline is searched at this size of the image's longer side
MARGIN = 1.12  # the canonical square reaches this many radii from the centre
RINGS, ANGLES = 32, 512
LOWEST_HARMONIC, HIGHEST_HARMONIC = 3, 64  # below: lighting; above: grain
MIN_INLIERS = (
    0.45  # share of the outline on the fitted circle for a disc to count as found; a square has 0.15
)
AUTO_FOUND = 0.95  # share of training images in which a disc must be found for `auto` to take it
AUTO_INLIERS = 0.80  # and the median share of their outline that lies on it
MIN_PHASE_AGREEMENT = (
    0.25  # correlation with a template from other parts, below which rotation carries no marks
)


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """A part in its canonical pose.

    Attributes:
        image_rgb: uint8 (H, W, 3).
        to_image: 2 x 3 affine map from canonical pixels to input pixels.
        found: False where the part was not found and a fallback pose was used.
        ignored: bool (H, W), True where the picture was painted over; None: nowhere.
        gain: by which it was made brighter, see `varad_core.levelling`.
    """

    image_rgb: ImageRgb
    to_image: Affine
    found: bool
    ignored: NDArray[np.bool_] | None = None
    gain: float = 1.0


class Alignment(Protocol):
    """One way to bring parts to a canonical pose."""

    name: str

    def align(self, image_rgb: ImageRgb, size_px: int, step_px: int = 0) -> Aligned:
        """Any uint8 (H, W, 3) image to a square of `size_px`; with `step_px` it keeps its aspect ratio.

        Then its shorter side becomes `size_px`, and its longer side the nearest multiple of `step_px`.
        """
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What `load_alignment` needs to build it again."""
        ...


class WholeImage:
    """`none`: the whole image, resized."""

    name = "none"

    def align(self, image_rgb: ImageRgb, size_px: int, step_px: int = 0) -> Aligned:
        """See `Alignment.align`."""
        height, width = image_rgb.shape[:2]
        rows = columns = size_px
        if step_px and width > height:
            columns = step_px * round(size_px * width / height / step_px)
        elif step_px:
            rows = step_px * round(size_px * height / width / step_px)
        # Each side by itself, as a side that shrinks must be averaged, or thin defects fall between samples.
        shrunk = cv2.resize(image_rgb, (min(columns, width), min(rows, height)), interpolation=cv2.INTER_AREA)
        resized = cv2.resize(shrunk, (columns, rows), interpolation=cv2.INTER_CUBIC)
        to_image = _scaling(width / columns, height / rows)[:2]
        return Aligned(np.asarray(resized, np.uint8), to_image, True)

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Disc:
    """A round part in an image; `inliers` is the share of its outline that lies on the circle."""

    x_px: float
    y_px: float
    radius_px: float
    inliers: float


def find_disc(image_rgb: ImageRgb) -> Disc | None:
    """The largest object that differs from the image's border, as a circle fitted robustly to its outline.

    Chips and bumps are outliers of the fit (Tukey's weights), so a damaged part keeps its centre and radius.
    """
    height, width = image_rgb.shape[:2]
    scale = SEARCH_PX / max(height, width)
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (5, 5), 0), cv2.COLOR_RGB2LAB).astype(np.float32)
    border = np.concatenate(
        [
            lab[:4].reshape(-1, 3),
            lab[-4:].reshape(-1, 3),
            lab[:, :4].reshape(-1, 3),
            lab[:, -4:].reshape(-1, 3),
        ]
    )
    light, a, b = (lab[..., i] - middle for i, middle in enumerate(np.median(border, axis=0)))
    distance_u8 = np.clip(np.sqrt(light * light + a * a + b * b), 0, 255).astype(np.uint8)
    _, mask = cv2.threshold(distance_u8, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    contour = max(contours, key=cv2.contourArea)
    area = cv2.contourArea(contour) / (size[0] * size[1])
    if not 0.02 < area < 0.9 or len(contour) < 24:
        return None
    points = contour.reshape(-1, 2).astype(np.float64)
    x, y, radius, inliers = _fit_circle(points)
    if inliers < MIN_INLIERS or not (0 <= x < size[0] and 0 <= y < size[1]) or radius > max(size):
        return None
    back_x, back_y = width / size[0], height / size[1]
    return Disc((x + 0.5) * back_x - 0.5, (y + 0.5) * back_y - 0.5, (radius + 0.5) * back_x, inliers)


def _fit_circle(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Algebraic circle fit, reweighted: centre x, y, radius, share of points within 3 % of the radius."""
    weights = np.ones(len(points))
    middle = points.mean(0)
    centred = points - middle  # the normal equations are well conditioned around 0
    design = np.column_stack([centred, np.ones(len(points))])
    squares = (centred**2).sum(1)
    half = len(points) // 2
    x = y = radius = 0.0
    residual = np.zeros(len(points))
    for _ in range(12):
        weighted = design.T * weights
        a, b, c = np.linalg.lstsq(weighted @ design, weighted @ squares, rcond=None)[0]
        before = x, y, radius
        x, y = float(middle[0] + a / 2), float(middle[1] + b / 2)
        radius = float(np.sqrt(max(c + (a * a + b * b) / 4, 1e-9)))
        residual = np.abs(np.hypot(points[:, 0] - x, points[:, 1] - y) - radius)
        cut = max(4.0 * float(np.partition(residual, half)[half]), 1.0)
        weights = np.where(residual < cut, (1 - (residual / cut) ** 2) ** 2, 0.0)
        if weights.sum() < 6:
            return x, y, radius, 0.0
        if math.dist(before, (x, y, radius)) < 1e-4:
            break
    return x, y, radius, float((residual < max(0.03 * radius, 1.0)).mean())


def ring_spectrum(image_rgb: ImageRgb, disc: Disc) -> NDArray[np.complex64]:
    """Angular spectra of the part's rings without lighting and grain, of unit energy: (RINGS, harmonics)."""
    gray = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    polar = cv2.warpPolar(
        gray,
        (RINGS, ANGLES),
        (disc.x_px, disc.y_px),
        0.94 * disc.radius_px,
        cv2.INTER_LINEAR | cv2.WARP_POLAR_LINEAR,
    )
    spectrum = np.fft.rfft(polar.astype(np.float32), axis=0)[LOWEST_HARMONIC : HIGHEST_HARMONIC + 1].T
    spectrum = spectrum * np.sqrt(np.arange(RINGS) + 0.5)[:, None]  # a ring weighs as its length
    return np.asarray(spectrum / max(float(np.linalg.norm(spectrum)), 1e-9), np.complex64)


def find_phase(spectrum: NDArray[np.complex64], template: NDArray[np.complex64]) -> tuple[float, float]:
    """How far a part is turned from the template: radians, and the correlation there (-1 to 1)."""
    padded = np.zeros(ANGLES // 2 + 1, np.complex128)
    padded[LOWEST_HARMONIC : HIGHEST_HARMONIC + 1] = (spectrum * template.conj()).sum(0)
    correlation = np.fft.irfft(padded, ANGLES * 4) * ANGLES * 2  # four times finer by zero padding
    best = int(correlation.argmax())
    before, at, after = correlation[best - 1], correlation[best], correlation[(best + 1) % len(correlation)]
    curvature = before - 2 * at + after
    shift = best + (0.5 * (before - after) / curvature if curvature < 0 else 0.0)
    return float(shift * 2 * np.pi / len(correlation)), float(at)


def _turned_back(spectrum: NDArray[np.complex64], phase_rad: float) -> NDArray[np.complex64]:
    harmonics = np.arange(LOWEST_HARMONIC, HIGHEST_HARMONIC + 1)
    return np.asarray(spectrum * np.exp(1j * harmonics * phase_rad), np.complex64)


def fit_template(spectra: Sequence[NDArray[np.complex64]], rounds: int = 4) -> NDArray[np.complex64]:
    """The mean part, all turned alike: starts at the first and repeats turning and averaging."""
    template = spectra[0]
    for _ in range(rounds):
        turned = [_turned_back(spectrum, find_phase(spectrum, template)[0]) for spectrum in spectra]
        mean = np.mean(turned, axis=0)
        template = np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.complex64)
    return template


class DiscAlignment:
    """`disc`: centre, radius and, where the part has marks to tell it, rotation.

    Args:
        template: ring spectrum of the mean part; None leaves the rotation as it is.
        usual: centre x, y (shares of width and height) and radius (share of the shorter side) of the training
            parts.
    """

    name = "disc"

    def __init__(self, template: NDArray[np.complex64] | None, usual: tuple[float, float, float]) -> None:
        self.template = template
        self.usual = usual

    def locate(self, image_rgb: ImageRgb) -> tuple[Disc, float, bool]:
        """Disc, phase in radians, and whether the disc was found rather than assumed."""
        disc = find_disc(image_rgb)
        found = disc is not None
        if disc is None:
            height, width = image_rgb.shape[:2]
            disc = Disc(
                self.usual[0] * width, self.usual[1] * height, self.usual[2] * min(height, width), 0.0
            )
        phase_rad = (
            0.0 if self.template is None else find_phase(ring_spectrum(image_rgb, disc), self.template)[0]
        )
        return disc, phase_rad, found

    def align(self, image_rgb: ImageRgb, size_px: int, step_px: int = 0) -> Aligned:
        """See `Alignment.align`; a disc's square is one at any `step_px`.

        Beyond the image its border is replicated (reflected: false rejects).
        """
        disc, phase_rad, found = self.locate(image_rgb)
        step = 2 * MARGIN * disc.radius_px / size_px  # input pixels per canonical pixel
        source, shrink = image_rgb, 1.0
        if step > 1.5:  # average: a hair between two sampled pixels would be lost
            shrink = 1 / step
            source = np.asarray(
                cv2.resize(image_rgb, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8
            )
        cos, sin, half = step * np.cos(phase_rad), step * np.sin(phase_rad), (size_px - 1) / 2
        to_image = np.array(
            [[cos, -sin, disc.x_px - half * (cos - sin)], [sin, cos, disc.y_px - half * (sin + cos)]]
        )
        to_source = to_image * shrink
        to_source[:, 2] += (shrink - 1) / 2
        warped = cv2.warpAffine(
            source, to_source, (size_px, size_px), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return Aligned(np.asarray(warped, np.uint8), to_image, found)

    def tensors(self) -> dict[str, Tensor]:
        """The usual pose and, where rotation is used, the template."""
        tensors = {"usual": torch.tensor(self.usual, dtype=torch.float64)}
        if self.template is not None:
            tensors["template"] = torch.view_as_real(torch.from_numpy(self.template)).contiguous()
        return tensors


def fit_alignment(name: AlignmentName, images: Sequence[ImageRgb]) -> Alignment:
    """Fit the alignment on good parts; `auto` takes `disc` where nearly every image shows one.

    Raises:
        DataError: `disc` is asked for and hardly any image shows a disc.
    """
    if name == "none":
        return WholeImage()
    discs: list[Disc] = []
    spectra = []
    poses = []
    for image_rgb in images:
        disc = find_disc(image_rgb)
        if disc is not None:
            height, width = image_rgb.shape[:2]
            discs.append(disc)
            poses.append((disc.x_px / width, disc.y_px / height, disc.radius_px / min(height, width)))
            spectra.append(ring_spectrum(image_rgb, disc))
    found = len(discs) / max(1, len(images))
    if name == "auto":
        inliers = float(np.median([disc.inliers for disc in discs])) if discs else 0.0
        if found < AUTO_FOUND or inliers < AUTO_INLIERS:
            return WholeImage()
    elif found < 0.5:
        raise DataError(
            f"alignment disc: a disc was found in {len(discs)} of {len(images)} training images; "
            "use --alignment none"
        )
    x, y, radius = np.median(np.array(poses), axis=0)
    template = fit_template(spectra) if phase_agreement(spectra) >= MIN_PHASE_AGREEMENT else None
    return DiscAlignment(template, (float(x), float(y), float(radius)))


def phase_agreement(spectra: Sequence[NDArray[np.complex64]]) -> float:
    """Median correlation of every other part with a template made from the rest; 0 below 4 parts."""
    if len(spectra) < 4:
        return 0.0
    template = fit_template(spectra[::2])
    return float(np.median([find_phase(spectrum, template)[1] for spectrum in spectra[1::2]]))


def load_alignment(name: str, tensors: Mapping[str, Tensor]) -> Alignment:
    """The inverse of `Alignment.name` and `Alignment.tensors`."""
    if name == "none":
        return WholeImage()
    template = tensors.get("template")
    x, y, radius = tensors["usual"].tolist()
    spectrum = None if template is None else torch.view_as_complex(template.contiguous()).numpy()
    return DiscAlignment(spectrum, (x, y, radius))


def map_to_image(
    canonical_map: NDArray[np.float32],
    aligned: Aligned,
    image_shape: tuple[int, int],
    map_shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Lay a canonical map over the input image: float32 of `map_shape`; 0, as good as usual, where unseen.

    Where the result is coarser than the map, a peak keeps its height.
    """
    full = np.vstack([aligned.to_image, [0, 0, 1]])
    to_out = _scaling(map_shape[1] / image_shape[1], map_shape[0] / image_shape[0])
    rows, columns = aligned.image_rgb.shape[:2]
    from_map = _scaling(columns / canonical_map.shape[1], rows / canonical_map.shape[0])
    chain = (to_out @ full @ from_map)[:2]
    cells = math.ceil(abs(np.linalg.det(chain[:, :2])) ** -0.5 - 0.01)  # of the map along one of the result
    if cells > 1:
        canonical_map = np.asarray(cv2.dilate(canonical_map, np.ones((cells, cells), np.uint8)), np.float32)
    warped = cv2.warpAffine(
        canonical_map,
        chain,
        map_shape[::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return np.asarray(warped, np.float32)


def _scaling(x: float, y: float) -> NDArray[np.float64]:
    """Pixel-centre scaling as a 3 x 3 matrix."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
