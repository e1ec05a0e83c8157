"""The student learns to foretell the teacher: its first layers at 1/4, and the stages that count."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from varad_core.embedded_net import FRONT, EmbeddedNet
from varad_core.pretraining.targets import Targets
from varad_core.pretraining.teacher import ResNet50V2
from varad_core.tokenizer import to_tensor

BATCH = 4
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
WARM_UP = 50  # steps
DECAY = 0.4  # share of the steps over which the rate falls to nothing; until then a run can be prolonged
CHECKPOINT_STEPS = 50
STAGES = ("front", "fine", "coarse")


def with_norms(module: nn.Module) -> None:
    """Put a batch norm behind every convolution in `module`, for training."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
            setattr(module, name, nn.Sequential(child, nn.BatchNorm2d(child.out_channels)))
        else:
            with_norms(child)


def fold_norms(module: nn.Module) -> None:
    """The inverse of `with_norms`, for evaluation."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and isinstance(norm := child[-1], nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(cast(nn.Conv2d, child[0]), norm))
        else:
            fold_norms(child)


def loss_of(outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean squared error plus 1 - cosine over channels, summed over hierarchies."""
    losses = [
        (output - target).square().mean() + 1 - nn.functional.cosine_similarity(output, target, dim=1).mean()
        for output, target in zip(outputs, targets, strict=True)
    ]
    return torch.stack(losses).sum()


def distill(
    teacher: ResNet50V2, targets: Targets, folder: Path, *, seed: int, steps: int
) -> tuple[EmbeddedNet, dict[str, float]]:
    """Train, going on from `folder`'s checkpoint if there is one.

    The last 64 images are not trained on; the share of the targets' variance explained on them is the second
    result, one figure a hierarchy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    net = EmbeddedNet()
    for name in STAGES:
        with_norms(net.get_submodule(name))
    front_head = nn.Conv2d(FRONT, teacher.FIRST_CHANNELS, 1)  # only while training
    student = nn.ModuleList([net, front_head]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    held_out = len(targets.images) - 64
    checkpoint, step = folder / f"seed-{seed}-images-{len(targets.images)}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        step = state["step"]
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
    recent: list[float] = []
    per_epoch = held_out // BATCH
    while step < steps:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(held_out)
        rows = np.sort(order[place * BATCH : (place + 1) * BATCH])
        rate = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP, (steps - step) / (DECAY * steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = to_tensor(targets.images[rows])
        front, fine, coarse = net.stages(images)
        outputs = [front_head(front), net.fine_head(fine), net.coarse_head(coarse)]
        loss = loss_of(outputs, [teacher.first_layers(images), *_target(targets, rows)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        recent.append(float(loss.detach()))
        step += 1
        if step % CHECKPOINT_STEPS == 0 or step == steps:
            print(f"step {step}/{steps}, loss {np.mean(recent[-CHECKPOINT_STEPS:]):.4f}", flush=True)
            unfinished = checkpoint.with_suffix(".unfinished")  # killed while writing, the old one stays
            torch.save(
                {"step": step, "student": student.state_dict(), "optimizer": optimizer.state_dict()},
                unfinished,
            )
            unfinished.replace(checkpoint)
    net.eval().requires_grad_(False)
    for name in STAGES:
        fold_norms(net.get_submodule(name))
    return net, explained(net, targets, np.arange(held_out, held_out + 64))


@torch.inference_mode()
def explained(
    net: EmbeddedNet, targets: Targets, rows: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> dict[str, float]:
    """Share of the targets' variance that the student explains, 1 at best."""
    errors, squares = np.zeros(2), np.zeros(2)
    for part in np.array_split(rows, max(1, len(rows) // 8)):
        for k, (output, target) in enumerate(
            zip(net(to_tensor(targets.images[part])), _target(targets, part), strict=True)
        ):
            errors[k] += float((output - target).square().sum())
            squares[k] += float(target.square().sum())
    return dict(zip(STAGES[1:], (1 - errors / squares).tolist(), strict=True))


def _target(targets: Targets, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[Tensor]:
    return [torch.from_numpy(array[rows]).float() for array in (targets.fine, targets.coarse)]
