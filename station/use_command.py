"""`station use-model`: another model for a line that runs, without stopping it."""

import argparse
import time
from pathlib import Path

from station.line_commands import add_config_argument

_ASK_EVERY_S = 0.5


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "use-model", help="change the model of a line that runs, until it stops; no part is lost"
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="model file written by `station train`")
    parser.add_argument(
        "--camera", default="", metavar="ID", help="which camera's, where the line has several"
    )
    parser.add_argument("--user", default="", metavar="NAME", help="who changes it, for the record")
    add_config_argument(parser)
    parser.set_defaults(func=_use_model)


def _use_model(arguments: argparse.Namespace) -> int:
    from station.client import CommandClient, CommandError
    from station.config import load_config
    from station.screen_address import screen_address

    where = screen_address(load_config(arguments.config), None, None)
    camera = {"camera": arguments.camera} if arguments.camera else {}
    wanted = {"bundle": str(arguments.bundle.resolve())}
    client = CommandClient(where.host, where.port, keys=where.keys)
    try:
        last = client.send("model", user=arguments.user, **camera, **wanted)
        print(f"{last['model']} runs on while {arguments.bundle} is loaded", flush=True)
        while last["loading"] and last["bundle"] == wanted["bundle"]:
            time.sleep(_ASK_EVERY_S)
            last = client.send("model", **camera)
    finally:
        client.close()
    if last["bundle"] != wanted["bundle"]:
        raise CommandError(f"somebody has asked for {last['bundle']} since; see the record")
    if last["failed"]:
        raise CommandError(f"the model is still {last['model']}: {last['failed']}")
    print(f"model changed from {last['old']} to {last['new']}, until the line stops")
    place = f"model.bundle: {wanted['bundle']}"
    if arguments.camera:
        place = f"model.views: {{{arguments.camera}: {wanted['bundle']}}}"
    print(f"to start with it next time, in {arguments.config}: {place}")
    return 0
