"""Scan directions: the orders in which a grid of tokens becomes a sequence, and their exact inverses.

H, W: rows and columns of the grid; L = H * W tokens; K directions.
"""

import torch
from torch import Tensor

DIRECTIONS = (1, 4)


def scan_orders(height: int, width: int, directions: int = 4) -> Tensor:
    """Row-major, column-major and both reversed (the paper's four), or row-major alone.

    Returns:
        int64 (K, L): entry (k, l) is the row-major index of the token that direction k visits in place l.

    Raises:
        ValueError: `directions` is neither 1 nor 4.
    """
    if directions not in DIRECTIONS:
        raise ValueError(f"directions must be 1 or 4 (got {directions})")
    grid = torch.arange(height * width).view(height, width)
    rows, columns = grid.reshape(-1), grid.t().reshape(-1)
    return torch.stack([rows, columns, rows.flip(0), columns.flip(0)][:directions])


def inverse_orders(orders: Tensor) -> Tensor:
    """For (K, L) permutations, those that undo them: `sequence[order][inverse] == sequence`."""
    return torch.argsort(orders, dim=1)


def direction_lags(height: int, width: int, directions: int, lag_rows: int) -> list[int]:
    """The lag M of each direction in tokens: `lag_rows` lines of its own grid, at most all but one line."""
    row_lag = width * max(1, min(lag_rows, height - 1))
    column_lag = height * max(1, min(lag_rows, width - 1))
    return ([row_lag, column_lag] * directions)[:directions]


def token_lag(height: int, width: int, hierarchy: int) -> int:
    """The released code's lag M in tokens, the same along every direction.

    64 for each 18 tokens of the grid's side (256 at 1022 px, 192 at 756, 128 at 504, 64 at 252 with 14 px a
    token), halved from one hierarchy (0, 1, ...) to the next; smaller grids in proportion.
    """
    side = max(height, width)
    first = 64 * round(side / 18) or round(64 * side / 18)
    return max(1, min(first >> hierarchy, height * width - 1))


def scan(tokens: Tensor, orders: Tensor) -> Tensor:
    """Lay a grid's tokens out along each direction: (B, L, C) -> (B, K, L, C)."""
    return tokens[:, orders]


def unscan(sequences: Tensor, inverses: Tensor) -> Tensor:
    """Bring each direction's sequence back to row-major order: (B, K, L, C) -> (B, K, L, C)."""
    index = inverses[None, :, :, None].expand(sequences.shape[0], -1, -1, sequences.shape[3])
    return sequences.gather(2, index)


def delay(sequences: Tensor, begin: Tensor, lags: list[int]) -> Tensor:
    """Shift each direction by its lag, so that place l holds token l - M; `begin` fills the first M places.

    Args:
        sequences: (B, K, L, C).
        begin: (K, 1, C) or (K, M, C) with M at least the largest lag.
        lags: M of each direction, in tokens.

    Returns:
        (B, K, L, C).
    """
    length = sequences.shape[2]
    shifted = []
    for k, lag in enumerate(lags):
        places = min(lag, length)
        first = begin[k, :places] if begin.shape[1] > 1 else begin[k].expand(places, -1)
        head = first.expand(sequences.shape[0], -1, -1)
        shifted.append(torch.cat([head, sequences[:, k, : length - places]], dim=1))
    return torch.stack(shifted, dim=1)
