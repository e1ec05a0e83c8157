"""Does the reject limit keep its bound? A thousand lines, each calibrated on good parts of its own.

At 95 % confidence the true false-reject rate may exceed the bound on at most 5 % of lines.
`scores`: exact, of distributions whose tail is known.
`calibration`: synthetic tokens through the whole calibration, the rate from fresh parts.
`demo`: the demo's model, its limit drawn again and again from the scores of fresh rendered parts.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from benchmarks.reporting import print_table
from varad_core.config import PredictorConfig, ScoringConfig, VaradConfig
from varad_core.limits import fit_limits, parts_needed
from varad_core.model import create_model
from varad_core.token_store import TokenStore
from varad_core.train import calibrate, predict_all

CONFIDENCE = 0.95
RECHECK_QUANTILE = 0.97
TARGETS = (0.10, 0.05, 0.02, 0.01)
DISTRIBUTIONS = {
    "uniform": stats.uniform(),
    "normal": stats.norm(),
    "exponential": stats.expon(),
    "log-normal": stats.lognorm(1.0),
    "Student's t, 3": stats.t(3),
}
CHANNELS, SIDE = 6, 6  # of the synthetic tokens
FITTED = 60  # parts
DEMO = Path(__file__).resolve().parents[1] / "station" / "demo"
DEMO_SEED = 70_031  # a line used for nothing else

Rates = NDArray[np.float64]  # (lines,): true false-reject rate of each line's limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=("scores", "calibration", "demo"), default=None)
    parser.add_argument("--lines", type=int, default=1000, help="lines simulated for a row (default: 1000)")
    parser.add_argument("--held-out", type=int, nargs="+", default=[29, 59, 149], help="for `calibration`")
    parser.add_argument("--demo-parts", type=int, default=2000, help="good parts rendered (default: 2000)")
    parser.add_argument("--demo-scores", type=Path, metavar="FILE", help="keep or find their scores here")


def run(args: argparse.Namespace) -> dict[str, Any]:
    wanted = args.parts or ["scores", "calibration", "demo"]
    rows: list[dict[str, Any]] = []
    if "scores" in wanted:
        rows += [row for name in DISTRIBUTIONS for row in of_distribution(name, args.lines)]
    if "calibration" in wanted:
        rows += [of_calibration(held_out, args.lines) for held_out in args.held_out]
    results: dict[str, Any] = {"lines": args.lines, "confidence": CONFIDENCE}
    if "demo" in wanted:
        scores, shipped = demo_scores(args.demo_parts, args.demo_scores)
        rows += [of_pool(scores, target, args.lines) for target in TARGETS]
        results["demo_limit"] = shipped
    slack = float(stats.binom.ppf(0.999, args.lines, 1 - CONFIDENCE)) / args.lines
    header = ["scores of", "asked bound", "held-out parts", "bound", "lines outside", "mean true rate"]
    cells = [
        [row["source"], f"{row['asked']:.1%}" if row["asked"] else "-", str(row["held_out"])]
        + [f"{row[key]:.2%}" for key in ("bound", "outside", "mean_rate")]
        for row in rows
    ]
    print_table(header, cells)
    print(f"\nallowed outside: {1 - CONFIDENCE:.0%}; {slack:.1%} of {args.lines} lines by chance (1 in 1000)")
    if "demo_limit" in results:
        print(
            "the demo's own limit: {above} of {parts} fresh good parts above it (bound {bound:.1%})".format(
                **results["demo_limit"]
            )
        )
    return {**results, "outside_by_chance": slack, "rows": rows}


def summary(source: str, asked: float | None, held_out: int, bound: float, rates: Rates) -> dict[str, Any]:
    return {
        "source": source, "asked": asked, "held_out": held_out, "bound": bound,
        "outside": float((rates > bound).mean()), "mean_rate": float(rates.mean()),
    }  # fmt: skip


def of_distribution(name: str, lines: int) -> list[dict[str, Any]]:
    """As few parts as the bound needs, and four times as many, when the limit is no longer the highest."""
    return [
        summary(name, target, held_out, target, rates_of_draws(name, target, held_out, lines))
        for target in TARGETS
        for held_out in (parts_needed(target, CONFIDENCE), 4 * parts_needed(target, CONFIDENCE))
    ]


def rates_of_draws(name: str, target: float, held_out: int, lines: int) -> Rates:
    distribution = DISTRIBUTIONS[name]
    draws = distribution.rvs((lines, held_out), random_state=np.random.default_rng(0))
    limits = [fit_limits(scores, target, CONFIDENCE, RECHECK_QUANTILE).reject for scores in draws]
    return np.asarray(distribution.sf(limits), np.float64)


def of_calibration(held_out: int, lines: int) -> dict[str, Any]:
    pairs = [calibrated_line(line, held_out, max(300, 6 * held_out)) for line in range(lines)]
    return summary("calibration", None, held_out, pairs[0][0], np.array([rate for _, rate in pairs]))


@torch.inference_mode()
def calibrated_line(line: int, held_out: int, fresh: int) -> tuple[float, float]:
    """One line through `calibrate`: its bound, and the share of `fresh` other parts above its limit."""
    config = VaradConfig(
        predictor=PredictorConfig(d_model=8, layers=1, d_state=2, dt_rank=1),
        scoring=ScoringConfig(clusters=8, rank=4, top_share=0.02),
    )
    torch.manual_seed(line)
    draw = synthetic_line(line)
    model = create_model(config, [(CHANNELS, SIDE, SIDE)]).eval()
    for parameter in model.parameters():  # any predictor will do, if it looks at its neighbours
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.fit_tokens([draw(FITTED)])
    with TokenStore() as store:
        for part, count in enumerate((FITTED, held_out, fresh)):
            store.append(model.prepare([draw(count)]), part)
        fitted_rows, held_out_rows, fresh_rows = (
            np.flatnonzero(np.array(store.owners) == k) for k in range(3)
        )
        scoring, scores = calibrate(model, store, fitted_rows, held_out_rows, config)
        others = predict_all(model, store, fresh_rows, batch_size=250)
    limits = fit_limits(scores, None, CONFIDENCE, RECHECK_QUANTILE)
    above = scoring.scores(scoring.maps(others)).double() > limits.reject
    return limits.false_reject_bound, float(above.double().mean())


def synthetic_line(line: int) -> Callable[[int], Tensor]:
    """Tokens of a product's good parts, (n, CHANNELS, SIDE, SIDE): channels and neighbours correlated, places
    alike or not, some parts rougher than others, by how much differs from product to product."""
    rng = np.random.default_rng(line)
    mixing = rng.normal(size=(CHANNELS, CHANNELS))
    places = rng.choice([0.0, 1.0]) * rng.normal(size=(1, CHANNELS, SIDE, SIDE))
    roughness = rng.choice([0.0, 0.3, 1.0])

    def draw(n: int) -> Tensor:
        white = rng.normal(size=(n, CHANNELS, SIDE, SIDE))
        white = white + np.roll(white, 1, 2) + np.roll(white, 1, 3)
        parts = np.exp(roughness * rng.normal(size=(n, 1, 1, 1)))
        return torch.from_numpy(places + parts * np.einsum("ij,njhw->nihw", mixing, white)).float()

    return draw


def of_pool(scores: NDArray[np.float64], target: float, lines: int) -> dict[str, Any]:
    """Limits from as few of these parts as the bound needs, the rate from all the others."""
    held_out = parts_needed(target, CONFIDENCE)
    rng = np.random.default_rng(0)
    rates = np.empty(lines)
    for line in range(lines):
        order = rng.permutation(scores)
        limit = fit_limits(order[:held_out], target, CONFIDENCE, RECHECK_QUANTILE).reject
        rates[line] = (order[held_out:] > limit).mean()
    return summary("demo", target, held_out, target, rates)


def demo_scores(parts: int, kept: Path | None) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Scores of rendered good parts, and what the model's own limit makes of them."""
    from station.demo.training import demo_part
    from varad_core.inspector import Inspector

    inspector = Inspector.load(DEMO / "model.safetensors", trusted_keys=DEMO, device="cpu")
    scores = np.load(kept) if kept and kept.is_file() else np.empty(0)
    if len(scores) < parts:
        scores = np.array([inspector.inspect(demo_part(DEMO_SEED, i).image_rgb).score for i in range(parts)])
        if kept:
            np.save(kept, scores)
    scores = np.asarray(scores[:parts], np.float64)
    limits = inspector.limits
    return scores, {
        "model_id": inspector.model_id,
        "parts": len(scores),
        "above": int((scores > limits.reject).sum()),
        "bound": limits.false_reject_bound,
    }
