import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["station", "varad_core", "drivers", "db", "ui"]
NOBODY_UID = 65534

# A project of no files: what `.ci/setup` installs in the tests below, with nothing to fetch.
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "nothing"
version = "1"
optional-dependencies.dev = []
"""
BACKEND = """
import pathlib, zipfile
FILES = {
    "METADATA": "Metadata-Version: 2.1\\nName: nothing\\nVersion: 1\\nProvides-Extra: dev\\n",
    "WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "RECORD": "",
}
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "nothing-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        for file, text in FILES.items():
            wheel.writestr("nothing-1.dist-info/" + file, text)
    return name
"""


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins), f"not pinned: {[pin for pin in pins if '==' not in pin]}"
    return {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins)}


def test_every_dependency_is_pinned_inside_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = constraints()
    requirements = map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"])
    unpinned = [
        str(r) for r in requirements if not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))
    ]
    assert not unpinned, f"constraints.txt has no fitting pin for {unpinned}; its head says how to renew it"


def test_the_command_station_is_there():
    (command,) = entry_points(group="console_scripts", name="station")
    assert callable(command.load())


def test_a_wheel_carries_every_file_of_the_packages(tmp_path):
    source = tmp_path / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    expected = {
        str(path.relative_to(source)) for p in PACKAGES for path in (source / p).rglob("*") if path.is_file()
    }
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert expected - names == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_no_system_package_is_missing_after_setup():
    found = subprocess.run([ROOT / ".ci/system-packages"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_without_root_the_missing_system_packages_are_named():
    script = (ROOT / ".ci/system-packages").read_text()
    with tempfile.TemporaryDirectory() as bare:  # not tmp_path: another user must read it
        Path(bare).chmod(0o755)
        ldconfig = Path(bare, "ldconfig")
        ldconfig.write_text("#!/bin/sh\necho '\tlibGL.so.1 (libc6,x86-64) => /lib/libGL.so.1'\n")
        ldconfig.chmod(0o755)
        said = subprocess.run(
            ["/bin/sh", "-s"],
            input=script,
            env={"PATH": f"{bare}:/usr/bin:/bin"},
            cwd="/",
            user=NOBODY_UID if os.getuid() == 0 else None,
            capture_output=True,
            text=True,
            check=False,
        )
    assert said.returncode == 1
    assert "sudo apt-get install" in said.stderr
    wanted = set(re.findall(r"^library \S+ +(\S+)", script, re.MULTILINE))
    assert len(wanted) > 10
    assert wanted - set(said.stderr.split()) == {"libgl1"}


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "constraints.txt").write_text("")
    return tmp_path


def set_up(project: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [project / ".ci/setup"],
        env={**os.environ, "PYTHON": sys.executable, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=80,
    )


@pytest.mark.slow
def test_setup_is_done_once_and_again_only_after_a_change_or_an_interruption(project):
    assert "setup: done" in set_up(project).stdout
    assert set_up(project).stdout == ""

    (project / "backend.py").rename(project / "elsewhere")
    (project / "constraints.txt").write_text("# changed\n")
    failed = set_up(project)
    assert failed.returncode != 0
    assert "setup: done" not in failed.stdout

    (project / "elsewhere").rename(project / "backend.py")
    resumed = set_up(project)
    assert "setup: done" in resumed.stdout
    assert "setup: making .venv" not in resumed.stdout
    assert set_up(project).stdout == ""


@pytest.mark.parametrize("python", ["/nowhere/python3.11", "/bin/false"])
def test_setup_without_a_usable_python_says_what_it_tried(project, python):
    said = set_up(project, PYTHON=python)
    assert said.returncode != 0
    assert f"Tried: {python}" in said.stderr
    assert not (project / ".venv").exists()
