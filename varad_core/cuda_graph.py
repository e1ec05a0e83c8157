"""On CUDA the whole way from pixels to map is captured once and replayed: one launch instead of hundreds.

The host waits once, for the result. Pixels go up from pinned memory while the host is free.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WARM_UP_RUNS = 3  # what a kernel compiles or allocates at first must not be captured


class CudaGraph:
    """`forward` for inputs of one shape, captured.

    Args:
        forward: uint8 (B, S, S, 3) on the device -> its result there; no host synchronisation, no shape that
            depends on values.
        shape: of the inputs.
        device: a CUDA device.
    """

    def __init__(
        self, forward: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device
    ) -> None:
        self._pinned = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self._uploaded = torch.cuda.Event()
        self._input = torch.zeros(shape, dtype=torch.uint8, device=device)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                forward(self._input)
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._output = forward(self._input)

    def __call__(self, tiles_rgb: NDArray[np.uint8]) -> Tensor:
        """The result for these pixels; a copy, which the next call does not touch. Does not wait for it."""
        self._uploaded.synchronize()  # or the pixels before these would be overwritten on their way up
        self._pinned.copy_(torch.from_numpy(tiles_rgb))
        self._input.copy_(self._pinned, non_blocking=True)
        self._uploaded.record(torch.cuda.current_stream(self._input.device))
        self._graph.replay()
        return self._output.clone()
