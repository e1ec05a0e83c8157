import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from sklearn.metrics import f1_score, roc_auc_score

from varad_core.metrics import aupro, auroc, average_precision, max_f1


def test_perfect_and_inverted_rankings() -> None:
    labels = np.array([False, False, True, True])
    assert auroc(labels, np.array([0.1, 0.2, 0.3, 0.4])) == 1.0
    assert auroc(labels, np.array([0.4, 0.3, 0.2, 0.1])) == 0.0
    assert average_precision(labels, np.array([0.1, 0.2, 0.3, 0.4])) == 1.0
    assert max_f1(labels, np.array([0.1, 0.2, 0.3, 0.4])) == 1.0


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_against_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[True, False], rng.random(30) < 0.4])
    scores = rng.integers(0, 8, 32).astype(float)
    above = scores[labels][:, None] - scores[~labels]
    assert auroc(labels, scores) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    best = max(f1_score(labels, scores >= threshold) for threshold in scores)
    assert max_f1(labels, scores) == pytest.approx(best)


def test_one_class_alone_is_refused() -> None:
    for metric in (auroc, average_precision, max_f1):
        with pytest.raises(ValueError, match="need good and defective"):
            metric(np.zeros(3, bool), np.arange(3.0))


def _slow_aupro(masks: list[np.ndarray], maps: list[np.ndarray], limit: float) -> float:
    """Every threshold, every region, trapezoids up to the limit."""
    values = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    normal = np.concatenate([m[~k] for k, m in zip(masks, maps, strict=True)])
    regions = []
    for mask, one in zip(masks, maps, strict=True):
        marks, count = label(mask, np.ones((3, 3)))
        regions += [one[marks == i] for i in range(1, count + 1)]
    fpr = np.array([0.0] + [(normal >= t).mean() for t in values])
    pro = np.array([0.0] + [np.mean([(r >= t).mean() for r in regions]) for t in values])
    grid = np.linspace(0, limit, 20001)
    return float(np.trapezoid(np.interp(grid, fpr, pro), grid) / limit)


@pytest.mark.parametrize("quality", [0.0, 0.7, 3.0])
def test_aupro_agrees_with_exhaustive_thresholds(quality: float) -> None:
    rng = np.random.default_rng(4)
    masks, maps = [], []
    for i in range(4):
        mask = np.zeros((30, 40), bool)
        if i:
            mask[3:8, 4 : 6 + 3 * i] = True
            mask[20:22, 30:33] = True
        masks.append(mask)
        maps.append((rng.standard_normal((30, 40)) + quality * mask).astype(np.float32))
    assert aupro(masks, maps) == pytest.approx(_slow_aupro(masks, maps, 0.3), abs=2e-3)


def test_aupro_known_cases() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:9, 5:9] = True
    assert aupro([mask], [mask.astype(np.float32)]) == pytest.approx(1.0, abs=1e-6)
    half = mask.copy()
    half[5:7] = False  # half of the one region found, without a false positive
    # Beyond rate 0 the overlap rises in a straight line from 1/2 at rate 0 to 1 at rate 1.
    assert aupro([mask], [half.astype(np.float32)]) == pytest.approx(0.5 + 0.5 * 0.3 / 2, abs=1e-3)
    with pytest.raises(ValueError, match="defective region"):
        aupro([np.zeros((4, 4), bool)], [np.zeros((4, 4))])


def test_small_regions_weigh_as_much_as_large_ones() -> None:
    mask = np.zeros((40, 40), bool)
    mask[2:22, 2:22] = True
    mask[30:32, 30:32] = True
    only_large = np.zeros((40, 40), np.float32)
    only_large[2:22, 2:22] = 1.0
    assert aupro([mask], [only_large]) < 0.65
    assert roc_auc_score(mask.ravel(), only_large.ravel()) > 0.99
