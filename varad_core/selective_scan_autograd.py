"""The recurrence as one differentiable operation, whoever computes it forward and backward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from varad_core.selective_scan_inputs import ScanInputs

Forward = Callable[[ScanInputs, bool], tuple[Tensor, Tensor]]
Backward = Callable[[Tensor, ScanInputs, Tensor], tuple[Tensor | None, ...]]


def differentiable_scan(forward: Forward, backward: Backward, inputs: ScanInputs) -> Tensor:
    """Run a backend's kernels; states are kept only when a gradient is wanted.

    Args:
        forward: (inputs, keep_states) -> y (Bt, D, L) and the states kept for the backward pass.
        backward: (dy, inputs, states) -> the gradient of each tensor of `inputs`, in their order.
        inputs: checked arguments.
    """
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
        y: Tensor = _Scan.apply(forward, backward, *inputs)  # type: ignore[no-untyped-call]
        return y
    return forward(inputs, False)[0]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, forward: Forward, backward: Backward, *arguments: Any) -> Tensor:
        y, states = forward(ScanInputs(*arguments), True)
        *tensors, ctx.delta_softplus = arguments
        ctx.run_backward = backward
        ctx.save_for_backward(states, *tensors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        states, *tensors = ctx.saved_tensors
        arguments: list[Any] = [*tensors, ctx.delta_softplus]
        return (None, None, *ctx.run_backward(dy, ScanInputs(*arguments), states), None)
