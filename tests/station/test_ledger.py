import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.ledger import Ledger, LedgerError
from station.types import Reason, Verdict


@given(st.lists(st.tuples(st.sampled_from(Verdict), st.booleans(), st.booleans())))
def test_the_equation_holds_after_every_step(parts: list[tuple[Verdict, bool, bool]]) -> None:
    ledger = Ledger()
    recorded = 0
    for number, (verdict, is_decided, is_recorded) in enumerate(parts):
        ledger.open(number)
        assert ledger.snapshot().balanced()
        if is_decided:
            ledger.decide(number, verdict, Reason.STOPPED)
            assert ledger.snapshot().balanced()
            if is_recorded:
                ledger.record(number)
                recorded += 1
    account = ledger.snapshot()
    assert account.balanced()
    assert account.triggered == len(parts)
    assert account.in_flight == sum(not is_decided for _, is_decided, _ in parts)
    assert account.rows == recorded
    assert account.reject == sum(verdict is Verdict.REJECT and decided for verdict, decided, _ in parts)


def test_a_part_has_one_verdict_and_one_row() -> None:
    ledger = Ledger()
    ledger.open(1)
    with pytest.raises(LedgerError, match="part 1 was triggered twice"):
        ledger.open(1)
    with pytest.raises(LedgerError, match="recorded without a verdict"):
        ledger.record(1)
    ledger.decide(1, Verdict.PASS, Reason.BELOW_LIMIT)
    with pytest.raises(LedgerError, match="not in flight"):
        ledger.decide(1, Verdict.REJECT, Reason.ABOVE_REJECT)
    ledger.record(1)
    with pytest.raises(LedgerError, match="or twice"):
        ledger.record(1)
    assert ledger.snapshot().rows == 1
