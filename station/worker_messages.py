"""What the engine takes from its worker, field by field: one whose memory is damaged may say anything."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from varad_core.types import Limits


class WorkerMessageError(Exception):
    """Bytes that are no message of a worker's."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and warm."""

    kind: Literal["ready"]
    model_id: str
    model_name: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot be used; the worker ends."""

    kind: Literal["failed"]
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """A part's score, which may be no number; its map lies in the slot."""

    kind: Literal["result"]
    part_seq: int
    slot: int
    score: float
    map_height: int
    map_width: int
    timings_ms: dict[str, FiniteFloat]


@dataclass(frozen=True, slots=True)
class Refused:
    """A part that could not be inspected."""

    kind: Literal["error"]
    part_seq: int
    slot: int
    message: str


WorkerMessage = Ready | Failed | Result | Refused
_MESSAGE: TypeAdapter[WorkerMessage] = TypeAdapter(Annotated[WorkerMessage, Field(discriminator="kind")])


def decode_message(data: bytes) -> WorkerMessage:
    """The message in `data`.

    Raises:
        WorkerMessageError: it is none, or its limits would pass everything.
    """
    try:
        message = _MESSAGE.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WorkerMessageError(" ".join(f"{where}: {first['msg']}".split())) from error
    if isinstance(message, Ready) and not math.isfinite(message.limits.reject):
        raise WorkerMessageError(f"the reject limit must be a number (got {message.limits.reject})")
    return message
