"""The keys by which screens on other machines and the line know each other (ZeroMQ CURVE), as files.

Each file holds 32 bytes in hexadecimal on one line; `*.secret` are readable by their owner alone. The public
halves are not called like the keys that sign models: no folder can be taken for one of the other kind.

    FOLDER/server.secret server.public   the line's pair
    FOLDER/screens/NAME.public           the screens that may connect, `local` is this machine's own
    FOLDER/screen.secret                 the secret half of `local`
    FOLDER/NAME/                         to be carried to a screen: server.public, screen.secret
"""

import contextlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from station.client import ScreenKeys

SERVER_SECRET, SERVER_PUBLIC, SCREEN_SECRET = "server.secret", "server.public", "screen.secret"
SCREENS, LOCAL = "screens", "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


class KeysError(Exception):
    """The keys cannot be used; the message is one line and says what to do."""


@dataclass(frozen=True, slots=True)
class LineKeys:
    """The line's own pair, and who may connect.

    Attributes:
        secret: 32 bytes.
        screens: folder of the public keys that may connect.
    """

    secret: bytes = field(repr=False)
    screens: Path

    def allows(self, public: bytes) -> bool:
        """Whether a screen with this key may connect. Looks into the folder each time, so that a screen is
        added without a stop of the line, or shut out from its next connection on."""
        for path in self.screens.glob("*.public"):
            with contextlib.suppress(KeysError):  # one that is damaged lets nobody in, and shuts nobody out
                if _read(path) == public:
                    return True
        return False


def make_line_keys(folder: Path) -> None:
    """The line's pair and the one of its own screen, where they do not exist yet.

    Raises:
        KeysError: the folder cannot be written, or a key in it cannot be read.
    """
    _ensure_pair(folder / SERVER_SECRET, folder / SERVER_PUBLIC)
    _ensure_pair(folder / SCREEN_SECRET, folder / SCREENS / f"{LOCAL}.public")


def make_screen_keys(folder: Path, name: str) -> Path:
    """Let another screen connect; returns the folder to be carried there.

    Raises:
        KeysError: the name is not usable, or see `make_line_keys`.
    """
    if not _NAME.fullmatch(name) or name in (SCREENS, LOCAL):
        raise KeysError(
            f"screen {name!r}: 1 to 40 letters, digits, - and _ are a name, and not '{SCREENS}' or '{LOCAL}'"
        )
    make_line_keys(folder)
    carried, allowed = folder / name, folder / SCREENS / f"{name}.public"
    if allowed.exists() and not (carried / SCREEN_SECRET).exists():
        raise KeysError(f"screen {name!r} has its keys already; to make new ones, remove {allowed} first")
    _ensure_pair(carried / SCREEN_SECRET, allowed)
    server_public = _read(folder / SERVER_PUBLIC)
    try:
        _write(carried / SERVER_PUBLIC, server_public, 0o644)
    except OSError as error:
        raise KeysError(f"keys {carried}: cannot be made ({error.strerror}); check the folder") from error
    return carried


def read_line_keys(folder: Path) -> LineKeys:
    """What the line needs of its folder.

    Raises:
        KeysError: a file is missing or damaged.
    """
    return LineKeys(_read(folder / SERVER_SECRET), folder / SCREENS)


def read_screen_keys(folder: Path) -> ScreenKeys:
    """What a screen needs of its folder, or of the line's on the line's own machine.

    Raises:
        KeysError: a file is missing or damaged.
    """
    secret = _read(folder / SCREEN_SECRET)
    return ScreenKeys(server_public=_read(folder / SERVER_PUBLIC), public=_public_of(secret), secret=secret)


def readable_by_others(folder: Path) -> list[Path]:
    """The secret files in and below a folder that more than their owner can read."""
    others = stat.S_IRWXG | stat.S_IRWXO
    return [path for path in sorted(folder.rglob("*.secret")) if path.stat().st_mode & others]


def _public_of(secret: bytes) -> bytes:
    return z85.decode(zmq.curve_public(z85.encode(secret)))


def _ensure_pair(secret_path: Path, public_path: Path) -> None:
    try:
        for path in (secret_path, public_path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not secret_path.exists():
            _write(secret_path, z85.decode(zmq.curve_keypair()[1]), 0o600)
        _write(public_path, _public_of(_read(secret_path)), 0o644)
    except OSError as error:
        raise KeysError(f"keys {secret_path}: cannot be made ({error.strerror}); check the folder") from error


def _write(path: Path, key: bytes, mode: int) -> None:
    """The whole file or none of it; nobody else can ever open a secret."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(key.hex() + "\n")
    temporary.replace(path)


def _read(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text("ascii"))
    except OSError as error:
        raise KeysError(
            f"key {path}: cannot be read ({error.strerror}); make it with `station keys`, or correct it"
        ) from error
    except ValueError:
        key = b""
    if len(key) != 32:
        raise KeysError(f"key {path}: not 64 hexadecimal digits; remove it and run `station keys` again")
    return key
