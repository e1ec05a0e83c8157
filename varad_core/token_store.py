"""What the training loop reads: every input's prepared tokens, made once and kept in a temporary file.

The system's page cache holds as much of the file as there is memory for, so thousands of parts can be trained
on in little of it.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from varad_core.types import DataError


class TokenStore:
    """Rows of prepared grids in half precision, with the image that each row is from.

    Attributes:
        owners: the image of each row.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Open an empty store in `folder`, by default the system's for temporary files."""
        self.owners: list[int] = []
        self._folder = tempfile.TemporaryDirectory(prefix="varad-tokens-", dir=folder)
        self._shapes: list[tuple[int, ...]] = []
        self._maps: list[np.memmap[tuple[int, ...], np.dtype[np.float16]]] = []

    def append(self, prepared: Sequence[Tensor], owner: int) -> None:
        """Add a batch of an image's inputs, (B, C_i, H_i, W_i) each.

        Raises:
            DataError: the disk is full.
        """
        self._shapes = [tuple(grid.shape[1:]) for grid in prepared]
        try:
            for index, grid in enumerate(prepared):
                with self._path(index).open("ab") as file:
                    file.write(grid.half().cpu().numpy().tobytes())
        except OSError as error:
            raise DataError(
                f"training: tokens cannot be kept in {self._folder.name} ({error.strerror}); free some "
                "space, or name another folder in TMPDIR"
            ) from error
        self.owners += [owner] * len(prepared[0])

    def rows(self, indices: NDArray[np.int64]) -> list[Tensor]:
        """These rows of each hierarchy, float32 (n, C_i, H_i, W_i)."""
        if not self._maps:
            self._maps = [
                np.memmap(self._path(index), np.float16, "r", shape=(len(self.owners), *shape))
                for index, shape in enumerate(self._shapes)
            ]
        return [torch.from_numpy(np.asarray(grid[indices], np.float32)) for grid in self._maps]

    def _path(self, index: int) -> Path:
        return Path(self._folder.name) / f"hierarchy-{index}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._maps = []
        self._folder.cleanup()
