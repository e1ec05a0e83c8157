"""The shift report on demand: written by the station's own command, in a process of its own."""

import sys
from pathlib import Path

from PySide6.QtCore import QProcess, QRect, QRectF, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QWidget

from ui import theme
from ui.button import TouchButton
from ui.canvas import Canvas
from ui.page import Page

_MAX_FILES = 4


class ReportPage(Page):
    """Starts writing when opened; lists what was written, and opens it."""

    def __init__(self, parent: QWidget, config_path: Path) -> None:
        super().__init__(parent, "Shift report", "the report of this shift so far")
        self._command = ["-m", "station.cli", "report", "--current-shift", "--format", "html,pdf"]
        self._command += ["--config", str(config_path)]
        self._message = ""
        self._files: list[Path] = []
        self._content = QRect()
        self._process = QProcess(self)
        self._process.finished.connect(self._finished)
        self._process.errorOccurred.connect(self._failed)
        self._again = TouchButton("Write again", "Write the report of this shift so far", self, "W")
        self._again.clicked.connect(self.write)
        self._open = [TouchButton("Open", "Open this file", self) for _ in range(_MAX_FILES)]
        for index, button in enumerate(self._open):
            button.clicked.connect(lambda _checked, index=index: self._show_file(index))
        self._tell("No report asked for yet.")

    def write(self) -> None:
        """Start the command, unless it is under way."""
        if self._process.state() is QProcess.ProcessState.NotRunning:
            self._files = []
            self._tell("Writing the report of this shift so far ...")
            self._process.start(sys.executable, self._command)

    def stop(self) -> None:
        """End a report that is being written; nothing half-written stays, the command sees to that."""
        self._process.blockSignals(True)
        if self._process.state() is not QProcess.ProcessState.NotRunning:
            self._process.kill()
            self._process.waitForFinished(2000)

    def _finished(self, code: int, status: QProcess.ExitStatus) -> None:
        output = self._process.readAllStandardOutput().toStdString()
        problem = self._process.readAllStandardError().toStdString().strip()
        if status is not QProcess.ExitStatus.NormalExit or code != 0:
            why = problem.splitlines()[-1] if problem else f"the command ended with {code}"
            self._tell(f"The report could not be written: {why}")
            return
        words = (line.strip().removeprefix("station: wrote ").strip() for line in output.splitlines())
        self._files = [path for path in map(Path, words) if path.is_file()][:_MAX_FILES]
        self._tell(
            "The report is written." if self._files else f"The command named no file: {output.strip()}"
        )

    def _failed(self, error: QProcess.ProcessError) -> None:
        if error is QProcess.ProcessError.FailedToStart:
            self._tell(f"The report could not be started: {self._process.errorString()}")

    def _show_file(self, index: int) -> None:
        path = self._files[index]
        if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))):
            self._tell(
                f"No program here opens {path.suffix} files. The file is written; fetch it from its folder."
            )

    def _tell(self, message: str) -> None:
        self._message = message
        running = self._process.state() is not QProcess.ProcessState.NotRunning
        self._again.setEnabled(not running)
        for index, button in enumerate(self._open):
            button.setVisible(index < len(self._files))
            if index < len(self._files):
                button.setAccessibleDescription(f"Open {self._files[index]}")
        self.say(" ".join([message, *map(str, self._files)]))

    def lay_out(self, content: QRect) -> None:
        """One row a file, the repeat button at the bottom."""
        k = self.k
        self._content = content
        for index, button in enumerate(self._open):
            row = self._row(index)
            button.setGeometry(
                row.right() - round(170 * k),
                row.y() + round(8 * k),
                round(162 * k),
                row.height() - round(16 * k),
            )
            button.rescale(k)
        height_px = round(76 * k)
        self._again.setGeometry(content.x(), content.bottom() - height_px + 1, round(300 * k), height_px)
        self._again.rescale(k)

    def _row(self, index: int) -> QRect:
        k = self.k
        return QRect(
            self._content.x(),
            self._content.y() + round((70 + index * 100) * k),
            self._content.width(),
            round(88 * k),
        )

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """What happened, and where the files are."""
        super().paint(canvas, area)
        k = self.k
        top = QRectF(self._content.x(), self._content.y(), self._content.width(), 56 * k)
        canvas.text(top, self._message, 26 * k, shrink_to_px=16 * k)
        for index, path in enumerate(self._files):
            row = QRectF(self._row(index))
            canvas.panel(row, theme.BACKGROUND, theme.RADIUS_PX * k)
            text = row.adjusted(16 * k, 10 * k, -190 * k, -10 * k)
            half = text.height() / 2
            canvas.text(
                QRectF(text.x(), text.y(), text.width(), half),
                path.name,
                26 * k,
                bold=True,
                shrink_to_px=18 * k,
            )
            folder = QRectF(text.x(), text.y() + half, text.width(), half)
            canvas.text(folder, str(path.parent), 20 * k, theme.DIM, shrink_to_px=15 * k)
