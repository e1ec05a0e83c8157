"""VarAD, top to bottom: a grid of frozen tokens is read in several directions by selective state-space
models, and each token is predicted from those that came at least one lag before it. On good parts the
prediction comes true.

Cao, Yao, Luo, Shen, "VarAD", IEEE TII 21(4) 2025, doi 10.1109/TII.2024.3523574. What is said of the released
code comes from a description of it.

Symbols
    B   batch             C   channels of a token       K   scan directions
    H W grid of tokens    L   H * W tokens              M   lag: token l is predicted from tokens up to l - M
    E   inner width       N   states per channel        R   rank of the step size dt

Both presets are causal by construction: sequences are delayed by M *before* the first mixing along them, and
directions are merged only after the last. So token l reaches its own prediction in no direction. (A `station`
token is the mean of 3 x 3 of the tokenizer's, so with a lag of one row neighbours share some of them, as a
backbone's tokens share pixels. A lag of 3 rows parts them; the ablation shows what that changes.)
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varad_core.config import PredictorConfig, VaradConfig
from varad_core.scan import delay, direction_lags, inverse_orders, scan, scan_orders, token_lag, unscan
from varad_core.selective_scan import selective_scan

GridShape = tuple[int, int, int]  # (C, H, W)
Prediction = tuple[Tensor, Tensor]  # predicted and true tokens, both (B, C, H, W)


def to_sequence(grid: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, L, C)."""
    return grid.flatten(2).transpose(1, 2)


def to_grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, L, C) -> (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, width)


class DirectionalScan(nn.Module):
    """The selective recurrence along K sequences at once, each with its own dt, A, B, C and D."""

    def __init__(self, width: int, directions: int, d_state: int, dt_rank: int) -> None:
        super().__init__()
        K, E, N, R = directions, width, d_state, dt_rank
        self.splits = [R, N, N]
        self.x_proj = nn.Parameter(torch.randn(K, R + 2 * N, E) * E**-0.5)
        self.dt_proj = nn.Parameter((torch.rand(K, E, R) * 2 - 1) * R**-0.5)
        dt = torch.exp(torch.empty(K * E).uniform_(-6.9, -2.3))  # 1e-3 to 1e-1, as in Mamba
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        self.A_log = nn.Parameter(torch.arange(1.0, N + 1).log().repeat(K * E, 1))
        self.D = nn.Parameter(torch.ones(K * E))

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, E, L) -> (B, K, E, L)."""
        B, K, E, L = x.shape
        dt, b, c = torch.split(torch.matmul(self.x_proj, x), self.splits, dim=2)  # (B, K, R | N | N, L)
        delta = torch.matmul(self.dt_proj, dt)  # (B, K, E, L)
        y = selective_scan(
            x.reshape(B, K * E, L),
            delta.reshape(B, K * E, L),
            -torch.exp(self.A_log),
            b.contiguous(),
            c.contiguous(),
            self.D,
            delta_bias=self.dt_bias,
            delta_softplus=True,
        )
        return y.view(B, K, E, L)


# ---- preset `paper`


class Adapter(nn.Module):
    """F' = phi(F) + F, phi a 1x1 convolution, then unit length over channels (as in the released code)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.phi = nn.Conv2d(channels, channels, 1)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.normalize(self.phi(grid) + grid, dim=1)


class VisualStateSpaceBlock(nn.Module):
    """One hierarchy's predictor: norm, in-projection, K delayed scans, sum, norm, gate, out-projection, MLP.

    There is no convolution, no position encoding and no skip round the scan: a skip would hand token l its
    own value. The gate is delayed like the scanned branch, and for the same reason.
    """

    def __init__(self, shape: GridShape, lag: int, config: PredictorConfig) -> None:
        super().__init__()
        C, self.height, self.width = shape
        E = 2 * C
        orders = scan_orders(self.height, self.width, config.directions)
        self.lags = [lag] * config.directions
        self.register_buffer("orders", orders, persistent=False)
        self.register_buffer("inverses", inverse_orders(orders), persistent=False)
        # Random and not learned, as in the released code, but stored with the model: there they were lost on
        # reload.
        begin = F.normalize(torch.randn(config.directions, lag, C), dim=-1)
        self.register_buffer("begin", begin)
        self.norm = nn.LayerNorm(C)
        self.in_proj = nn.Linear(C, 2 * E, bias=False)
        self.scan = DirectionalScan(E, config.directions, config.d_state, config.dt_rank)
        self.out_norm = nn.LayerNorm(E)
        self.out_proj = nn.Linear(E, C, bias=False)
        self.mlp = nn.Sequential(nn.LayerNorm(C), nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) -> predicted (B, C, H, W)."""
        sequences = scan(to_sequence(grid), self.get_buffer("orders"))  # (B, K, L, C)
        sequences = delay(sequences, self.get_buffer("begin"), self.lags)  # place l holds token l - M
        x, gate = self.in_proj(self.norm(sequences)).chunk(2, dim=-1)  # (B, K, L, E) each
        y = self.scan(F.silu(x).transpose(2, 3)).transpose(2, 3)  # (B, K, L, E)
        y = unscan(y, self.get_buffer("inverses")).sum(1)  # (B, L, E)
        gate = unscan(gate, self.get_buffer("inverses")).sum(1)  # (B, L, E)
        hidden = self.out_proj(self.out_norm(y) * F.silu(gate))  # (B, L, C)
        hidden = hidden + self.mlp(hidden)
        return to_grid(hidden, self.height, self.width)


def cosine_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """(1 - cosine over channels) + (1 - cosine over positions), means; (B, C, H, W) each."""
    over_channels = 1 - F.cosine_similarity(predicted, target, dim=1)
    over_positions = 1 - F.cosine_similarity(predicted.flatten(2), target.flatten(2), dim=2)
    return over_channels.mean() + over_positions.mean()


class PaperVarAD(nn.Module):
    """The published method: an adapter and a predictor block per hierarchy.

    Where text and code differ, the code is followed: unit-length tokens, random begin tokens, a lag counted
    in tokens (`token_lag`) where the text has rows, and a target that is not detached unless
    `PredictorConfig.detach_target` asks for it.
    """

    def __init__(self, shapes: Sequence[GridShape], config: PredictorConfig) -> None:
        super().__init__()
        self.detach_target = config.detach_target
        self.adapters = nn.ModuleList(Adapter(shape[0]) for shape in shapes)
        self.blocks = nn.ModuleList(
            VisualStateSpaceBlock(shape, token_lag(*shape[1:], hierarchy), config)
            for hierarchy, shape in enumerate(shapes)
        )

    def fit_tokens(self, hierarchies: Sequence[Tensor]) -> None:
        """Nothing to fit: the adapter learns."""

    def prepare(self, hierarchies: Sequence[Tensor]) -> list[Tensor]:
        """What training caches: the tokenizer's own output."""
        return list(hierarchies)

    def predict(self, prepared: Sequence[Tensor]) -> list[Prediction]:
        """Predicted and adapted tokens of each hierarchy."""
        predictions = []
        for grid, adapter, block in zip(prepared, self.adapters, self.blocks, strict=True):
            adapted = adapter(grid)  # (B, C, H, W)
            predictions.append((block(adapted), adapted))
        return predictions

    def loss(self, prepared: Sequence[Tensor]) -> Tensor:
        """Summed over hierarchies."""
        losses = [
            cosine_loss(predicted, target.detach() if self.detach_target else target)
            for predicted, target in self.predict(prepared)
        ]
        return torch.stack(losses).sum()


# ---- preset `station`


def pack_hierarchies(hierarchies: Sequence[Tensor]) -> Tensor:
    """One grid out of several: finer ones are folded, 2x2 fine tokens to one place of the coarsest.

    Args:
        hierarchies: (B, C_i, H_i, W_i), fine to coarse; sizes differ by whole factors.

    Returns:
        (B, C, H, W) on the grid of the coarsest hierarchy, C = sum of C_i * (H_i / H)^2.
    """
    height = hierarchies[-1].shape[2]
    return torch.cat([F.pixel_unshuffle(grid, grid.shape[2] // height) for grid in hierarchies], dim=1)


def unpack_hierarchies(packed: Tensor, shapes: Sequence[GridShape]) -> Tensor:
    """Packed tokens as one grid as fine as the finest hierarchy, where coarser tokens are repeated.

    Args:
        packed: (B, C, H, W), see `pack_hierarchies`.
        shapes: of the hierarchies that were packed.

    Returns:
        (B, sum of C_i, H_0, W_0).
    """
    tokens = packed.permute(0, 2, 3, 1)  # (B, H, W, C)
    B, H, W, _ = tokens.shape
    finest = shapes[0][1] // H
    folds = [rows // H for _, rows, _ in shapes]
    folded = tokens.split([C * fold**2 for (C, _, _), fold in zip(shapes, folds, strict=True)], dim=3)
    fine = packed.new_empty(B, H * finest, W * finest, sum(C for C, _, _ in shapes))  # as scoring reads it
    filled = 0
    for one, fold, (C, _, _) in zip(folded, folds, shapes, strict=True):
        cells = one.unflatten(3, (C, fold, fold)).permute(0, 1, 4, 2, 5, 3)  # (B, H, fold, W, fold, C)
        places = fine.narrow(3, filled, C).unflatten(2, (W, fold, -1)).unflatten(1, (H, fold, -1))
        places.copy_(cells[:, :, :, None, :, :, None])
        filled += C
    return fine.permute(0, 3, 1, 2)


def packed_shape(shapes: Sequence[GridShape]) -> GridShape:
    """The shape `pack_hierarchies` gives, without the batch."""
    _, H, W = shapes[-1]
    return sum(channels * (rows // H) ** 2 for channels, rows, _ in shapes), H, W


class Whitening(nn.Module):
    """Fixed linear map to the tokens' first principal components, each of unit variance.

    Fitted once on the training tokens. The components left out are mostly noise: brought to unit variance as
    well, they would drown the others.
    """

    def __init__(self, channels: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("matrix", torch.eye(channels, components))

    @torch.no_grad()
    def fit(self, tokens: Tensor, floor: float = 1e-3) -> None:
        """Fit on (n, C). Variances under `floor` times their mean are noise and lifted to it."""
        mean = tokens.mean(0)
        centred = tokens - mean
        covariance = (centred.t() @ centred).double() / max(1, len(tokens) - 1)
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp_min(floor * float(values.mean()) + 1e-12)
        matrix = self.get_buffer("matrix")
        self.get_buffer("mean").copy_(mean)
        matrix.copy_((vectors * values.rsqrt())[:, -matrix.shape[1] :])  # eigh sorts from the weakest

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> (..., components)."""
        return (tokens - self.get_buffer("mean")) @ self.get_buffer("matrix")


def along(linear: nn.Linear, sequences: Tensor) -> Tensor:
    """`linear`, which has no bias, at each place of (B, K, C, L) -> (B, K, C', L)."""
    B, K, _, L = sequences.shape
    weight = linear.weight.expand(B * K, -1, -1)
    return torch.bmm(weight, sequences.flatten(0, 1)).view(B, K, -1, L)


class ScanLayer(nn.Module):
    """A Mamba layer over K sequences: shared projections, own recurrences, no mixing between directions."""

    def __init__(self, d_model: int, config: PredictorConfig) -> None:
        super().__init__()
        E = 2 * d_model
        self.norm = nn.LayerNorm(d_model)
        self.in_proj = nn.Linear(d_model, 2 * E, bias=False)
        self.scan = DirectionalScan(E, config.directions, config.d_state, config.dt_rank)
        self.out_proj = nn.Linear(E, d_model, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, K, L, C) -> (B, K, L, C)."""
        tokens = self.norm(hidden).transpose(2, 3)  # (B, K, C, L), as the recurrence reads
        x, gate = along(self.in_proj, tokens).chunk(2, dim=2)  # (B, K, E, L) each
        out = along(self.out_proj, self.scan(F.silu(x)) * F.silu(gate))  # (B, K, C, L)
        return hidden + out.transpose(2, 3)


def place_means(tokens: Tensor) -> Tensor:
    """The mean token of every place, where that foretells other parts; else zero.

    Placed parts have a usual token at each place, moved parts have not. Which case this is the parts
    themselves say: each half is foretold by the other half's means.

    Args:
        tokens: whitened, (n, L, C).

    Returns:
        (L, C).
    """
    halves = tokens[::2], tokens[1::2]
    if len(halves[1]) == 0:
        return torch.zeros_like(tokens[0])
    error = sum(float((test - fit.mean(0)).square().mean()) for fit, test in (halves, halves[::-1]))
    if error >= 2 * float(tokens.square().mean()):
        return torch.zeros_like(tokens[0])
    return tokens.mean(0)


class StationVarAD(nn.Module):
    """The measured recipe: hierarchies whitened and packed into one grid, one scan per direction, one head
    that sees all of them.

    The target is fixed (whitened tokens), so nothing can collapse and the mean squared error is a likelihood.
    Packed tokens keep the sequences short; predictions are unpacked again, so that every token of the finest
    hierarchy is judged by itself.
    """

    def __init__(
        self, shapes: Sequence[GridShape], config: PredictorConfig, *, unit_length: bool = False
    ) -> None:
        super().__init__()
        self.unit_length = unit_length
        self.neighbourhood = config.neighbourhood
        kept = [min(config.components, max(1, C // 2)) for C, _, _ in shapes]  # the weaker half is noise
        self.shapes = [(count, H, W) for count, (_, H, W) in zip(kept, shapes, strict=True)]
        channels, self.height, self.width = packed_shape(self.shapes)
        K, d_model = config.directions, config.d_model
        orders = scan_orders(self.height, self.width, K)
        self.lags = direction_lags(self.height, self.width, K, config.lag_rows)
        self.direction_loss = config.direction_loss
        self.register_buffer("orders", orders, persistent=False)
        self.register_buffer("inverses", inverse_orders(orders), persistent=False)
        self.whitenings = nn.ModuleList(
            Whitening(C, count) for (C, _, _), count in zip(shapes, kept, strict=True)
        )
        self.register_buffer("place", torch.zeros(self.height * self.width, channels))
        self.embed = nn.Linear(channels, d_model)
        self.begin = nn.Parameter(torch.zeros(K, 1, d_model))
        self.position = nn.Parameter(torch.zeros(self.height * self.width, d_model))
        self.layers = nn.ModuleList(ScanLayer(d_model, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d_model)
        self.direction_heads = nn.Parameter(torch.randn(K, d_model, channels) * d_model**-0.5 * 0.1)
        last = nn.Linear(2 * d_model, channels)
        nn.init.zeros_(last.weight)  # start from the places' means
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(K * d_model, 2 * d_model), nn.GELU(), last)

    def describe(self, hierarchies: Sequence[Tensor]) -> list[Tensor]:
        """Each hierarchy's tokens as they are whitened: (B, C_i, H_i, W_i) -> (B, L_i, C_i)."""
        reach = self.neighbourhood // 2
        if reach:
            hierarchies = [
                F.avg_pool2d(grid, self.neighbourhood, 1, reach, count_include_pad=False)
                for grid in hierarchies
            ]
        if self.unit_length:
            hierarchies = [F.normalize(grid, dim=1) for grid in hierarchies]
        return [to_sequence(grid) for grid in hierarchies]

    @torch.no_grad()
    def fit_tokens(self, hierarchies: Sequence[Tensor]) -> None:
        """Fit the whitening and the places' means on the training tokens (B, C_i, H_i, W_i)."""
        for whitening, tokens in zip(self.whitenings, self.describe(hierarchies), strict=True):
            cast(Whitening, whitening).fit(tokens.flatten(0, 1))
        (grid,) = self.prepare(hierarchies)
        self.get_buffer("place").copy_(place_means(to_sequence(grid)))

    @torch.no_grad()
    def prepare(self, hierarchies: Sequence[Tensor]) -> list[Tensor]:
        """What training caches: one packed grid of whitened tokens (B, C, H, W)."""
        whitened = [
            to_grid(whitening(tokens), H, W)
            for whitening, tokens, (_, H, W) in zip(
                self.whitenings, self.describe(hierarchies), self.shapes, strict=True
            )
        ]
        return [pack_hierarchies(whitened)]

    def hidden(self, tokens: Tensor) -> Tensor:
        """What each direction knows before token l is seen: (B, L, C) -> (B, K, L, d_model), row-major."""
        orders = self.get_buffer("orders")
        unusual = tokens - self.get_buffer("place")  # what is already known of a place is no news
        sequences = scan(self.embed(unusual), orders)  # (B, K, L, d_model)
        sequences = delay(sequences, self.begin, self.lags)  # place l holds token l - M ...
        sequences = sequences + self.position[orders]  # ... and the name of the place to be predicted
        for layer in self.layers:
            sequences = layer(sequences)
        return unscan(self.norm(sequences), self.get_buffer("inverses"))

    def fuse(self, hidden: Tensor) -> Tensor:
        """(B, K, L, d_model) -> predicted tokens (B, L, C)."""
        fused: Tensor = self.head(hidden.transpose(1, 2).flatten(2))
        return self.get_buffer("place") + fused

    def predict(self, prepared: Sequence[Tensor]) -> list[Prediction]:
        """Predicted and whitened tokens, (B, C, H, W) on the finest hierarchy's grid."""
        (grid,) = prepared
        predicted = to_grid(self.fuse(self.hidden(to_sequence(grid))), self.height, self.width)
        return [(unpack_hierarchies(predicted, self.shapes), unpack_hierarchies(grid, self.shapes))]

    def loss(self, prepared: Sequence[Tensor]) -> Tensor:
        """Mean squared error of the fused prediction, plus each direction's own to keep all of them awake."""
        tokens = to_sequence(prepared[0])  # (B, L, C)
        hidden = self.hidden(tokens)
        own = self.get_buffer("place") + torch.matmul(hidden, self.direction_heads)  # (B, K, L, C)
        return F.mse_loss(self.fuse(hidden), tokens) + self.direction_loss * F.mse_loss(
            own, tokens[:, None].expand_as(own)
        )


VarAD = PaperVarAD | StationVarAD


def create_model(config: VaradConfig, shapes: Sequence[GridShape]) -> VarAD:
    """The model of a configuration, with fresh weights from torch's seed.

    Args:
        config: preset, tokenizer and predictor.
        shapes: (C_i, H_i, W_i) of each hierarchy, fine to coarse.
    """
    if config.preset == "paper":
        return PaperVarAD(shapes, config.predictor)
    # The length of a rectified network's token says little; that of a linear token is its contrast.
    linear = config.tokenizer in ("embedded", "descriptors")
    return StationVarAD(shapes, config.predictor, unit_length=not linear)
