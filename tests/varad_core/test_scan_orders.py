import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from varad_core.scan import delay, direction_lags, inverse_orders, scan, scan_orders, token_lag, unscan

grids = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 4]))


@given(grids)
def test_every_direction_visits_every_token_once(grid: tuple[int, int, int]) -> None:
    height, width, directions = grid
    orders = scan_orders(height, width, directions)
    assert orders.shape == (directions, height * width)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(height * width).expand(directions, -1))


@given(grids)
def test_unscan_undoes_scan(grid: tuple[int, int, int]) -> None:
    height, width, directions = grid
    orders = scan_orders(height, width, directions)
    tokens = torch.randn(2, height * width, 3)
    back = unscan(scan(tokens, orders), inverse_orders(orders))
    assert torch.equal(back, tokens[:, None].expand(-1, directions, -1, -1))


def test_the_four_directions_are_rows_columns_and_their_reverses() -> None:
    assert scan_orders(2, 3).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]


def test_other_counts_of_directions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 or 4.*8"):
        scan_orders(2, 2, 8)


@settings(max_examples=40)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9))
def test_delay_holds_back_by_its_lag(height: int, width: int, rows: int) -> None:
    sequences = torch.arange(float(4 * height * width)).view(1, 4, -1, 1)
    begin = -1 - torch.arange(4.0).view(4, 1, 1)
    lags = direction_lags(height, width, 4, rows)
    held = delay(sequences, begin, lags)
    for k, lag in enumerate(lags):
        count = min(lag, height * width)
        assert (held[0, k, :count] == begin[k]).all()
        assert torch.equal(held[0, k, count:], sequences[0, k, : height * width - count])


def test_token_lag_is_that_of_the_released_code() -> None:
    assert [token_lag(side, side, 0) for side in (73, 54, 36, 18)] == [256, 192, 128, 64]
    assert [token_lag(73, 73, hierarchy) for hierarchy in range(3)] == [256, 128, 64]
    assert 1 <= token_lag(2, 3, 4) <= token_lag(2, 3, 0) < 6
