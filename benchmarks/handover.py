"""From a camera's buffer to where the worker reads the picture: written once, or copied on the way.

pylon's emulator at three pixel formats. "Once" is the station's way; the reference takes the buffer out of
pylon, converts it, and copies it to the worker, as a station would that knows nothing of shared memory.
"""

import argparse
import os
import statistics
import time
from functools import partial
from typing import Any

import cv2
import numpy as np

from benchmarks.reporting import print_table
from drivers.config import PylonConfig
from drivers.pylon.api import pylon
from drivers.pylon.camera import EMULATOR_CLASS
from drivers.pylon.pictures import BUFFERS, Pictures, pictures_of
from drivers.pylon.settings import CameraSettings
from drivers.types import ImageRgb
from station.slab import Slab

FORMATS = {"RGB8Packed": None, "BayerRG8": cv2.COLOR_BayerRGGB2RGB, "Mono8": cv2.COLOR_GRAY2RGB}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=int, default=100, help="of each kind (default: 100)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1280, 1024, 2448, 2048], metavar="PX")


def run(args: argparse.Namespace) -> dict[str, Any]:
    cases = []
    for width_px, height_px in zip(args.sizes[::2], args.sizes[1::2], strict=True):
        for pixel_format in FORMATS:
            times = measured(width_px, height_px, pixel_format, args.pictures)
            case: dict[str, Any] = {
                "width_px": width_px,
                "height_px": height_px,
                "pixel_format": pixel_format,
            }
            for way, times_ms in times.items():
                case[way] = np.percentile(times_ms, [50, 90]).round(3).tolist()
            ratios = [one / copied for one, copied in zip(times["once"], times["copied"], strict=True)]
            cases.append(case | {"ratio": round(statistics.median(ratios), 3)})
    rows = [
        [
            f"{case['width_px']}x{case['height_px']} {case['pixel_format']}",
            *(f"{case[way][0]:.2f} / {case[way][1]:.2f}" for way in ("once", "copied")),
            f"{case['ratio']:.2f}",
        ]
        for case in cases
    ]
    print_table(["buffer to worker, ms p50 / p90", "once", "copied", "median ratio"], rows)
    return {"cases": cases}


def measured(width_px: int, height_px: int, pixel_format: str, pictures: int) -> dict[str, list[float]]:
    """Milliseconds of each picture, the ways in turns, each with an emulated camera and a slab of its own."""
    config = PylonConfig(width_px=width_px, height_px=height_px, exposure_us=100, pixel_format=pixel_format)
    slabs = {"once": Slab.create(), "copied": Slab.create()}
    cameras = {way: opened(config, index) for index, way in enumerate(slabs)}
    make = pictures_of(cameras["once"], pixel_format, slabs["once"].lend)
    cameras["copied"].MaxNumBuffer.Value = BUFFERS
    ways: dict[str, Pictures] = {
        "once": make,
        "copied": partial(copied, FORMATS[pixel_format], slabs["copied"]),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for camera in cameras.values():
        camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
    for number in range(pictures + 1):
        for way, handed_over in ways.items():
            cameras[way].WaitForFrameTriggerReady(5000, pylon.TimeoutHandling_ThrowException)
            cameras[way].TriggerSoftware.Execute()
            result = cameras[way].RetrieveResult(5000, pylon.TimeoutHandling_ThrowException)
            begun_ns = time.perf_counter_ns()
            image_rgb = handed_over(result)
            if number:  # the first one fills the memory
                times[way].append((time.perf_counter_ns() - begun_ns) / 1e6)
            del image_rgb, result
    for camera in cameras.values():
        camera.StopGrabbing()
        camera.DestroyDevice()
    for slab in slabs.values():
        slab.close()
    return times


def opened(config: PylonConfig, index: int) -> Any:
    os.environ["PYLON_CAMEMU"] = "2"
    factory = pylon.TlFactory.GetInstance()
    emulated = [d for d in factory.EnumerateDevices() if d.GetDeviceClass() == EMULATOR_CLASS]
    camera = pylon.InstantCamera(factory.CreateDevice(emulated[index]))
    camera.Open()
    CameraSettings(camera, config).apply()
    return camera


def copied(code: int | None, slab: Slab, result: Any) -> ImageRgb:
    """The reference: pypylon's copy of the buffer, its conversion, and a copy of that for the worker."""
    array = result.Array
    result.Release()
    image_rgb = array if code is None else np.asarray(cv2.cvtColor(array, code), np.uint8)
    slab.image(0, *image_rgb.shape[:2])[:] = image_rgb
    return image_rgb
