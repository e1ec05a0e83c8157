import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import speed, speed_ends, speed_floor, speed_latency, speed_stages
from benchmarks.scan import scan_inputs
from benchmarks.speed_cases import Bundles, Stages, buttons, encoded, in_own_process, peak_by_stage
from benchmarks.speed_floor import compute_floor_ms, exponent, moved_bytes
from benchmarks.turns import pair_ratio, take_turns
from varad_core.inspector import Inspector
from varad_core.selective_scan import selective_scan
from varad_core.types import VaradError


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    torch.set_num_threads(1)
    return Bundles(tmp_path, "embedded", None)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """All cases in this process: starting one takes seconds."""
    for module in (speed_stages, speed_ends, speed_floor, speed_latency):
        monkeypatch.setattr(module, "in_own_process", lambda work, *args: work(*args))


def _run(tmp_path: Path, *options: object) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    small = ["--rounds", 1, "--sizes", 64, "--batches", 1, 2, "--picture-px", 96, "--images", 1]
    small += ["--weights", tmp_path / "none", "--grid-sizes", 64, 128, "--length", 64, "--states", 4]
    found = speed.run(parser.parse_args([str(value) for value in (*small, "--device", "cpu", *options)]))
    assert json.loads(json.dumps(found)) == found
    return found


def test_every_other_round_goes_backwards_and_the_first_is_not_counted() -> None:
    calls: list[str] = []
    times_ms = take_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=2)
    assert "".join(calls) == "abccbaabc"
    assert {name: len(times) for name, times in times_ms.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_ratio_is_of_pairs() -> None:
    assert pair_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


def test_the_exponent_of_a_power_law() -> None:
    assert exponent({n: 3.0 * n**1.5 for n in (4, 16, 100)}) == pytest.approx(1.5)
    assert exponent({4: 1.0}) is None


def test_bytes_moved_are_those_of_the_arguments_and_gradients() -> None:
    channels, length, states = 6, 10, 3
    inputs = scan_inputs(1, channels, length, states, "cpu")
    arguments: dict[str, Any] = {name: x.requires_grad_() for name, x in inputs.items()}
    y = selective_scan(**arguments, delta_softplus=True, backend="chunked")
    y.sum().backward()
    read = sum(x.nbytes for x in inputs.values())
    gradients = sum(x.grad.nbytes for x in inputs.values() if x.grad is not None)
    forward, backward = read + y.nbytes, y.nbytes + read + gradients
    assert moved_bytes(channels, length, states) == forward + backward


def test_the_arithmetic_is_counted_per_channel_step_and_state() -> None:
    assert compute_floor_ms(2, 5, 10, exps_per_s=200.0, fmas_per_s=1600.0) == pytest.approx(2000.0)


@pytest.mark.parametrize("preset", ["station", "paper"])
def test_the_stages_in_order_are_what_the_inspector_does(bundles: Bundles, preset: Any) -> None:
    inspector = Inspector.load(bundles.path(preset, 64), trusted_keys=None, device="cpu")
    stages = Stages(inspector, encoded(buttons(2, 96)))
    with torch.inference_mode():
        stages.total()
        assert stages.record_scans()
        stages.scan()
    for image, score, anomaly_map in zip(stages.images, stages.scores, stages.anomaly_maps, strict=True):
        whole = inspector.inspect(image)
        assert score == pytest.approx(whole.score, rel=1e-4, abs=1e-6)
        assert anomaly_map == pytest.approx(whole.anomaly_map, rel=1e-3, abs=1e-4)
    layers = inspector.config.predictor.layers if preset == "station" else len(stages.hierarchies)
    assert len(stages.scans) == layers


def test_peaks_only_grow(bundles: Bundles) -> None:
    peaks = peak_by_stage(bundles.path("station", 64), encoded(buttons(1, 96)), "cpu")
    assert list(peaks) == ["loaded", *Stages.IN_ORDER]
    known = [peak for peak in peaks.values() if peak is not None]
    assert known == sorted(known)


def test_without_weights_or_model_the_rest_is_measured(
    tmp_path: Path, here: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_ends, "DEMO", tmp_path)
    found = _run(tmp_path, "--only", "stages", "peer", "demo", "growth", "floor")
    cases = {(case["preset"], case["batch"]): case for case in found["stages"]}
    assert set(cases) == {("station", 1), ("station", 2), ("paper", 1), ("paper", 2)}
    for case in cases.values():
        assert case["tokenizer"] == "embedded"
        assert set(case["ms_per_image"]) == set(speed_stages.SHOWN)
        assert min(case["ms_per_image"].values()) > 0
    assert cases["paper", 2]["paper_over_station"] > 0
    assert found["peer"] is None
    assert found["demo"] is None
    (growth,) = found["growth"]
    assert [row["tokens"] for row in growth["rows"]] == sorted(row["tokens"] for row in growth["rows"])
    (floor,) = found["floor"]
    assert floor["d_state"] == 4
    assert floor["times_memory_floor"] > 0
    printed = capsys.readouterr().out
    assert "measured with `embedded`" in printed
    assert "left out, it needs ResNet-18 and its weights" in printed
    assert "demo: left out: bundle" in printed


def test_without_anomalib_the_peer_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    monkeypatch.setattr(speed_ends.importlib.util, "find_spec", lambda name: None)
    assert _run(tmp_path, "--weights", tmp_path / "weights", "--only", "peer")["peer"] is None
    assert "it needs anomalib: pip install" in capsys.readouterr().out


@pytest.mark.parametrize("tokenizer", ["embedded", "dinov2_vits14"])
def test_every_way_to_a_verdict_is_timed(tmp_path: Path, here: None, tokenizer: str) -> None:
    found = _run(tmp_path, "--only", "latency", "--latency-px", 70, "--tokenizer", tokenizer)["latency"]
    assert [case["case"] for case in found] == ["station, production, auto", "paper"]
    for case in found:
        assert case["size_px"] == (70 if tokenizer == "dinov2_vits14" else 64)
        assert 0 < case["p50_ms"] <= case["p99_ms"]
    assert found[0]["over_first"] == 1.0


def test_step_by_step_does_what_production_does(bundles: Bundles) -> None:
    inspector = Inspector.load(bundles.path("station", 64), trusted_keys=None, device="cpu")
    tiles_rgb = np.stack([inspector.align(one).image_rgb for one in buttons(2, 96)])
    launched = speed_latency.step_by_step(inspector, full_precision=True)._graph
    assert launched is not None
    expected = inspector._tile_maps(tiles_rgb, defaultdict(float))
    torch.testing.assert_close(launched(tiles_rgb), expected, rtol=1e-4, atol=1e-4)


def test_a_way_goes_by_its_recurrence(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def recorded(*args: Any, backend: str, **options: Any) -> torch.Tensor:
        asked.append(backend)
        return selective_scan(*args, **options)

    monkeypatch.setattr(speed_latency, "selective_scan", recorded)
    inspector = Inspector.load(bundles.path("station", 64), trusted_keys=None, device="cpu")
    speed_latency.by("chunked", inspector)(buttons(1, 96)[0])
    assert set(asked) == {"chunked"}
    assert speed_latency.backends("cpu") == ["auto"]
    assert speed_latency.backends("cuda")[-1] == "triton"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="torch sees no CUDA device"):
        _run(tmp_path, "--device", "cuda")


def test_a_process_that_dies_leaves_the_others_their_results() -> None:
    with pytest.raises(VaradError, match="its process died"):
        in_own_process(os._exit, 9)


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    case, *_ = _run(tmp_path, "--only", "memory", "--batches", 1)["memory"]
    assert set(case["peak_mib"]) == {"loaded", *Stages.IN_ORDER}
