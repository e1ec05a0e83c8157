import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.genapi import FrameIds, same_value, settings_of


@given(start=st.integers(1, 65535), steps=st.lists(st.integers(1, 1000), max_size=200))
def test_ids_rise_by_what_the_device_counted_across_wraps(start: int, steps: list[int]) -> None:
    ids = FrameIds()
    count = start
    last = ids.of(start)
    for step in steps:
        count += step
        frame_id = ids.of((count - 1) % 65535 + 1)  # GigE Vision 1.x: 1 to 65535, never 0
        assert frame_id - last == step
        last = frame_id


@given(runs=st.lists(st.integers(1, 50), min_size=1, max_size=5), first=st.integers(0, 1))
def test_ids_rise_across_restarts_of_grabbing(runs: list[int], first: int) -> None:
    ids = FrameIds()
    seen = []
    for run in runs:
        seen += [ids.of(first + block) for block in range(run)]
        ids.restart()
    assert seen == sorted(set(seen))


def test_settings_keep_their_selectors() -> None:
    text = "# {GUID}\n# GenApi\nWidth\t160\nTriggerMode\t{TriggerSelector=FrameStart}\tOn\n\nGamma\t1.0\n"
    trigger_mode = "TriggerMode\t{TriggerSelector=FrameStart}"
    assert settings_of(text) == {"Width": "160", trigger_mode: "On", "Gamma": "1.0"}


@pytest.mark.parametrize(
    ("wanted", "actual", "same"),
    [
        ("10000.0", "10000", True),
        ("1e4", "10000.5", True),
        ("10000", "10100", False),
        ("Mono8", "Mono8", True),
        ("Mono8", "RGB8Packed", False),
        ("0", "Off", False),
    ],
)
def test_numbers_compare_as_numbers(wanted: str, actual: str, same: bool) -> None:
    assert same_value(wanted, actual) is same
