"""A camera above a simulated line of garment buttons, with the faults a real one has.

Each call of `trigger` is one part: part k of the line is `buttons.render_part(seed, index=k)`, whether or not
the camera caught it, and `Grab.device["part_index"]` names it. `Grab.frame_id` counts exposures since `open`.

The next part is rendered on one thread of this camera as soon as the previous picture has been handed out, so
that the time from trigger to picture is the pretended transfer, not the drawing; `close` joins the thread.
"""

import threading
import time
from collections import deque
from collections.abc import Set
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from drivers.buttons import render_part
from drivers.config import SimulatedConfig
from drivers.errors import CameraError, CameraLost, CameraNotFound
from drivers.types import CameraInfo, Grab, ImageRgb

BUFFERS = 10  # exposures held until retrieved; one more is lost, as in a real driver


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
        self._renderer: ThreadPoolExecutor | None = None
        self._closed = threading.Event()
        self._ahead: dict[int, Future[ImageRgb]] = {}  # at most one: the next part
        self._exposures: deque[_Exposure] = deque()
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
        self._closed.clear()
        self._lost = False
        self._frame_id = 0
        self._busy_until_ns = 0
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="simulated")
        self._render(self._part_index).result()
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
        if self._renderer is None:
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
        if part_index in self._faults.lose or len(self._exposures) >= BUFFERS:
            return
        every = self._config.failed_every
        failed = part_index in self._faults.fail or (every > 0 and (frame_id + 1) % every == 0)
        image = None if failed else self._render(part_index)
        self._exposures.append(_Exposure(part_index, frame_id, self._busy_until_ns, image))

    def retrieve(self, timeout_s: float) -> Grab | None:
        """The oldest exposure not handed out yet, or None after `timeout_s` (at once when closed meanwhile).

        Raises:
            CameraLost: the camera was unplugged.
            CameraError: it is not open.
        """
        if self._renderer is None:
            raise CameraError(f"{self._config.camera_id}: retrieve on a closed camera; open it first")
        self._raise_if_lost()
        deadline_ns = time.perf_counter_ns() + round(timeout_s * 1e9)
        if not self._exposures:
            self._closed.wait(timeout_s)
            return None
        exposure = self._exposures[0]
        wait_ns = min(exposure.ready_ns, deadline_ns) - time.perf_counter_ns()
        if (wait_ns > 0 and self._closed.wait(wait_ns / 1e9)) or exposure.ready_ns > deadline_ns:
            return None
        image_rgb: ImageRgb | None = None
        if exposure.image is not None:
            try:
                image_rgb = exposure.image.result(max(0.0, (deadline_ns - time.perf_counter_ns()) / 1e9))
            except FutureTimeoutError:
                return None
        self._exposures.popleft()
        captured_ns = time.perf_counter_ns()
        if not self._exposures:
            self._render(self._part_index)
        return Grab(
            frame_id=exposure.frame_id,
            image_rgb=image_rgb,
            captured_ns=captured_ns,
            error="" if image_rgb is not None else "simulated transfer error: incomplete buffer",
            device={"part_index": exposure.part_index},
        )

    def close(self) -> None:
        """Join the render thread; a `retrieve` in progress returns None."""
        self._closed.set()
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            renderer.shutdown(wait=True, cancel_futures=True)
        self._exposures.clear()
        self._ahead.clear()

    def _raise_if_lost(self) -> None:
        if self._lost:
            raise CameraLost(
                f"{self._config.camera_id}: the simulated camera was unplugged; close and open it again"
            )

    def _render(self, part_index: int) -> Future[ImageRgb]:
        """The picture of a part, begun at the first call for it, forgotten at the first call for another."""
        if part_index not in self._ahead:
            assert self._renderer is not None
            self._ahead = {part_index: self._renderer.submit(self._picture, part_index)}
        return self._ahead[part_index]

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
