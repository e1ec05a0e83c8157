import json
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from varad_core import bundle as bundle_module
from varad_core.bundle import (
    PRIVATE_KEY_FILE,
    PUBLIC_KEY_FILE,
    ensure_signing_key,
    load_bundle,
    require_writable,
    save_bundle,
)
from varad_core.inspector import Inspector
from varad_core.scoring import GaussianScoring
from varad_core.types import BundleError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2, dtype=torch.float16), "n": torch.tensor(3)}


@pytest.fixture
def small(tmp_path: Path, keys: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_bundle(path, TENSORS, {"name": "x"}, signing_key=ensure_signing_key(keys))
    return path


def _rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def _one_line(error: pytest.ExceptionInfo[BundleError], path: Path) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text


def test_round_trip(small: Path, keys: Path) -> None:
    loaded = load_bundle(small, keys)
    assert loaded.manifest["name"] == "x"
    assert set(loaded.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype
    assert len(loaded.model_id) == 12
    assert [path.name for path in small.parent.iterdir()] == [small.name]


def test_the_same_content_has_the_same_id(small: Path, keys: Path) -> None:
    other = small.with_name("other.safetensors")
    model_id = save_bundle(other, TENSORS, {"name": "x"}, signing_key=ensure_signing_key(keys))
    assert model_id == load_bundle(small, keys).model_id


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    first = ensure_signing_key(tmp_path / "k").private_bytes_raw()
    assert ensure_signing_key(tmp_path / "k").private_bytes_raw() == first
    assert stat.S_IMODE((tmp_path / "k" / PRIVATE_KEY_FILE).stat().st_mode) == 0o600
    assert (tmp_path / "k" / PUBLIC_KEY_FILE).read_text().strip() != first.hex()


def test_the_public_key_is_not_touched_while_it_is_right(tmp_path: Path) -> None:
    """Stations may be reading it."""
    ensure_signing_key(tmp_path)
    public = tmp_path / PUBLIC_KEY_FILE
    before, text = public.stat(), public.read_text()
    ensure_signing_key(tmp_path)
    assert (public.stat().st_ino, public.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    public.write_text("another\n")
    ensure_signing_key(tmp_path)
    assert public.read_text() == text


def test_a_key_cut_short_is_refused_with_the_way_out(tmp_path: Path) -> None:
    ensure_signing_key(tmp_path)
    (tmp_path / PRIVATE_KEY_FILE).write_text("")
    with pytest.raises(BundleError, match=r"station\.ed25519: is none .*; bring the file back from a copy"):
        ensure_signing_key(tmp_path)


def test_a_key_that_cannot_be_written_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module.os, "fsync", full)
    with pytest.raises(BundleError, match="No space left"):
        ensure_signing_key(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file") as error:
        load_bundle(tmp_path / "none", None)
    _one_line(error, tmp_path / "none")


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff" * 4096])
def test_not_safetensors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(BundleError, match="not a safetensors file or truncated") as error:
        load_bundle(path, None)
    _one_line(error, path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated(small: Path, keys: Path, share: float) -> None:
    data = small.read_bytes()
    small.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BundleError, match="truncated"):
        load_bundle(small, keys)


def test_a_stranger_to_bundles(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(BundleError, match="not a model bundle"):
        load_bundle(path, None)


@pytest.mark.parametrize("change", ["value", "name", "dtype", "shape", "added", "removed"])
def test_changed_tensors(small: Path, keys: Path, change: str) -> None:
    def apply(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
        match change:
            case "value":
                tensors["a"][1, 2] += 1e-6 * 8
            case "name":
                tensors["c"] = tensors.pop("a")
            case "dtype":
                tensors["b"] = tensors["b"].view(torch.int16)
            case "shape":
                tensors["a"] = tensors["a"].view(3, 2)
            case "added":
                tensors["c"] = torch.zeros(1)
            case "removed":
                del tensors["n"]

    _rewrite(small, apply)
    with pytest.raises(BundleError, match="changed after it was signed"):
        load_bundle(small, keys)


def test_changed_manifest(small: Path, keys: Path) -> None:
    def apply(_: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        metadata["manifest"] = metadata["manifest"].replace('"x"', '"y"')

    _rewrite(small, apply)
    with pytest.raises(BundleError, match="changed after it was signed"):
        load_bundle(small, keys)


@pytest.mark.parametrize("field", ["key", "signature"])
def test_damaged_signature(small: Path, keys: Path, field: str) -> None:
    for value in ("", "zz", "00" * 32):
        _rewrite(small, lambda _, metadata, value=value: metadata.update({field: value}))
        with pytest.raises(BundleError, match=r"changed after it was signed|truncated"):
            load_bundle(small, keys)


def test_unknown_signer(small: Path, keys: Path, tmp_path: Path) -> None:
    strangers = tmp_path / "strangers"
    ensure_signing_key(strangers)
    with pytest.raises(BundleError, match=r"unknown key.*to trust it"):
        load_bundle(small, strangers)
    assert load_bundle(small, None).manifest["name"] == "x"
    with pytest.raises(BundleError, match="no such folder; `trusted_keys` is"):
        load_bundle(small, tmp_path / "nowhere")
    (strangers / "bad.pub").write_text("not a key")
    with pytest.raises(BundleError, match=r"bad\.pub.*64 hexadecimal"):
        load_bundle(small, strangers)


def test_resigning_does_not_make_a_stranger_trusted(small: Path, keys: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged.safetensors"
    save_bundle(forged, TENSORS, {"name": "x"}, signing_key=ensure_signing_key(tmp_path / "thief"))
    with pytest.raises(BundleError, match="unknown key"):
        load_bundle(forged, keys)


@pytest.mark.parametrize("manifest", ["{}", "[]", "not JSON", '{"format": "1"}', "[" * 100_000])
def test_a_manifest_of_another_kind_that_was_signed(
    small: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, manifest: str
) -> None:
    monkeypatch.setattr(bundle_module.json, "dumps", lambda *values, **how: manifest)
    save_bundle(small, {}, {}, signing_key=ensure_signing_key(keys))
    monkeypatch.undo()
    with pytest.raises(BundleError, match="not one of this program's") as error:
        load_bundle(small, keys)
    _one_line(error, small)


def test_a_key_that_is_no_text(small: Path, keys: Path, tmp_path: Path) -> None:
    for name, make in (
        ("x.pub", lambda path: path.write_bytes(b"\xff")),
        ("y.pub", lambda path: path.mkdir()),
    ):
        folder = tmp_path / f"with-{name}"
        folder.mkdir()
        make(folder / name)
        with pytest.raises(BundleError, match=rf"{name}.*64 hexadecimal"):
            load_bundle(small, folder)


def test_newer_format(small: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = bundle_module.FORMAT + 1
    monkeypatch.setattr(bundle_module, "FORMAT", newer)
    save_bundle(small, TENSORS, {"name": "x"}, signing_key=ensure_signing_key(keys))
    monkeypatch.undo()
    with pytest.raises(BundleError, match=f"format {newer} is newer than this program's {newer - 1}"):
        load_bundle(small, keys)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    small: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module.os, "fsync", full)
    with pytest.raises(BundleError, match="No space left"):
        save_bundle(small, TENSORS, {"name": "z"}, signing_key=ensure_signing_key(keys))
    assert small.read_bytes() == before
    assert [path.name for path in small.parent.iterdir()] == [small.name]


def test_unwritable_places_are_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        require_writable(tmp_path / "no" / "m.safetensors")
    with pytest.raises(BundleError, match="is a folder"):
        require_writable(tmp_path)


def test_an_inspector_survives_its_bundle_exactly(
    trained: Inspector, bundle_path: Path, keys: Path, good_images: list[NDArray[np.uint8]]
) -> None:
    again = Inspector.load(bundle_path, trusted_keys=keys, device="cpu")
    assert again.limits == trained.limits
    assert again.model_name == "tiny"
    assert again.model_id == trained.model_id == load_bundle(bundle_path, keys).model_id
    for image in good_images[:3]:
        one, two = trained.inspect(image), again.inspect(image)
        assert one.score == two.score
        assert np.array_equal(one.anomaly_map, two.anomaly_map)


def test_statistics_that_no_parts_can_have_are_refused_at_loading(
    bundle_path: Path, keys: Path, tmp_path: Path
) -> None:
    inspector = Inspector.load(bundle_path, trusted_keys=keys, device="cpu")
    assert isinstance(inspector.scoring, GaussianScoring)
    inspector.scoring.values["gains"][:] = -5.0
    inspector.save(tmp_path / "m.safetensors", ensure_signing_key(keys))
    with pytest.raises(BundleError, match="do not fit together"):
        Inspector.load(tmp_path / "m.safetensors", trusted_keys=keys, device="cpu")


def test_provenance_is_recorded(bundle_path: Path, keys: Path) -> None:
    manifest = load_bundle(bundle_path, keys).manifest
    facts = manifest["provenance"]
    assert facts["good_parts"] == 24
    assert facts["fitted_parts"] + facts["held_out_parts"] == 24
    assert len(facts["training_sha256"]) == 64
    assert manifest["versions"]["torch"]
    assert json.dumps(manifest["config"])


def test_contents_that_do_not_fit_are_a_bundle_error(bundle_path: Path, keys: Path) -> None:
    loaded = load_bundle(bundle_path, keys)
    tensors = {name: t for name, t in loaded.tensors.items() if name != "model.begin"}
    save_bundle(bundle_path, tensors, loaded.manifest, signing_key=ensure_signing_key(keys))
    with pytest.raises(BundleError, match="do not fit together"):
        Inspector.load(bundle_path, trusted_keys=keys, device="cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [("config", "none"), ("config", []), ("shapes", 7), ("limits", []), ("provenance", 7)],
)
def test_a_signed_manifest_that_holds_something_else(
    bundle_path: Path, keys: Path, key: str, value: object
) -> None:
    loaded = load_bundle(bundle_path, keys)
    save_bundle(
        bundle_path, loaded.tensors, {**loaded.manifest, key: value}, signing_key=ensure_signing_key(keys)
    )
    with pytest.raises(BundleError, match="do not fit together") as error:
        Inspector.load(bundle_path, trusted_keys=keys, device="cpu")
    _one_line(error, bundle_path)
