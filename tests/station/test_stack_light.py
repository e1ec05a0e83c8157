from pathlib import Path

import pytest
from line_runs import PASS, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config

from drivers.errors import OutputError
from drivers.ladder import LadderSettings
from drivers.outputs import SimulatedOutput
from drivers.plc_simulator import PlcSimulator
from station.engine import Engine
from station.stack_light import StackLightStage, lamps_lit
from station.types import Alarm, EngineState


def alarm(priority: str = "high", acknowledged: bool = False, active: bool = True) -> Alarm:
    return Alarm("key", priority, "title", "action", 0, acknowledged, active)


@pytest.mark.parametrize(
    ("state", "alarms", "lit"),
    [
        (EngineState.RUNNING, [], {"green"}),
        (EngineState.RUNNING, [alarm("low")], {"green", "amber"}),
        (EngineState.RUNNING, [alarm(acknowledged=True)], {"green"}),
        (EngineState.RUNNING, [alarm(active=False)], {"green"}),
        (EngineState.PAUSED, [], {"amber"}),
        (EngineState.PAUSED, [alarm()], {"amber", "buzzer"}),
        (EngineState.STARTING, [], {"amber"}),
        (EngineState.FAULT, [alarm()], {"red", "buzzer"}),
        (EngineState.FAULT, [alarm(acknowledged=True)], {"red"}),
        (EngineState.STOPPED, [alarm()], set()),
    ],
)
def test_the_lamps_say_what_the_line_is(state: EngineState, alarms: list[Alarm], lit: set[str]) -> None:
    assert lamps_lit(state, alarms) == lit


def test_a_lamp_that_fails_is_told_tried_again_and_the_others_shine(no_leaks: None) -> None:
    class Broken(SimulatedOutput):
        broken = True

        def open(self) -> None:
            if self.broken:
                raise OutputError("no answer; check its cable")
            super().open()

    lamps, said, failed = {"green": Broken(), "red": SimulatedOutput()}, [], []
    stage = StackLightStage(
        lamps, lambda: frozenset({"green", "red"}), lambda *told: said.append(told), failed.append
    )
    stage.start()
    wait_until(lambda: lamps["red"].is_on)
    assert said == [("warn", "green lamp: no answer; check its cable")]
    lamps["green"].broken = False  # type: ignore[attr-defined]
    wait_until(lambda: lamps["green"].is_on)
    wait_until(lambda: said[-1] == ("ok", "ready"))
    stage.stop()
    stage.join(10)
    assert not any(lamp.is_on for lamp in lamps.values())
    assert failed == []


def test_lamps_on_coils_follow_the_line(no_leaks: None, tmp_path: Path) -> None:
    plc = PlcSimulator(LadderSettings())
    plc.start()

    def coil(number: int) -> dict[str, object]:
        return {"driver": "modbus", "host": plc.host, "port": plc.port, "coil": number}

    lamps = {name: coil(number) for number, name in enumerate(("green", "amber", "red", "buzzer"))}
    config = line_config(tmp_path, outputs={"stack_light": lamps})
    engine = Engine(config, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    engine.start()
    wait_until(lambda: plc.coils()[:4] == [True, False, False, False])
    engine.command("pause", {"reason": "lunch"})
    wait_until(lambda: plc.coils()[:4] == [False, True, False, False])
    engine.health.device("camera", "fault", "unplugged", "check its cable")
    engine.command("start", {})
    wait_until(lambda: plc.coils()[:4] == [False, False, True, True])
    engine.stop("done")
    assert plc.coils()[:4] == [False] * 4
    plc.stop()
