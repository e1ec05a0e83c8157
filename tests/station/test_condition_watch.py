"""People are told when pictures are not taken as they were at training; verdicts are not touched."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from drivers.types import Trigger
from station.conditions import ENOUGH, PARTS, ConditionWatch, in_words
from station.types import Inspection, Reason, Verdict
from varad_core.types import AnomalyResult

NO_NEWS = 0.1


class Told:
    """The alarms that stand."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}
        self.watch = ConditionWatch(self.alarm, lambda key: self.titles.pop(key, None))

    def alarm(self, key: str, priority: str, title: str, action: str) -> None:
        assert priority == "medium"
        assert action.startswith("check ")
        self.titles[key] = title

    def see(
        self, offs: Sequence[float], name: str = "light", model: str = "m", camera: str = "CAM 1"
    ) -> None:
        for off in offs:
            self.watch.decided(part({name: (off, NO_NEWS)}, model, camera))


def part(conditions: dict[str, tuple[float, float]], model: str = "m", camera: str = "CAM 1") -> Inspection:
    return Inspection(
        trigger=Trigger(1, camera, 0, 0),
        frame=None,
        result=AnomalyResult(0.5, np.zeros((2, 2), np.float32), {}, conditions),
        verdict=Verdict.REJECT,
        reason=Reason.ABOVE_REJECT,
        detail="",
        limits=None,
        model_id=model,
        decided_ns=0,
    )


@pytest.fixture
def told() -> Told:
    return Told()


def test_some_parts_are_needed_and_single_odd_ones_are_no_news(told: Told) -> None:
    told.see([0.2] * (ENOUGH - 1))
    assert not told.titles
    told.see([0.2])
    assert told.titles == {"condition-light": "PICTURES ARE 22% BRIGHTER THAN AT TRAINING"}
    other = Told()
    other.see([0.0, 0.0, 9.9] * PARTS)
    assert not other.titles


def test_the_alarm_follows_the_light_and_ends_well_below_where_it_began(told: Told) -> None:
    told.see([0.11] * PARTS)
    assert told.titles["condition-light"].startswith("PICTURES ARE 12% BRIGHTER")
    told.see([-0.4] * PARTS)
    assert told.titles["condition-light"].startswith("PICTURES ARE 33% DARKER")
    told.see([-0.08] * PARTS)
    assert told.titles, "on the brink it stays"
    told.see([-0.05] * PARTS)
    assert not told.titles


def test_another_model_starts_over(told: Told) -> None:
    told.see([0.2] * PARTS)
    told.see([0.2] * (ENOUGH - 1), model="n")
    assert not told.titles
    told.see([0.2], model="n")
    assert told.titles


def test_parts_that_were_not_inspected_say_nothing(told: Told) -> None:
    for _ in range(PARTS):
        told.watch.decided(replace(part({}), result=None))
        told.see([], name="light")
    told.see([0.2] * (ENOUGH - 1))
    assert not told.titles


def both(first: float, second: float, models: tuple[str, str] = ("m", "n")) -> Inspection:
    """A part that two cameras have seen; the second saw it that much sharper."""
    views = (
        part({"light": (first, NO_NEWS)}, models[0], "CAM 1"),
        part({"sharpness": (second, NO_NEWS)}, models[1], "CAM 2"),
    )
    return replace(views[0], views=views)


def test_of_several_cameras_the_one_is_named(told: Told) -> None:
    for _ in range(ENOUGH):
        told.watch.decided(both(0.0, -0.3))
    assert told.titles == {"condition-CAM 2-sharpness": "CAM 2: PICTURES ARE 26% LESS SHARP THAN AT TRAINING"}


def test_another_model_of_one_camera_leaves_the_others_history(told: Told) -> None:
    for _ in range(ENOUGH):
        told.watch.decided(both(0.2, -0.3))
    told.watch.decided(both(0.2, -0.3, ("another", "n")))
    assert list(told.titles) == ["condition-CAM 2-sharpness"]


@pytest.mark.parametrize(
    ("name", "off", "words"),
    [
        ("light", -0.2, "pictures are 18% darker than at training"),
        ("sharpness", 0.2, "pictures are 22% sharper than at training"),
        ("left_right", -0.06, "parts lie 6% of the picture further left than at training"),
        ("up_down", 0.06, "parts lie 6% of the picture further down than at training"),
        ("size", 0.06, "parts appear 6% larger than at training"),
        ("found", -1.0, "parts are not found, unlike at training"),
    ],
)
def test_words(name: str, off: float, words: str) -> None:
    assert in_words(name, off) == words
