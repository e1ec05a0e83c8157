import resource
import threading
from collections.abc import Callable, Iterator

import pytest
from PySide6.QtWidgets import QApplication
from screen_publisher import HOST, ScreenPublisher, make_preview, make_status, make_verdict

from station.types import Verdict
from ui.feed import KEPT_NOT_PASSED, Feed, Mail

WaitUntil = Callable[[Callable[[], bool]], None]


@pytest.fixture
def feed(app: QApplication, port: int) -> Iterator[Feed]:
    feed = Feed(HOST, port)
    feed.start()
    yield feed
    feed.close()


def hear(feed: Feed, publisher: ScreenPublisher, wait_until: WaitUntil) -> None:
    """Subscriptions take a moment to reach the publisher: repeat until both sockets are heard."""
    mail = Mail()

    def heard() -> bool:
        publisher.send(make_status())
        publisher.send(make_preview(1))
        taken = feed.take()
        mail.status, mail.picture = taken.status or mail.status, taken.picture or mail.picture
        return mail.status is not None and mail.picture is not None

    wait_until(heard)


def test_everything_arrives(feed: Feed, publisher: ScreenPublisher, wait_until: WaitUntil) -> None:
    hear(feed, publisher, wait_until)
    publisher.send(make_verdict(7))
    publisher.send(make_verdict(8, Verdict.REJECT))
    publisher.send(make_preview(8, Verdict.REJECT))
    seen = Mail()

    def complete() -> bool:
        mail = feed.take()
        seen.verdict = mail.verdict or seen.verdict
        seen.not_passed.extend(mail.not_passed)
        seen.not_passed_pictures.extend(mail.not_passed_pictures)
        return bool(seen.verdict and seen.not_passed_pictures)

    wait_until(complete)
    assert seen.verdict is not None
    assert seen.verdict.part_seq == 8
    assert [verdict.part_seq for verdict in seen.not_passed] == [8]
    assert [picture.part_seq for picture in seen.not_passed_pictures] == [8]
    assert feed.heard
    assert feed.silent_s() < 60


def test_a_flood_leaves_one_letter_and_little_memory(
    feed: Feed, publisher: ScreenPublisher, wait_until: WaitUntil
) -> None:
    hear(feed, publisher, wait_until)
    announced: list[None] = []
    feed.arrived.connect(lambda: announced.append(None))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    publisher.send(make_preview(2, Verdict.REJECT), times=1000)  # nobody empties the mailbox meanwhile
    publisher.send(make_verdict(3, Verdict.REJECT), times=100)
    publisher.send(make_preview(9999, Verdict.REJECT))

    def last_is_there() -> bool:
        with feed._lock:
            picture = feed._mail.picture
        return picture is not None and picture.part_seq == 9999

    wait_until(last_is_there)
    mail = feed.take()
    assert mail.picture is not None
    assert len(mail.not_passed_pictures) <= KEPT_NOT_PASSED
    assert len(mail.not_passed) <= KEPT_NOT_PASSED
    assert len(announced) <= 2  # one for the flood; the mailbox was announced, not every preview
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    assert grown_mib < 300  # kept, the thousand would be 2 GB of decoded pictures


def test_closing_joins_the_thread(app: QApplication, port: int) -> None:
    feed = Feed(HOST, port)
    feed.start()
    feed.close()
    feed.close()
    assert "feed" not in {thread.name for thread in threading.enumerate()}


def test_closing_before_the_start_is_no_error(app: QApplication, port: int) -> None:
    Feed(HOST, port).close()
