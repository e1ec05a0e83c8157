"""What `benchmarks.speed` measures of the detector: models fitted in a hurry, and their stages one by one.

How fast a model is does not depend on how well it was trained, so few pictures and few steps do.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import cv2
import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

import varad_core.model
from benchmarks.accuracy import peak_memory_mib
from drivers.buttons import render_part
from varad_core.alignment import map_to_image
from varad_core.config import Preset, TokenizerName, VaradConfig, default_config
from varad_core.inspector import Inspector, map_shape
from varad_core.selective_scan import selective_scan
from varad_core.tokenizer import TimmTokenizer, create_tokenizer, to_tensor
from varad_core.train import train
from varad_core.types import VaradError

FIT_PARTS, FIT_STEPS = 8, 2
FIT_PICTURE_PX = 512
LINE_SEED = 70_041  # of rendered buttons, used for nothing else
JPEG_QUALITY = 95

ImageRgb = NDArray[np.uint8]
Result = TypeVar("Result")


def buttons(count: int, side_px: int, first: int = 0) -> list[ImageRgb]:
    """Rendered good parts, the same in every run."""
    return [
        render_part(
            seed=LINE_SEED, index=index, defect_rate=0.0, width_px=side_px, height_px=side_px
        ).image_rgb
        for index in range(first, first + count)
    ]


def encoded(images_rgb: Sequence[ImageRgb]) -> list[bytes]:
    """The pictures as JPEG files."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return [cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes() for image in images_rgb]


def shown(value: object) -> str:
    """A figure for a table, with three digits or more; - where there is none."""
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def in_own_process(work: Callable[..., Result], *args: Any) -> Result:
    """What `work(*args)` returns in a fresh process with as many CPU threads as this one has.

    So no case finds the heap, the thread pools or the allocator's settings as another left them, and one that
    takes too much memory ends alone.

    Raises:
        VaradError: the process died.
    """
    # Inherited by the process: quiet for anomalib, and waiting threads sleep as in the station's worker.
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spawn = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, spawn, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        try:
            return pool.submit(work, *args).result()
        except BrokenProcessPool as error:
            raise VaradError("its process died, most likely for want of memory") from error


def in_a_hurry(config: VaradConfig) -> VaradConfig:
    """The same model, hardly trained."""
    return replace(config, training=replace(config.training, steps=FIT_STEPS, minutes=0.0, batch_size=1))


@dataclass(frozen=True, slots=True)
class Bundles:
    """Models fitted on rendered buttons when first asked for, and kept as bundles in a folder.

    They are fitted on the CPU and loaded where they are wanted, which is how a station gets its model, too.
    Of a ViT without a file of weights these are drawn at random: they take as long as trained ones.
    """

    folder: Path
    tokenizer: TokenizerName
    weights: Path | None

    def path(self, preset: Preset, image_size_px: int) -> Path:
        path = self.folder / f"{preset}-{image_size_px}.safetensors"
        if not path.is_file():
            config = in_a_hurry(default_config(preset, self.tokenizer, image_size_px))
            pictures = buttons(FIT_PARTS, FIT_PICTURE_PX)
            print(f"fitting {preset} at {image_size_px} px ...", flush=True)
            weights = self.weights
            if "vit" in self.tokenizer and weights is None:
                weights = random_weights(self.folder / "random.safetensors", config)
            inspector = train(pictures, config, name=preset, weights=weights)
            inspector.save(path, Ed25519PrivateKey.generate())
        return path


def random_weights(path: Path, config: VaradConfig) -> Path:
    """A file of a fresh ViT's weights, as timm stores them."""
    torch.manual_seed(0)
    fresh = create_tokenizer(config.tokenizer, config.image_size_px, pretrained=False)
    assert isinstance(fresh, TimmTokenizer)
    save_file({key: value.contiguous() for key, value in fresh.net.state_dict().items()}, path)
    return path


class Stages:
    """`Inspector.inspect` taken apart, for a batch of pictures.

    Each method is one stage; it reads what the one before it left behind, so once they have run in order any
    of them can be run again alone. `decode` and `align` work picture by picture whatever the batch. On CUDA
    the stages are launched one by one, where the Inspector replays all of them as one graph: only `total`
    has that, and not if `eager`.
    """

    IN_ORDER = ("decode", "align", "tokenizer", "predictor", "map", "score")

    def __init__(self, inspector: Inspector, pictures: Sequence[bytes], *, eager: bool = False) -> None:
        self.inspector = inspector
        self.eager = eager
        self.pictures = pictures
        self.scans: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def run_all(self) -> None:
        for name in self.IN_ORDER:
            getattr(self, name)()

    def decode(self) -> None:
        """JPEG in memory to uint8 (H, W, 3), as `varad_core.data.load_image` does."""
        self.images = []
        for picture in self.pictures:
            image_bgr = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
            assert image_bgr is not None
            self.images.append(np.ascontiguousarray(image_bgr[..., ::-1], np.uint8))

    def align(self) -> None:
        """The part in its canonical pose and light."""
        self.aligned = [self.inspector.align(image) for image in self.images]

    def tokenizer(self) -> None:
        """From uint8 on the CPU to hierarchies on the device, at the Inspector's precision there."""
        tiles_rgb, device = np.stack([one.image_rgb for one in self.aligned]), self.inspector.device
        if device.type == "cpu":
            self.hierarchies = self.inspector.tokenizer(to_tensor(tiles_rgb))
            return
        self.hierarchies = self.inspector.tokenize_on_gpu(torch.from_numpy(tiles_rgb).to(device))

    def predictor(self) -> None:
        model = self.inspector.model
        self.predictions = model.predict(model.prepare(self.hierarchies))

    def map(self) -> None:
        """Canonical maps, and each laid over its picture."""
        self.maps: Tensor = self.inspector.scoring.maps(self.predictions)
        canonical_maps = self.maps.float().cpu().numpy()
        self.anomaly_maps = []
        for image, aligned, canonical in zip(self.images, self.aligned, canonical_maps, strict=True):
            shape = image.shape[0], image.shape[1]
            self.anomaly_maps.append(
                map_to_image(canonical, aligned, shape, map_shape(aligned.image_rgb, shape))
            )

    def score(self) -> None:
        self.scores = self.inspector.scoring.scores(self.maps).tolist()

    def record_scans(self) -> bool:
        """Keep the arguments of every recurrence in `predictor` for `scan`; False where there is none."""
        self.scans = []

        def recording(*args: Any, **options: Any) -> Tensor:
            self.scans.append((args, options))
            return selective_scan(*args, **options)

        # Their own arguments rather than made-up ones: the predictor decides about shapes and layout.
        with mock.patch.object(varad_core.model, "selective_scan", recording):
            self.predictor()
        return bool(self.scans)

    def scan(self) -> None:
        """The recurrences of `predictor` alone."""
        for args, options in self.scans:
            selective_scan(*args, **options)

    def judge(self) -> None:
        """All that comes after the tokenizer."""
        self.predictor()
        self.map()
        self.score()

    def total(self) -> None:
        """JPEG to score and map: of one picture by the Inspector itself, else by all stages in turn."""
        if len(self.pictures) == 1 and not self.eager:
            self.decode()
            self.inspector.inspect(self.images[0])
        else:
            self.run_all()


@torch.inference_mode()
def peak_by_stage(bundle: Path, pictures: Sequence[bytes], device: str) -> dict[str, float | None]:
    """Peak memory up to and with each stage, MiB; run it in a process of its own.

    On a CPU the process's resident memory, in which `loaded` is Python, libraries and model. On CUDA what
    torch allocated there.
    """
    stages = Stages(Inspector.load(bundle, trusted_keys=None, device=device), pictures)
    peaks = {"loaded": _peak_mib(device)}
    for name in Stages.IN_ORDER:
        getattr(stages, name)()
        peaks[name] = _peak_mib(device)
    return peaks


def _peak_mib(device: str) -> float | None:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory_mib()
