import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from varad_core.augmentation import NOISE, Varied, move, sense, vary

Image = NDArray[np.uint8]


def _texture(height: int = 96, width: int = 120, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 4.0)


@given(st.integers(16, 70), st.integers(16, 70), st.integers(0, 1000))
def test_a_copy_has_the_form_of_its_picture_and_depends_on_the_seed_alone(h: int, w: int, seed: int) -> None:
    image = _texture(h, w)
    one, two = (vary(image, np.random.default_rng(seed)) for _ in range(2))
    assert one.shape == image.shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)


def test_pictures_come_first_and_their_copies_in_the_same_order() -> None:
    images = [_texture(seed=seed) for seed in range(3)]
    varied = Varied(images, 2, seed=4)
    assert len(varied) == 9
    assert all(np.array_equal(varied[i], images[i]) for i in range(3))
    for index in range(3, 9):
        likeness = [np.corrcoef(varied[index].ravel(), image.ravel())[0, 1] for image in images]
        assert int(np.argmax(likeness)) == index % 3
    assert not np.array_equal(varied[3], varied[6])
    assert np.array_equal(varied[4], Varied(images, 2, seed=4)[4])
    assert not np.array_equal(varied[4], Varied(images, 2, seed=5)[4])
    assert np.array_equal(varied[-1], varied[8])
    assert [one.shape for one in varied[7:]] == [images[0].shape] * 2
    with pytest.raises(IndexError):
        varied[9]
    assert len(Varied(images, 0, seed=0)) == 3


def test_the_border_is_replicated_never_reflected() -> None:
    image = np.full((64, 64, 3), 200, np.uint8)
    image[8:56, 8:56] = 20  # a reflection would bring the dark part back outside
    moved = move(image, scale=0.5)
    assert (moved[0] == 200).all()
    assert (moved[:, -1] == 200).all()


def test_a_turn_and_its_inverse_leave_the_middle_as_it_was() -> None:
    image = _texture()
    back = move(move(image, turn_deg=5.0), turn_deg=-5.0)
    assert np.abs(back[24:-24, 24:-24].astype(int) - image[24:-24, 24:-24]).mean() < 2


@given(st.floats(0.8, 1.2))
def test_light_scales_the_picture(gain: float) -> None:
    seen = sense(np.full((16, 16, 3), 100, np.uint8), np.random.default_rng(0), gain=gain)
    assert abs(float(seen.mean()) - 100 * gain) <= 0.5


def test_noise_has_the_deviation_it_says_and_blur_keeps_the_level() -> None:
    flat = np.full((128, 128, 3), 120, np.uint8)
    noisy = sense(flat, np.random.default_rng(0), noise=NOISE)
    assert float(noisy.std()) == pytest.approx(NOISE, rel=0.05)
    texture = _texture()
    blurred = sense(texture, np.random.default_rng(0), blur_px=1.0)
    assert float(blurred.mean()) == pytest.approx(float(texture.mean()), abs=0.5)
    assert blurred.std() < texture.std()
