"""A model on disk: one safetensors file with weights, configuration, calibration and provenance, signed.

The file's metadata holds three strings: `manifest` (JSON: everything but the tensors), `key` (the signer's
public key) and `signature` (ed25519 over the manifest's sha256 and those of every tensor with its name, dtype
and shape). A bundle is believed only when the key is one of the trusted ones; a key that comes with the file
proves nothing by itself.

A folder of keys holds `*.pub` files, 32 bytes in hexadecimal on one line, and on the machine that trains also
`station.ed25519`, the private half, readable by its owner alone.
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from varad_core.types import BundleError, one_line

FORMAT = 2  # 2: pictures may be levelled
PRIVATE_KEY_FILE, PUBLIC_KEY_FILE = "station.ed25519", "station.pub"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle.

    Attributes:
        tensors: by name.
        manifest: configuration, calibration, provenance; JSON values.
        model_id: first 12 hexadecimal digits of the sha256 that is signed. (The file's own changes from one
            writing to the next, because safetensors orders its metadata at random.)
        signer: the public key that signed it, hexadecimal.
    """

    tensors: Mapping[str, Tensor]
    manifest: Mapping[str, Any]
    model_id: str
    signer: str


def ensure_signing_key(folder: Path) -> Ed25519PrivateKey:
    """The machine's signing key; made on first use, with its public half beside it.

    Raises:
        BundleError: the folder cannot be written, or the key in it cannot be read.
    """
    path = folder / PRIVATE_KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            new = Ed25519PrivateKey.generate()
            _write_in_one_step(path, f"{new.private_bytes_raw().hex()}\n".encode(), mode=0o600)
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
        text = public_hex(private) + "\n"
        public = folder / PUBLIC_KEY_FILE
        if not public.exists() or public.read_text() != text:  # stations may be reading it
            _write_in_one_step(public, text.encode(), mode=0o644)
    except ValueError as error:
        raise BundleError(
            f"signing key {path}: is none ({error}); bring the file back from a copy, or remove it and a new "
            "key is made"
        ) from error
    except OSError as error:
        raise BundleError(
            f"signing key {path}: cannot be made or read ({error}); check the folder"
        ) from error
    return private


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half in hexadecimal."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw.hex()


def trusted_signers(folder: Path) -> dict[str, str]:
    """Public keys of a folder: hexadecimal -> file name.

    Raises:
        BundleError: the folder is missing or a key in it is malformed.
    """
    if not folder.is_dir():
        wanted = "`trusted_keys` is the folder of the *.pub files that `station train` wrote"
        what = "is a file; name its folder" if folder.exists() else f"no such folder; {wanted}"
        raise BundleError(f"trusted keys {folder}: {what}")
    signers = {}
    for path in sorted(folder.glob("*.pub")):
        try:
            text = path.read_text().strip().lower()
        except (OSError, UnicodeDecodeError):  # a folder, no text, not to be read
            text = ""
        if len(text) != 64 or any(digit not in "0123456789abcdef" for digit in text):
            raise BundleError(f"trusted key {path}: not 64 hexadecimal digits; remove or replace it")
        signers[text] = path.name
    return signers


def _digest(tensors: Mapping[str, Tensor], manifest: str) -> bytes:
    """What is signed."""
    total = hashlib.sha256(b"varad bundle\n")
    total.update(hashlib.sha256(manifest.encode()).digest())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        header = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        total.update(hashlib.sha256(header.encode()).digest())
        total.update(hashlib.sha256(tensor.flatten().view(torch.uint8).numpy().tobytes()).digest())
    return total.digest()


def _model_id(digest: bytes) -> str:
    return digest.hex()[:12]


def save_bundle(
    path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], *, signing_key: Ed25519PrivateKey
) -> str:
    """Write a bundle in one step: a temporary file, synced, then renamed over `path`.

    Returns:
        The model id.

    Raises:
        BundleError: the folder is missing or cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(
        {"format": FORMAT, "versions": _versions(), **manifest}, sort_keys=True, allow_nan=False
    )
    digest = _digest(plain, text)
    signature = signing_key.sign(digest).hex()
    data = save(plain, {"manifest": text, "key": public_hex(signing_key), "signature": signature})
    try:
        _write_in_one_step(path, data, mode=0o644)
    except OSError as error:
        raise BundleError(f"bundle {path}: cannot be written ({error.strerror}); check the folder") from error
    return _model_id(digest)


def _write_in_one_step(path: Path, data: bytes, *, mode: int) -> None:
    """Write a temporary file beside it, synced, then renamed over `path`: nobody sees half of it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: Path, *, replace: bool = True) -> None:
    """Fail before the training, not after it, where a bundle could not be written.

    Raises:
        BundleError: the folder is missing or not writable, `path` is a folder, or a file that is not to be
            replaced.
    """
    if path.is_file() and not replace:
        raise BundleError(
            f"bundle {path}: is there already, and a line may be using it; name the new one with --out, e.g. "
            f"{path.stem}-2{path.suffix}, or add --replace"
        )
    if path.is_dir():
        raise BundleError(f"bundle {path}: is a folder; give a file name, e.g. {path / 'model.safetensors'}")
    if not path.parent.is_dir():
        raise BundleError(f"bundle {path}: folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise BundleError(f"bundle {path}: folder {path.parent} is not writable")


def load_bundle(path: Path, trusted_keys: Path | None) -> Bundle:
    """Read and verify a bundle.

    Args:
        path: the file.
        trusted_keys: folder of `*.pub` files; None checks that the file is whole and unchanged since it was
            signed, but not by whom.

    Raises:
        BundleError: missing, not a bundle, truncated, changed, signed by a stranger, or of a newer format.
    """
    if not path.is_file():
        raise BundleError(f"bundle {path}: no such file; train a model with `station train`")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"bundle {path}: not a safetensors file or truncated ({one_line(error)})"
        ) from error
    absent = {"manifest", "key", "signature"} - set(header)
    if absent:
        raise BundleError(f"bundle {path}: not a model bundle ({', '.join(sorted(absent))} missing)")
    signer = header["key"]
    digest = _digest(tensors, header["manifest"])
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer)).verify(
            bytes.fromhex(header["signature"]), digest
        )
    except (InvalidSignature, ValueError) as error:
        raise BundleError(f"bundle {path}: was changed after it was signed; get a fresh copy") from error
    if trusted_keys is not None and signer not in trusted_signers(trusted_keys):
        raise BundleError(
            f"bundle {path}: signed by unknown key {signer[:16]}...; "
            f"put its .pub file into {trusted_keys} to trust it"
        )
    try:
        manifest = json.loads(header["manifest"])
        newer = manifest["format"] > FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"bundle {path}: its manifest is not one of this program's; train again") from error
    if newer:
        raise BundleError(
            f"bundle {path}: format {manifest['format']} is newer than this program's {FORMAT}; "
            "update the station"
        )
    return Bundle(tensors, manifest, _model_id(digest), signer)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "timm", "numpy", "opencv-python-headless")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
