"""The memory that engine and worker share."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from station.slab import PICTURE_BYTES, ROOMS, SLOTS, Slab

Bytes = NDArray[np.uint8]


@pytest.fixture
def slab(no_leaks: None) -> Iterator[Slab]:
    made = Slab.create()
    yield made
    made.close()


def test_slab_rooms_and_slots_do_not_touch_and_two_mappings_share_memory(slab: Slab) -> None:
    other = Slab(os.dup(slab.fd))
    try:
        for number in range(ROOMS):
            slab.image(number, 2, 5)[:] = number
        for number in range(SLOTS):
            slab.anomaly_map(number, 3, 3)[:] = number + 0.5
        assert all((other.image(number, 2, 5) == number).all() for number in range(ROOMS))
        assert all((other.anomaly_map(number, 3, 3) == number + 0.5).all() for number in range(SLOTS))
        for shape in ((0, 5), (2, -5), (10_000, 10_000)):
            with pytest.raises(ValueError, match="does not fit room"):
                slab.image(0, *shape)
            with pytest.raises(ValueError, match="does not fit slot"):
                slab.anomaly_map(0, *shape)
        with pytest.raises(ValueError, match=f"does not fit room {ROOMS}"):
            slab.image(ROOMS, 1, 1)
        with pytest.raises(ValueError, match=f"does not fit slot {SLOTS}"):
            slab.anomaly_map(SLOTS, 1, 1)
    finally:
        other.close()


def test_a_picture_lies_in_its_room_and_one_elsewhere_in_none(slab: Slab) -> None:
    picture = slab.lend(4 * 5 * 3).reshape(4, 5, 3)
    room = slab.room_of(picture)
    assert room is not None
    assert room >= SLOTS
    picture[:] = 7
    assert (slab.image(room, 4, 5) == 7).all()
    assert slab.room_of(picture[1:]) is None
    assert slab.room_of(picture[:, ::2]) is None
    assert slab.room_of(np.zeros((4, 5, 3), np.uint8)) is None


def test_more_pictures_than_rooms_lie_in_ordinary_memory(slab: Slab) -> None:
    pictures = [slab.lend(3).reshape(1, 1, 3) for _ in range(ROOMS)]
    rooms = [slab.room_of(picture) for picture in pictures]
    assert set(rooms[: ROOMS - SLOTS]) == set(range(SLOTS, ROOMS))
    assert rooms[ROOMS - SLOTS :] == [None] * SLOTS
    pictures.pop(3)
    assert slab.room_of(slab.lend(3).reshape(1, 1, 3)) == rooms[3]
    pictures.clear()


def test_what_no_room_could_hold_lies_in_ordinary_memory(slab: Slab) -> None:
    picture = slab.lend(PICTURE_BYTES + 3)
    assert picture.size == PICTURE_BYTES + 3
    assert slab.room_of(picture) is None


@given(st.lists(st.tuples(st.sampled_from(["lend", "cut", "drop"]), st.integers(0, 30)), max_size=60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_room_is_lent_again_while_anybody_refers_to_any_part_of_it(
    slab: Slab, steps: list[tuple[str, int]]
) -> None:
    held: list[tuple[int, Bytes]] = []
    for number, (step, which) in enumerate(steps):
        if step == "lend" or not held:
            held.append((number, slab.lend(12).reshape(2, 2, 3)))
            held[-1][1][:] = number
        else:
            said, pixels = held.pop(which % len(held))
            if step == "cut":
                held.append((said, pixels.reshape(-1)[len(pixels.reshape(-1)) // 2 :]))
            del pixels
        assert all((pixels == said).all() for said, pixels in held)
    held.clear()
    lent = [slab.lend(3).reshape(1, 1, 3) for _ in range(ROOMS - SLOTS)]
    assert {slab.room_of(one) for one in lent} == set(range(SLOTS, ROOMS))
    lent.clear()
