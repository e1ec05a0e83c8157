"""A line as `station serve` runs it, which also says what the world outside has been told of each part.

One line a fact on standard output, unbuffered, so that it outlives a kill:

    started PID        the worker's; the first part may come
    recorded UID       the row has been acknowledged
    heard UID SESSION TRIGGER    the PLC's trigger has become this part
    ended TRIGGERED ROWS    the account at an orderly stop
"""

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.cameras import PreparedCamera, StormCamera
from db.writer import PartRow
from drivers.types import Trigger
from station.config import load_config
from station.engine import Engine, StartError
from station.keeping import part_uid
from station.line_commands import finish, running, wait

STAND_IN = [sys.executable, "-m", "benchmarks.standin"]


def say(*words: object) -> None:
    os.write(sys.stdout.fileno(), (" ".join(str(word) for word in words) + "\n").encode())


class ToldEngine(Engine):
    def _recorded(self, row: PartRow) -> None:
        say("recorded", row.uid)
        super()._recorded(row)

    def plc_triggered(self, missed: bool, part_id: int | None) -> Trigger | None:
        trigger = super().plc_triggered(missed, part_id)
        if trigger is not None:
            plc: Any = self.sorting._plc  # the only place that knows which of the PLC's parts this is
            talk = plc._handshake
            say("heard", part_uid(self.run_id, trigger.part_seq), talk._plc_session, talk._trigger)
        return trigger


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--prepared", action="store_true", help="prepared pictures instead of a camera")
    parser.add_argument("--storm", action="store_true", help="the camera does what standard input says")
    parser.add_argument("--think-ms", type=float, help="a stand-in instead of the configured model")
    parser.add_argument("--parts", type=int, help="stop after so many")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    camera: PreparedCamera | StormCamera | None = None
    if arguments.prepared:
        camera = PreparedCamera(config.cameras[0])
    elif arguments.storm:
        camera = StormCamera(config.cameras[0])
        threading.Thread(target=camera.listen, args=(sys.stdin,), name="storm", daemon=True).start()
    command = None if arguments.think_ms is None else [*STAND_IN, "--think-ms", str(arguments.think_ms)]
    cameras = [camera] if camera else None
    try:
        with running(ToldEngine(config, parts=arguments.parts, cameras=cameras, command=command)) as engine:
            say("started", engine.worker_pid)
            wait(engine)
    except StartError as error:
        print(f"the line did not start: {error}", file=sys.stderr)
        return 2
    account = engine.ledger.snapshot()
    say("ended", account.triggered, account.rows)
    return finish(engine, False, {})


if __name__ == "__main__":
    sys.exit(main())
