import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from varad_core.metrics import AUPRO_BINS, aupro, aupro_binned, auroc, detection, localisation

Masks, Maps = list[NDArray[np.bool_]], list[NDArray[np.float32]]


def _maps(
    seed: int, distinct: int = 0, quality: float = 1.0, shape: tuple[int, int] = (24, 32)
) -> tuple[Masks, Maps]:
    """Random maps of three images, the first of them good; with `distinct` only so many different scores."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros(shape, np.bool_) for _ in range(3)]
    for mask in masks[1:]:
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, shape[0] - 8), rng.integers(0, shape[1] - 8)
            mask[y : y + rng.integers(1, 8), x : x + rng.integers(1, 8)] = True
    maps = [(rng.standard_normal(shape) + quality * mask).astype(np.float32) for mask in masks]
    if distinct:
        maps = [np.round(one * distinct / 8).astype(np.float32) for one in maps]
    return masks, maps


seeds = st.integers(0, 2**31)
ties = st.sampled_from([0, 1, 3, 30])  # 0: none


def test_perfect_and_inverted_rankings() -> None:
    labels = np.array([False, False, True, True])
    perfect = detection(labels, np.array([0.1, 0.2, 0.3, 0.4]))
    assert (perfect.auroc, perfect.ap, perfect.max_f1) == (1.0, 1.0, 1.0)
    assert auroc(labels, np.array([0.4, 0.3, 0.2, 0.1])) == 0.0
    assert auroc(labels, np.zeros(4)) == 0.5


@settings(max_examples=30)
@given(seeds)
def test_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[True, False], rng.random(30) < 0.4])
    scores = rng.integers(0, 8, 32).astype(float)
    found = detection(labels, scores)
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert found.ap == pytest.approx(average_precision_score(labels, scores))
    assert found.max_f1 == pytest.approx(max(f1_score(labels, scores >= threshold) for threshold in scores))


def test_what_has_no_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="need good and defective"):
        detection(np.zeros(3, bool), np.arange(3.0))
    with pytest.raises(ValueError, match="finite"):
        detection(np.array([True, False]), np.array([1.0, np.nan]))
    for metric in (aupro, aupro_binned):
        with pytest.raises(ValueError, match="defective region"):
            metric([np.zeros((4, 4), bool)], [np.zeros((4, 4))])
        with pytest.raises(ValueError, match="normal pixels"):
            metric([np.ones((4, 4), bool)], [np.zeros((4, 4))])


@settings(max_examples=20)
@given(seeds, ties)
def test_monotone_maps_change_nothing(seed: int, distinct: int) -> None:
    masks, maps = _maps(seed, distinct)
    bent = [np.exp(one.astype(np.float64)) for one in maps]
    assert localisation(masks, bent) == localisation(masks, maps)
    assert aupro_binned(masks, bent) == aupro_binned(masks, maps)


def _exhaustive_aupro(masks: Masks, maps: Maps, limit: float) -> float:
    """Every threshold, every region, trapezoids up to the limit, by the definition."""
    values = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    normal = np.concatenate([m[~k] for k, m in zip(masks, maps, strict=True)])
    regions = []
    for mask, one in zip(masks, maps, strict=True):
        marks, count = label(mask, np.ones((3, 3)))
        regions += [one[marks == i] for i in range(1, count + 1)]
    fpr = np.array([0.0] + [(normal >= t).mean() for t in values])
    pro = np.array([0.0] + [np.mean([(r >= t).mean() for r in regions]) for t in values])
    ends = np.searchsorted(fpr, limit, side="right")
    share = (limit - fpr[ends - 1]) / (fpr[ends] - fpr[ends - 1])
    x = np.append(fpr[:ends], limit)
    y = np.append(pro[:ends], pro[ends - 1] + share * (pro[ends] - pro[ends - 1]))
    return float(np.trapezoid(y, x) / limit)


@settings(max_examples=10)
@given(seeds, ties, st.sampled_from([0.05, 0.3]))
def test_aupro_is_that_of_the_definition(seed: int, distinct: int, limit: float) -> None:
    masks, maps = _maps(seed, distinct)
    assert aupro(masks, maps, limit) == pytest.approx(_exhaustive_aupro(masks, maps, limit), abs=1e-9)


@settings(max_examples=20)
@given(seeds, ties, st.sampled_from([0.01, 0.3, 1.0]), st.sampled_from([0.0, 1.0, 4.0]))
def test_binned_aupro_is_within_a_bin_of_the_exact(
    seed: int, distinct: int, limit: float, quality: float
) -> None:
    masks, maps = _maps(seed, distinct, quality, shape=(96, 128))
    assert aupro_binned(masks, maps, limit) == pytest.approx(aupro(masks, maps, limit), abs=1 / AUPRO_BINS)


@settings(max_examples=10)
@given(seeds, ties)
def test_one_sort_gives_the_same_as_each_metric_alone(seed: int, distinct: int) -> None:
    masks, maps = _maps(seed, distinct)
    truth, scores = np.stack(masks).ravel(), np.stack(maps).ravel()
    assert localisation(masks, maps) == (detection(truth, scores), aupro(masks, maps))


def test_aupro_known_cases() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:9, 5:9] = True
    half = mask.copy()
    half[5:7] = False  # half of the one region found, without a false positive
    for metric in (aupro, aupro_binned):
        assert metric([mask], [mask.astype(np.float32)]) == pytest.approx(1.0)
        # Beyond rate 0 the overlap rises in a straight line from 1/2 at rate 0 to 1 at rate 1.
        assert metric([mask], [half.astype(np.float32)]) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_small_regions_weigh_as_much_as_large_ones() -> None:
    mask = np.zeros((40, 40), bool)
    mask[2:22, 2:22] = True
    mask[30:32, 30:32] = True
    only_large = np.zeros((40, 40), np.float32)
    only_large[2:22, 2:22] = 1.0
    found, overlap = localisation([mask], [only_large])
    assert overlap < 0.65
    assert found.auroc > 0.99
