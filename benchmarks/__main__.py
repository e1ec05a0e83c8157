"""`python -m benchmarks NAME [options]`: run one benchmark, print its table, keep it with --json.

A benchmark is one module here with `add_arguments(parser)` and `run(args) -> dict`; what `run` returns is
written as JSON beside the facts of the machine.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reporting import machine_facts, print_facts, write_json

BENCHMARKS = {
    "scan": "speed of the recurrence's backends",
    "line": "the demo line: accuracy, latency, account",
    "limits": "whether reject limits keep their bound",
    "accuracy": "VarAD, PatchCore, PaDiM and STFPM on labelled sets",
    "ablation": "the station preset with one thing changed at a time",
    "robustness": "verdicts under other light, pose, focus and noise",
    "recovery": "how soon the demo line inspects again after a fault",
    "speed": "stages, the peer, growth with tokens, floors, memory",
    "handover": "from a camera's buffer to where the worker reads it",
    "load": "what the line adds to its detector, and where it saturates",
    "soak": "a line under a storm of faults: its account, its memory",
    "kill": "kill -9 of the engine: what was acknowledged is kept",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what README states.")
    commands = parser.add_subparsers(dest="name", required=True)
    modules = {}
    for name, summary in BENCHMARKS.items():
        modules[name] = importlib.import_module(f"benchmarks.{name}")
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
        modules[name].add_arguments(command)
    args = parser.parse_args(argv)
    if args.json and not args.json.absolute().parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.parent}; create it first")
    facts = machine_facts()
    print_facts(facts)
    results = modules[args.name].run(args)
    if args.json:
        write_json(args.json, {"benchmark": args.name, "machine": facts, "results": results})
    return 0 if results.get("exact", True) else 1


if __name__ == "__main__":
    sys.exit(main())
