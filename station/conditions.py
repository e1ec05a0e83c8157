"""Watches how pictures are taken, and tells people when that is not as it was when the model was trained.

It changes no verdict. One part says little: the median of the last ones is looked at.
"""

import math
import statistics
import threading
from collections import deque
from collections.abc import Callable

from station.types import Inspection

PARTS = 16
ENOUGH = 8
OVER = 0.7  # of what is no news: an alarm ends below it

_LENS = "check that the lens is clean and in focus, and the camera's gain"
_MOUNT = "check the camera's mount and where parts stop"
ACTIONS = {
    "light": "check lamp, shades and exposure",
    "sharpness": _LENS,
    "left_right": _MOUNT,
    "up_down": _MOUNT,
    "size": _MOUNT,
    "found": _MOUNT,
}


class ConditionWatch:
    """One for all cameras; each has its own history."""

    def __init__(self, alarm: Callable[[str, str, str, str], None], clear: Callable[[str], None]) -> None:
        """Nothing has been seen yet; see `LineHealth.alarm` and `LineHealth.clear`."""
        self._alarm = alarm
        self._clear = clear
        self._lock = threading.Lock()
        self._models: dict[str, str] = {}
        self._seen: dict[tuple[str, str], deque[float]] = {}

    def decided(self, inspection: Inspection) -> None:
        """A part has its verdict. Any thread may call it."""
        views = inspection.views or (inspection,)
        with self._lock:
            for view in views:
                if view.result is not None:
                    self._look(view, view.trigger.camera_id if len(views) > 1 else "")

    def _look(self, view: Inspection, camera: str) -> None:
        assert view.result is not None
        if self._models.get(camera) != view.model_id:  # another model was trained on other pictures
            self._models[camera] = view.model_id
            self._seen = {key: seen for key, seen in self._seen.items() if key[0] != camera}
            for name in ACTIONS:
                self._clear(_key(camera, name))
        for name, (off, no_news) in view.result.conditions.items():
            seen = self._seen.setdefault((camera, name), deque(maxlen=PARTS))
            seen.append(off)
            usual = statistics.median(seen)
            if len(seen) >= ENOUGH and abs(usual) > no_news:
                title = in_words(name, usual).upper()
                title = f"{camera}: {title}" if camera else title
                self._alarm(_key(camera, name), "medium", title, ACTIONS[name])
            elif abs(usual) < OVER * no_news:
                self._clear(_key(camera, name))


def _key(camera: str, name: str) -> str:
    return f"condition-{camera}-{name}" if camera else f"condition-{name}"


def in_words(name: str, off: float) -> str:
    """What is not as it was at training, as a sentence."""
    more = off > 0
    share = f"{abs(math.expm1(off) if name in ('light', 'sharpness', 'size') else off):.0%}"
    match name:
        case "light":
            what = f"pictures are {share} {'brighter' if more else 'darker'} than"
        case "sharpness":
            what = f"pictures are {share} {'sharper' if more else 'less sharp'} than"
        case "size":
            what = f"parts appear {share} {'larger' if more else 'smaller'} than"
        case "left_right":
            what = f"parts lie {share} of the picture further {'right' if more else 'left'} than"
        case "up_down":
            what = f"parts lie {share} of the picture further {'down' if more else 'up'} than"
        case _:
            what = "parts are not found, unlike"
    return f"{what} at training"
