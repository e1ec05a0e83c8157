"""How pictures are cut into tiles, and tiles' maps blended into one."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import varad_core.train
from varad_core.alignment import Aligned, load_alignment
from varad_core.config import default_config
from varad_core.ignoring import counting
from varad_core.tiling import TILES_AT_ONCE, Framing, TileGrid, cover, fit_framing, fuse

Image = NDArray[np.uint8]
STEP_PX = 16  # the embedded tokenizer's patch
TILES = tiny_config(image_size_px=192, alignment="none", framing="tiles")


# ---- grids of tiles


@st.composite
def lines(draw: st.DrawFn) -> tuple[int, int, float, int]:
    """Length, tile, overlap and step, as `Framing` gives them to `cover`."""
    step = draw(st.sampled_from((14, 16)))
    length, tile = (step * draw(st.integers(1, most)) for most in (300, 40))
    return length, tile, draw(st.floats(0.1, 0.75)), step


@given(lines())
def test_tiles_cover_the_line_and_overlap_and_are_no_more_than_needed(
    line: tuple[int, int, float, int],
) -> None:
    length, tile, overlap, step = line
    starts = cover(*line)
    assert all(start % step == 0 for start in starts)
    if length < tile:
        (start,) = starts
        before, after = -start, start + tile - length
        assert before >= 0
        assert after >= 0
        assert abs(before - after) <= step
        return
    assert (starts[0], starts[-1]) == (0, length - tile)
    strides = [after - before for before, after in itertools.pairwise(starts)]
    widest = max(step, tile * (1 - overlap) + 1e-6)
    assert all(0 < stride <= widest for stride in strides)
    if strides:
        assert max(strides) - min(strides) <= step
        assert (len(strides) - 1) * (widest // step * step) < length - tile


def _grid(shape: tuple[int, int], tile_px: int, overlap: float, step_px: int) -> TileGrid:
    rows, columns = (cover(length, tile_px, overlap, step_px) for length in shape)
    return TileGrid(shape, tile_px, tuple(itertools.product(rows, columns)))


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Image, TileGrid]:
    """A picture of noise, wider or higher than a tile or not, and its grid."""
    step = draw(st.sampled_from((14, 16)))
    height, width = (step * draw(st.integers(1, 9)) for _ in range(2))
    tile = step * draw(st.integers(2, 6))
    noise = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (height, width, 3), np.uint8)
    return noise, _grid((height, width), tile, draw(st.floats(0.1, 0.75)), step)


@settings(max_examples=60)
@given(pictures(), st.sampled_from((1, 2)), st.integers(1, 5))
def test_blending_a_pictures_own_tiles_gives_back_the_picture(
    picture: tuple[Image, TileGrid], cell_px: int, at_once: int
) -> None:
    image_rgb, grid = picture
    maps = (
        torch.from_numpy(tiles_rgb[:, ::cell_px, ::cell_px, 1]).float()
        for tiles_rgb in grid.cut(image_rgb, at_once)
    )
    np.testing.assert_allclose(grid.blend(maps).numpy(), image_rgb[::cell_px, ::cell_px, 1], rtol=1e-5)


@settings(max_examples=60)
@given(pictures(), st.integers(1, 5))
def test_tiles_come_in_order_a_few_at_once_and_the_pictures_edge_goes_on(
    picture: tuple[Image, TileGrid], at_once: int
) -> None:
    image_rgb, grid = picture
    batches = list(grid.cut(image_rgb, at_once))
    assert {len(batch) for batch in batches[:-1]} <= {at_once}
    tiles = np.concatenate(batches)
    assert tiles.shape == (len(grid.corners), grid.tile_px, grid.tile_px, 3)
    margin = grid.tile_px
    wide = np.pad(image_rgb, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    for (row, column), tile in zip(grid.corners, tiles, strict=True):
        rows, columns = (slice(at + margin, at + margin + grid.tile_px) for at in (row, column))
        assert np.array_equal(tile, wide[rows, columns])


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from((252, 518, 1022)))
def test_where_cells_and_steps_do_not_divide_no_cell_stays_uncovered(
    rows: int, columns: int, tile_px: int
) -> None:
    """`paper` maps are a quarter of the image: 252 px have 63 cells, and 14 px, DINOv2's patch, have 3.5."""
    framing = Framing(replace(default_config("paper", "dinov2_vits14", tile_px), framing="tiles"))
    grid = framing.grid((14 * rows, 14 * columns))
    cells = tile_px // 4
    cell_px = tile_px / cells
    places = [column + cell_px * torch.arange(cells).expand(cells, cells) for _, column in grid.corners]
    blended = grid.blend([torch.stack(places)])
    own = cell_px * torch.arange(blended.shape[1])
    assert (blended - own).abs().max() <= 0.5 * cell_px + 1e-2


def test_as_many_maps_as_tiles_are_blended() -> None:
    grid = _grid((64, 128), 64, 0.25, 16)
    with pytest.raises(ValueError, match="shorter"):
        grid.blend([torch.zeros(len(grid.corners) - 1, 16, 16)])


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=4))
def test_fused_resolutions_are_their_mean_at_the_size_of_the_first(shapes: list[tuple[int, int]]) -> None:
    fused = fuse([torch.full(shape, float(index)) for index, shape in enumerate(shapes)])
    assert fused.shape == shapes[0]
    torch.testing.assert_close(fused, torch.full(shapes[0], (len(shapes) - 1) / 2))


def test_a_fused_peak_keeps_its_place() -> None:
    fine, coarse = torch.zeros(16, 64), torch.zeros(4, 16)
    coarse[1, 12] = 1.0  # over rows 4 to 7, columns 48 to 51 of the fine map
    fused = fuse([fine, coarse])
    places = torch.nonzero(fused == fused.max()).float().mean(0).tolist()
    assert places == [5.5, 49.5]


@pytest.mark.parametrize("shape", [(100, 400), (400, 100), (96, 96), (30, 30)])
def test_each_resolution_brings_the_shorter_side_to_its_length(shape: tuple[int, int]) -> None:
    framing = Framing(replace(TILES, resolutions_px=(64, 200)))
    whole = np.zeros((*shape, 3), np.uint8)
    aligned = framing.align(varad_core.train.fit_alignment("none", []), whole)
    layers = list(framing.layers(aligned))
    assert [min(layer.shape[:2]) for layer, _ in layers] == [192, 64]  # finest first, in whole patches
    for layer, grid in layers:
        assert layer.shape[:2] == grid.shape
        assert abs(layer.shape[0] / layer.shape[1] / (shape[0] / shape[1]) - 1) < 0.1
        assert all(length % STEP_PX == 0 for length in grid.shape)


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(4, 12), st.integers(4, 12), st.integers(0, 9))
def test_tiles_to_fit_on_are_as_many_as_asked_for_and_from_every_resolution(
    count: int, rows: int, columns: int, seed: int
) -> None:
    sides_px = tuple({STEP_PX * min(rows, columns), 64})
    framing = Framing(replace(TILES, image_size_px=96, resolutions_px=sides_px))
    noise = np.random.default_rng(seed).integers(0, 256, (STEP_PX * rows, STEP_PX * columns, 3), np.uint8)
    aligned = Aligned(noise, np.eye(2, 3), True)
    layers = list(framing.layers(aligned))
    batches = list(framing.samples(aligned, count, np.random.default_rng(seed)))
    tiles = np.concatenate(batches)
    assert max(len(batch) for batch in batches) <= TILES_AT_ONCE
    assert tiles.shape[1:] == (96, 96, 3)
    assert abs(len(tiles) - count) <= len(layers)
    if count >= 2 * sum(len(grid.corners) for _, grid in layers):  # then the grids' own are among them
        drawn = {tile.tobytes() for tile in tiles}
        for layer_rgb, grid in layers:
            assert {tile.tobytes() for batch in grid.cut(layer_rgb) for tile in batch} <= drawn


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(0, 12), st.integers(0, 9))
def test_no_tile_to_fit_on_shows_only_what_is_ignored(count: int, ignored_steps: int, seed: int) -> None:
    framing = Framing(replace(TILES, image_size_px=96, resolutions_px=(96, 64)))
    strip = np.full((96, STEP_PX * 16, 3), 255, np.uint8)
    strip[:, : STEP_PX * ignored_steps] = 0
    aligned = Aligned(strip, np.eye(2, 3), True, strip[..., 0] == 0)
    tiles = np.concatenate(list(framing.samples(aligned, count, np.random.default_rng(seed))))
    assert tiles.any(axis=(1, 2, 3)).all()
    assert abs(len(tiles) - count) <= 2  # resolutions


@settings(max_examples=40)
@given(st.integers(0, 14), st.integers(0, 9))
def test_tiles_that_show_only_what_is_ignored_are_left_out_and_not_missed(steps: int, seed: int) -> None:
    framing = Framing(replace(TILES, image_size_px=96, resolutions_px=(192, 96)))
    noise = np.random.default_rng(seed).integers(1, 256, (192, STEP_PX * 32, 3), np.uint8)
    ignored = np.zeros(noise.shape[:2], np.bool_)
    ignored[:, : 2 * STEP_PX * steps] = True
    layers = list(framing.layers(Aligned(noise, np.eye(2, 3), True, ignored)))
    every = [(layer_rgb, framing.grid((len(layer_rgb), layer_rgb.shape[1]))) for layer_rgb, _ in layers]
    fewer = [
        len(one.corners) < len(all_of.corners) for (_, one), (_, all_of) in zip(layers, every, strict=True)
    ]
    assert fewer == [steps >= 3, steps >= 6]  # 96 px of each resolution

    def counted(layers: list[tuple[Image, TileGrid]]) -> Tensor:
        maps = []
        for layer_rgb, tiles in layers:
            batches = (
                batch[:, ::STEP_PX, ::STEP_PX, 0] / batch[:, :1, :1, 1] for batch in tiles.cut(layer_rgb)
            )  # of which each tile says something else
            maps.append(tiles.blend(map(torch.from_numpy, batches)))
        return counting(fuse(maps), ignored, framing.beside_px)

    assert counted(layers).isfinite().all()
    counts = 2 * steps + 2  # cells that are ignored, and the band beside them
    torch.testing.assert_close(counted(layers)[:, counts:], counted(every)[:, counts:])


# ---- square or tiles


@pytest.mark.parametrize(
    ("shapes", "alignment", "chosen"),
    [
        ([(64, 64)] * 3, "none", "square"),
        ([(64, 127)] * 3, "none", "square"),
        ([(64, 128)] * 3, "none", "tiles"),
        ([(320, 128)] * 3, "none", "tiles"),
        ([(64, 64), (64, 256), (64, 256)], "none", "tiles"),
        ([(64, 64), (64, 64), (64, 256)], "none", "square"),
        ([(64, 256)] * 3, "disc", "square"),  # a round part is cut out of its picture
    ],
)
def test_auto_takes_tiles_for_long_parts(
    shapes: Sequence[tuple[int, int]], alignment: str, chosen: str
) -> None:
    tensors = {"usual": torch.tensor([0.5, 0.5, 0.4], dtype=torch.float64)}
    images = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
    assert fit_framing("auto", load_alignment(alignment, tensors), images) == chosen
    for name in ("square", "tiles"):
        assert fit_framing(name, load_alignment(alignment, tensors), images) == name  # type: ignore[arg-type]


def test_the_published_method_squeezes_unless_asked_otherwise() -> None:
    assert default_config("paper", "resnet18", 64).framing == "square"
    assert default_config("station", "resnet18", 64).framing == "auto"


def test_a_framing_that_nobody_decided_is_refused() -> None:
    with pytest.raises(ValueError, match="auto is decided by training"):
        Framing(replace(TILES, framing="auto", resolutions_px=()))
