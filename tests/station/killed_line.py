"""A line that prints each acknowledged part, for a test that kills it. Argument: the data folder."""

import sys
import threading
from pathlib import Path

from scripted_line import STAND_IN, ScriptedCamera, line_config

from db.writer import PartRow
from station.engine import Engine


class TellingEngine(Engine):
    def _recorded(self, row: PartRow) -> None:
        print(row.uid, flush=True)  # the acknowledgement, as the world outside sees it
        super()._recorded(row)


def main() -> None:
    config = line_config(
        Path(sys.argv[1]), trigger={"interval_ms": 5.0}, record={"linger_ms": 5.0, "pass_image_every": 3}
    )
    script = [(50, 0, 0), (150, 0, 0), (95, 0, 0), "failed"]
    engine = TellingEngine(config, cameras=[ScriptedCamera(script)], command=STAND_IN)
    engine.start()
    print(f"worker {engine.worker_pid}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
