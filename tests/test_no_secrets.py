"""What must never be committed: whoever has a signing key can make models that stations trust."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRIVATE = {".ed25519", ".secret", ".pem"}


def test_no_private_key_is_in_the_repository() -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a checkout")
    command = ["git", "-c", "safe.directory=*", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "pyproject.toml" in listed
    assert not [name for name in listed if Path(name).suffix in PRIVATE]
