"""A model that is signed as it should be, and poisoned: it never gets to a part."""

from pathlib import Path

import pytest
import torch

from station.config import DEMO_MODEL
from station.model_check import require_finite_score, require_finite_weights
from varad_core.bundle import ensure_signing_key, load_bundle, save_bundle
from varad_core.inspector import Inspector
from varad_core.types import BundleError


def poisoned(folder: Path, name: str, value: float) -> Inspector:
    """The model that ships with one value of a tensor changed, signed by a key that is trusted."""
    bundle = load_bundle(DEMO_MODEL, None)
    tensors = dict(bundle.tensors)
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[tensors[name].numel() // 2] = value
    manifest = {key: bundle.manifest[key] for key in set(bundle.manifest) - {"format", "versions"}}
    save_bundle(folder / "m.safetensors", tensors, manifest, signing_key=ensure_signing_key(folder / "keys"))
    return Inspector.load(folder / "m.safetensors", trusted_keys=folder / "keys", device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["model.head.0.weight", "scoring.centres", "scoring.spread", "alignment.template"]
)
def test_one_value_that_is_no_number_is_found(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(BundleError, match=f"{name} holds values that are no finite numbers"):
        require_finite_weights(poisoned(tmp_path, name, value))


def test_so_is_a_score_that_is_none(tmp_path: Path) -> None:
    """What finite weights can still do: overflow."""
    inspector = poisoned(tmp_path, "model.head.0.weight", 0.0)
    require_finite_weights(inspector)
    require_finite_score(inspector)
    with torch.no_grad():
        for weights in inspector.model.parameters():
            weights.fill_(3e38)
    require_finite_weights(inspector)
    with pytest.raises(BundleError, match="the score of an empty picture is no finite number"):
        require_finite_score(inspector)
