"""A camera above a simulated line of garment buttons, with the faults a real one has.

Each call of `trigger` is one part: part k of the line is `buttons.render_part(seed, index=k)`, whether or not
the camera caught it, and `Grab.device["part_index"]` names it. `Grab.frame_id` counts exposures since `open`.

The next part is rendered on one thread of this camera as soon as the previous picture has been handed out, so
that the time from trigger to picture is the pretended transfer, not the drawing; `close` joins the thread.
"""

import time
from collections.abc import Set
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from drivers.ahead import Ahead
from drivers.buttons import render_part
from drivers.config import SimulatedConfig
from drivers.errors import CameraError, CameraLost, CameraNotFound
from drivers.types import CameraInfo, Grab, ImageRgb


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFaults:
    """What goes wrong and when, by part index (the number of `trigger` calls before it).

    Attributes:
        fail: these exposures arrive as failed buffers.
        lose: these never arrive and leave a gap in `frame_id`.
        wrong_size: these arrive with half their rows.
        disappear: at these it is unplugged: `retrieve`, then `trigger`, raise CameraLost until reopened.
        absent_opens: after a disappearance so many `open` calls fail before the camera is back.
    """

    fail: Set[int] = frozenset()
    lose: Set[int] = frozenset()
    wrong_size: Set[int] = frozenset()
    disappear: Set[int] = frozenset()
    absent_opens: int = 0


@dataclass(frozen=True, slots=True)
class _Exposure:
    part_index: int
    frame_id: int
    ready_ns: int
    image: Future[ImageRgb] | None  # None: the buffer failed


class SimulatedCamera:
    """See the module's docstring and `drivers.camera.Camera`."""

    def __init__(self, config: SimulatedConfig, faults: SimulatedFaults | None = None) -> None:
        """Nothing is rendered and no thread started before `open`."""
        self._config = config
        self._faults = faults or SimulatedFaults()
        self._ahead: Ahead[ImageRgb] | None = None  # None while closed
        self._exposure: _Exposure | None = None
        self._part_index = 0  # of the next trigger; goes on across reopening, as the line does
        self._frame_id = 0
        self._busy_until_ns = 0
        self._lost = False
        self._opens_to_fail = 0

    def open(self) -> CameraInfo:
        """Start the render thread and draw the first part; about half a second, once per image size."""
        self.close()
        config = self._config
        if self._opens_to_fail:
            self._opens_to_fail -= 1
            raise CameraNotFound(f"{config.camera_id}: the simulated camera is still unplugged; try again")
        self._lost = False
        self._frame_id = 0
        self._busy_until_ns = 0
        self._ahead = Ahead(self._picture, "simulated")
        try:
            self._ahead.begin(self._part_index).result()
        except BaseException:
            self.close()
            raise
        return CameraInfo(
            camera_id=config.camera_id,
            model="Simulated button line",
            serial=f"SIM-{config.seed}",
            width_px=config.width_px,
            height_px=config.height_px,
        )

    def trigger(self) -> None:
        """Never blocks.

        Raises:
            CameraLost: the camera was unplugged.
            CameraError: it is not open, or still busy with the previous exposure; the part is missed.
        """
        if self._ahead is None:
            raise CameraError(f"{self._config.camera_id}: trigger on a closed camera; open it first")
        part_index = self._part_index
        self._part_index += 1
        self._raise_if_lost()
        now_ns = time.perf_counter_ns()
        if now_ns < self._busy_until_ns:
            left_ms = (self._busy_until_ns - now_ns) / 1e6
            raise CameraError(
                f"{self._config.camera_id}: trigger refused, busy for another {left_ms:.1f} ms (transfer "
                f"takes {self._config.transfer_ms} ms); part {part_index} is missed, trigger more slowly"
            )
        if part_index in self._faults.disappear:
            self._lost = True
            self._opens_to_fail = self._faults.absent_opens
            return  # as with pylon: the trigger of an unplugged camera raises nothing
        frame_id = self._frame_id
        self._frame_id += 1
        self._busy_until_ns = now_ns + round(self._config.transfer_ms * 1e6)
        self._exposure = None
        if part_index in self._faults.lose:
            return
        every = self._config.failed_every
        failed = part_index in self._faults.fail or (every > 0 and (frame_id + 1) % every == 0)
        image = None if failed else self._ahead.begin(part_index)
        self._exposure = _Exposure(part_index, frame_id, self._busy_until_ns, image)

    def retrieve(self, timeout_s: float) -> Grab | None:
        """The last trigger's picture, or None when it has not arrived after `timeout_s`.

        Raises:
            CameraLost: the camera was unplugged.
            CameraError: it is not open.
        """
        if self._ahead is None:
            raise CameraError(f"{self._config.camera_id}: retrieve on a closed camera; open it first")
        self._raise_if_lost()
        deadline_ns = time.perf_counter_ns() + round(timeout_s * 1e9)
        exposure = self._exposure
        if exposure is None or exposure.ready_ns > deadline_ns:
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, (exposure.ready_ns - time.perf_counter_ns()) / 1e9))
        image_rgb: ImageRgb | None = None
        if exposure.image is not None:
            try:
                image_rgb = exposure.image.result(max(0.0, (deadline_ns - time.perf_counter_ns()) / 1e9))
            except FutureTimeoutError:
                return None
        captured_ns = time.perf_counter_ns()
        self._exposure = None
        self._ahead.begin(self._part_index)
        return Grab(
            frame_id=exposure.frame_id,
            image_rgb=image_rgb,
            captured_ns=captured_ns,
            error="" if image_rgb is not None else "simulated transfer error: incomplete buffer",
            device={"part_index": exposure.part_index},
        )

    def close(self) -> None:
        """Join the render thread."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
        self._exposure = None

    def _raise_if_lost(self) -> None:
        if self._lost:
            raise CameraLost(
                f"{self._config.camera_id}: the simulated camera was unplugged; close and open it again"
            )

    def _picture(self, part_index: int) -> ImageRgb:
        config = self._config
        image_rgb = render_part(
            seed=config.seed,
            index=part_index,
            defect_rate=config.defect_rate,
            width_px=config.width_px,
            height_px=config.height_px,
            material=config.material,
        ).image_rgb
        return image_rgb[: config.height_px // 2] if part_index in self._faults.wrong_size else image_rgb
