"""What engine and worker say to each other: one JSON object a message, over a SOCK_SEQPACKET socket, which
keeps them apart.

    engine -> worker  Request
    worker -> engine  Ready once, then a Result or a PartError for each Request; Failed before its end

Pictures and maps lie in the shared slab, never in a message.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Literal

from varad_core.types import Limits

MAX_MESSAGE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Model:
    """What a worker says of its model."""

    model_id: str
    model_name: str
    limits: Limits

    def __post_init__(self) -> None:
        if not (math.isfinite(self.limits.recheck) and math.isfinite(self.limits.reject)):
            raise ValueError(f"limits must be finite (got {self.limits.recheck}, {self.limits.reject})")

    def __str__(self) -> str:
        return f"{self.model_name} {self.model_id}"


@dataclass(frozen=True, slots=True)
class Request:
    """Inspect the picture (height, width, 3) in a room, and write its map into the slot."""

    part_seq: int
    slot: int
    room: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Loaded and warm."""

    model: Model
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot be used, or not any more; one line that says why."""

    message: str
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """A part's score; its map (map_height, map_width) lies in the slot."""

    part_seq: int
    slot: int
    score: float
    map_height: int
    map_width: int
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    kind: Literal["result"] = "result"

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.timings_ms.values())):
            raise ValueError(f"timings must be finite (got {dict(self.timings_ms)})")
        if not all(map(math.isfinite, chain(*self.conditions.values()))):
            raise ValueError(f"conditions must be finite (got {dict(self.conditions)})")


@dataclass(frozen=True, slots=True)
class PartError:
    """A part that was not inspected; one line that says why."""

    part_seq: int
    slot: int
    message: str
    kind: Literal["error"] = "error"


Answer = Result | PartError


def encode(message: Request | Ready | Failed | Answer) -> bytes:
    """A message as bytes."""
    return json.dumps(asdict(message)).encode()
