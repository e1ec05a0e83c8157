from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QProcess
from PySide6.QtWidgets import QApplication
from test_history import record_parts

from station.types import Verdict
from ui.report_page import ReportPage

WaitUntil = Callable[[Callable[[], bool]], None]


@pytest.fixture
def page(app: QApplication, config: Path) -> Iterator[ReportPage]:
    page = ReportPage(None, config)  # type: ignore[arg-type]
    page.resize(1100, 700)
    page.show()
    yield page
    page.stop()
    page.close()


@pytest.mark.slow
def test_the_report_is_written_and_listed(page: ReportPage, tmp_path: Path, wait_until: WaitUntil) -> None:
    record_parts(tmp_path / "data", [Verdict.REJECT, Verdict.PASS])
    page.write()
    assert "Writing" in page.accessibleDescription()
    wait_until(lambda: page._process.state() is QProcess.ProcessState.NotRunning)
    said = page.accessibleDescription()
    assert said.startswith("The report is written."), said
    assert {path.suffix for path in page._files} == {".html", ".pdf"}
    assert all(path.is_relative_to(tmp_path) and path.stat().st_size > 1000 for path in page._files)
    assert [button.isVisible() for button in page._open] == [True, True, False, False]


@pytest.mark.slow
def test_a_report_that_fails_says_why(page: ReportPage, tmp_path: Path, wait_until: WaitUntil) -> None:
    page.write()  # there is no record
    wait_until(lambda: page._process.state() is QProcess.ProcessState.NotRunning)
    assert page.accessibleDescription().startswith("The report could not be written: ")
    assert "station.db" in page.accessibleDescription()
    assert not any(button.isVisible() for button in page._open)
    assert page._again.isEnabled()


def test_leaving_ends_a_report_under_way(page: ReportPage) -> None:
    page.write()
    page.stop()
    assert page._process.state() is QProcess.ProcessState.NotRunning
