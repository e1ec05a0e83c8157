"""`station keys`: the keys by which screens on other machines are let in."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("keys", help="make the keys that let screens on other machines in")
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="of the line's keys; what exists there is kept"
    )
    parser.add_argument("--screen", metavar="NAME", help="also make the keys of a screen on another machine")
    parser.set_defaults(func=_keys)


def _keys(arguments: argparse.Namespace) -> int:
    from station.wire_keys import SCREENS, make_line_keys, make_screen_keys

    folder: Path = arguments.folder
    if not arguments.screen:
        make_line_keys(folder)
        print(f"line     {folder}: set publishing.keys to it; nobody else may read its *.secret")
        print(f"next     station keys {folder} --screen NAME, for each screen on another machine")
        return 0
    carried = make_screen_keys(folder, arguments.screen)
    allowed = folder / SCREENS / f"{arguments.screen}.public"
    print(f"screen   {carried}: move this folder to that machine, and leave no copy here")
    print(f"there    station ui --connect HOST --keys {carried.name}")
    print(f"allowed  as long as {allowed} is there; without it, from its next connection on it is shut out")
    return 0
