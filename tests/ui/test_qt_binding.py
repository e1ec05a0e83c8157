import sys

from PySide6.QtWidgets import QApplication, QWidget


def test_void_calls_keep_their_references_to_none(app: QApplication) -> None:
    # PySide 6.12.0 on Python 3.11 gives one away with every void call; after some thousand the process dies.
    widget = QWidget()
    widget.update()
    before = sys.getrefcount(None)
    for _ in range(500):
        widget.update()
    assert sys.getrefcount(None) > before - 250
