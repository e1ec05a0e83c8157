"""A trained model at work: one image in, one `AnomalyResult` out."""

import ctypes
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from torch import Tensor

from varad_core.alignment import Aligned, Alignment, load_alignment, map_to_image
from varad_core.bundle import load_bundle, save_bundle
from varad_core.conditions import departures, load_usual, measure
from varad_core.config import VaradConfig
from varad_core.cuda_graph import CudaGraph
from varad_core.ignoring import counting, stored_mask
from varad_core.levelling import level, load_light
from varad_core.model import StationVarAD, VarAD, create_model
from varad_core.scoring import CosineScoring, GaussianScoring, Scoring
from varad_core.tiling import TILES_AT_ONCE, Framing, fuse
from varad_core.tokenizer import (
    Tokenizer,
    create_tokenizer,
    load_tokenizer_tensors,
    to_tensor,
    tokenizer_tensors,
    weights_hash,
)
from varad_core.types import AnomalyResult, BundleError, Limits, VaradError, one_line

ImageRgb = NDArray[np.uint8]
MAX_MAP_CELLS = 256 * 256


def keep_large_buffers() -> None:
    """Have glibc reuse freed memory: page faults on large temporaries cost more than the work."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another libc
        return
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 2**31 - 1)
    mallopt(m_trim_threshold, 2**31 - 1)


class Inspector:
    """Alignment, tokenizer, predictor and scoring in one line. Not thread-safe; one per process or thread.

    Attributes:
        limits: score limits from held-out good parts.
        model_name: the recipe it was trained for.
        model_id: 12 hexadecimal digits, see `Bundle`; empty until saved.
        input_size_px: side of the square the tokenizer sees; see `varad_core.tiling` for how images of any
            size come to it.
        manifest: provenance, as stored.
    """

    def __init__(
        self,
        config: VaradConfig,
        alignment: Alignment,
        tokenizer: Tokenizer,
        model: VarAD,
        scoring: Scoring,
        limits: Limits,
        provenance: Mapping[str, Any],
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.alignment = alignment
        self.device = torch.device(device)
        self.tokenizer = tokenizer.eval().to(self.device)
        self.model = model.eval().to(self.device)
        self.scoring = scoring.to(self.device) if isinstance(scoring, GaussianScoring) else scoring
        self.limits = limits
        self.provenance = dict(provenance)
        self.usual = load_usual(self.provenance.get("conditions", {}))
        self.light = load_light(self.provenance.get("light"))
        self.model_name = str(self.provenance.get("name", ""))
        self.model_id = ""
        self.input_size_px = config.image_size_px
        self.framing = Framing(config)
        self._graph: CudaGraph | None = None  # made when the first picture comes

    @classmethod
    def load(
        cls, path: Path, *, trusted_keys: Path | None, device: str = "auto", threads: int = 0
    ) -> "Inspector":
        """Load, verify and build a model.

        Args:
            path: the bundle.
            trusted_keys: see `load_bundle`.
            device: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`, ...
            threads: CPU threads of this process; 0 leaves torch's own.

        Raises:
            BundleError: see `load_bundle`, or the contents do not fit together.
            VaradError: the device is not there.
        """
        if threads > 0:
            torch.set_num_threads(threads)
        keep_large_buffers()
        bundle = load_bundle(path, trusted_keys)
        device = usable_device(device)
        try:
            manifest = bundle.manifest
            config = VaradConfig.from_dict(manifest["config"])
            tokenizer = create_tokenizer(config.tokenizer, config.image_size_px, pretrained=False)
            load_tokenizer_tensors(tokenizer, _under(bundle.tensors, "tokenizer."))
            model = create_model(config, [(int(c), int(h), int(w)) for c, h, w in manifest["shapes"]])
            model.load_state_dict({k: v.float() for k, v in _under(bundle.tensors, "model.").items()})
            pose = _under(bundle.tensors, "alignment.")
            alignment = stored_mask(load_alignment(manifest["alignment"], pose), pose)
            limits = Limits(**manifest["limits"])
            scoring: Scoring = CosineScoring(config.image_size_px)
            if isinstance(model, StationVarAD):
                statistics = _under(bundle.tensors, "scoring.")
                scoring = GaussianScoring(config.scoring, statistics)
            inspector = cls(
                config, alignment, tokenizer, model, scoring, limits, manifest["provenance"], device
            )
        except torch.OutOfMemoryError as error:
            raise VaradError(
                f"bundle {path}: device {device} has not enough free memory for it; end what else uses it"
            ) from error
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
            raise BundleError(
                f"bundle {path}: its contents do not fit together ({one_line(error)}); train again"
            ) from error
        inspector.model_id = bundle.model_id
        return inspector

    def save(self, path: Path, signing_key: Ed25519PrivateKey, card: Mapping[str, Any] | None = None) -> str:
        """Write the bundle; returns and sets the model id.

        Raises:
            BundleError: it cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for prefix, part in (
            ("tokenizer.", tokenizer_tensors(self.tokenizer)),
            ("model.", self.model.state_dict()),
            ("alignment.", self.alignment.tensors()),
            ("scoring.", self.scoring.tensors()),
        ):
            tensors |= {prefix + name: tensor for name, tensor in part.items()}
        manifest = {
            "config": self.config.to_dict(),
            "shapes": self.provenance["shapes"],
            "alignment": self.alignment.name,
            "tokenizer_sha256": weights_hash(self.tokenizer),
            "limits": asdict(self.limits),
            "provenance": self.provenance,
            "card": dict(card or {}),
        }
        self.model_id = save_bundle(path, tensors, manifest, signing_key=signing_key)
        return self.model_id

    def warm_up(self) -> None:
        """Compile and allocate what the first images would otherwise wait for."""
        blank = np.full((self.input_size_px, self.input_size_px, 3), 128, np.uint8)
        for _ in range(2):
            self.inspect(blank)

    def align(self, image_rgb: ImageRgb) -> Aligned:
        """The part in the pose and the light that the model sees parts in."""
        return level(self.framing.align(self.alignment, image_rgb), self.light)

    @torch.inference_mode()
    def inspect(self, image_rgb: ImageRgb) -> AnomalyResult:
        """Judge one part.

        Args:
            image_rgb: uint8 (H, W, 3), each side at least 16.

        Returns:
            Score and map; the map covers the whole input at its aspect ratio (see `map_shape`) and is 0 where
            the aligned part does not reach, and lowest where nothing counts (see `varad_core.ignoring`).

        Raises:
            ValueError: not such an image.
        """
        if (
            image_rgb.dtype != np.uint8
            or image_rgb.ndim != 3
            or image_rgb.shape[2] != 3
            or min(image_rgb.shape[:2]) < 16
        ):
            raise ValueError(
                f"image must be uint8 (H, W, 3) of at least 16 x 16 (got {image_rgb.dtype} {image_rgb.shape})"
            )
        stages_ms = dict.fromkeys(("align", "tokenize", "predict", "score"), 0.0)
        begun_ns = time.perf_counter_ns()
        aligned = self.align(image_rgb)
        conditions = departures(measure(aligned, image_rgb.shape[:2]), self.usual) if self.usual else {}
        stages_ms["align"] = (time.perf_counter_ns() - begun_ns) / 1e6
        canonical_map = fuse(
            [
                grid.blend(self._tile_maps(tiles, stages_ms) for tiles in grid.cut(layer_rgb))
                for layer_rgb, grid in self.framing.layers(aligned)
            ]
        )
        begun_ns = time.perf_counter_ns()
        if aligned.ignored is not None:
            canonical_map = counting(canonical_map, aligned.ignored, self.framing.beside_px)
        input_cells = self.framing.input_cells(canonical_map.shape, aligned.image_rgb.shape)
        score = float(self.scoring.scores(canonical_map[None], input_cells)[0])
        shape = image_rgb.shape[0], image_rgb.shape[1]
        canonical = canonical_map.float().cpu().numpy()
        anomaly_map = map_to_image(canonical, aligned, shape, map_shape(aligned.image_rgb, shape))
        stages_ms["score"] += (time.perf_counter_ns() - begun_ns) / 1e6
        return AnomalyResult(score, anomaly_map, stages_ms, conditions)

    def _tile_maps(self, tiles_rgb: ImageRgb, stages_ms: dict[str, float]) -> Tensor:
        """Model inputs (B, S, S, 3) -> their maps (B, m, m); adds what each stage took.

        On CUDA the stages are one launch, whose time is the next wait's.
        """
        if self.device.type == "cuda":
            count = len(tiles_rgb)
            if self.framing.sides_px and count < TILES_AT_ONCE:  # one graph serves the last batch, too
                spare = np.repeat(tiles_rgb[-1:], TILES_AT_ONCE - count, axis=0)
                tiles_rgb = np.concatenate([tiles_rgb, spare])
            if self._graph is None:
                self._graph = CudaGraph(self._forward, tiles_rgb.shape, self.device)
            return self._graph(tiles_rgb)[:count]
        times = [time.perf_counter_ns()]
        hierarchies = self.tokenizer(to_tensor(tiles_rgb))
        times.append(time.perf_counter_ns())
        predictions = self.model.predict(self.model.prepare(hierarchies))
        times.append(time.perf_counter_ns())
        maps = self.scoring.maps(predictions)
        times.append(time.perf_counter_ns())
        for index, stage in enumerate(("tokenize", "predict", "score")):
            stages_ms[stage] += (times[index + 1] - times[index]) / 1e6
        return maps

    def _forward(self, tiles_rgb: Tensor) -> Tensor:
        """The same on a GPU; recurrence, prediction and scoring in float32."""
        return self.scoring.maps(self.model.predict(self.model.prepare(self.tokenize_on_gpu(tiles_rgb))))

    def tokenize_on_gpu(self, tiles_rgb: Tensor) -> list[Tensor]:
        """uint8 (B, S, S, 3) on the GPU -> hierarchies (B, C_i, H_i, W_i), by a tokenizer in float16.

        The weights are rounded to float16, see `TimmTokenizer`, and bfloat16's mantissa is shorter. The
        filter bank takes small differences and DINOv3 was not made for half precision: these stay in float32.
        """
        images = tiles_rgb.permute(0, 3, 1, 2).float() / 255
        half = self.config.tokenizer != "descriptors" and not self.config.tokenizer.startswith("dinov3")
        with torch.autocast(self.device.type, torch.float16, enabled=half):
            hierarchies = self.tokenizer(images)
        return [grid.float() for grid in hierarchies]


def usable_device(name: str) -> str:
    """The device of this name, which has been tried; of `auto`: CUDA where there is one.

    Raises:
        VaradError: torch knows none of this name, or it is not there.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA ends in an AssertionError
        raise VaradError(
            f"device {name!r}: torch {torch.__version__} cannot use it ({one_line(error)}); "
            "name auto, cpu, cuda, or cuda:1 and so on"
        ) from error
    return device


def map_shape(canonical_rgb: ImageRgb, image_shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the map for an image: its aspect ratio, at most half the working resolution."""
    cells = min(MAX_MAP_CELLS, canonical_rgb.shape[0] * canonical_rgb.shape[1] / 4)
    share = math.sqrt(cells / (image_shape[0] * image_shape[1]))
    return max(1, round(image_shape[0] * share)), max(1, round(image_shape[1] * share))


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def score_images(inspector: Inspector, images: Sequence[ImageRgb]) -> NDArray[np.float64]:
    """Scores of many images, (n,)."""
    return np.array([inspector.inspect(image).score for image in images], np.float64)
