"""What is sent again and was only late: the window is given back, and little is repeated (RFC 3522, 3708, 4015)."""

from __future__ import annotations

from math import inf

import pytest

from tests.stack.line import Faults
from tests.stack.upload import Upload


@pytest.mark.parametrize("seconds", [0.3, 0.6, 2.0, 10.0])
def test_a_delay_is_not_taken_for_a_loss(seconds: float) -> None:
    """However many timeouts pass meanwhile, little more than one segment for each is sent in vain."""
    upload = Upload()
    before = upload.window
    upload.line.stalled_until = upload.line.now + seconds
    upload.go_on(lambda: upload.sender.trips.timeout > 0.3)
    assert upload.window == 1
    upload.go_on(lambda: upload.sender.congestion.window > 2 * 1368)
    assert upload.window >= before
    assert upload.sender.congestion.threshold == inf
    assert upload.sender.trips.smoothed > 0.05  # it is learnt from
    upload.deliver()
    assert upload.window >= before
    assert not upload.sender.is_recovering
    assert upload.repeated <= 12


def test_without_timestamps_a_duplicate_sack_restores_the_window() -> None:
    upload = Upload(stamps=False)
    before = upload.window
    upload.line.stalled_until = upload.line.now + 0.6
    upload.go_on(lambda: upload.window == 1)
    upload.deliver()
    assert upload.window >= before
    assert upload.sender.congestion.threshold == inf


def test_a_justified_timeout_is_not_undone() -> None:
    upload = Upload()
    upload.line.faults.mtu = 1000  # acknowledgements alone pass
    upload.go_on(lambda: upload.window == 1)
    upload.line.faults.mtu = 1500
    threshold = upload.sender.congestion.threshold
    upload.deliver()
    assert upload.sender.congestion.threshold == threshold


def test_only_the_first_of_several_timeouts_lowers_the_threshold() -> None:
    upload = Upload()
    upload.line.faults.loss = 1.0
    upload.go_on(lambda: upload.window == 1)
    threshold, until = upload.sender.congestion.threshold, upload.line.now + 10
    upload.go_on(lambda: upload.line.now > until)
    assert upload.sender.congestion.threshold == threshold
    assert upload.sender.congestion.window <= 1368


def test_the_reordering_window_adapts_to_overtaken_packets() -> None:
    """RFC 8985, 6.2, step 4: the first may be taken for lost; of 11,000 packets 110 are late."""
    upload = Upload(Faults(delay=0.002, late=0.01, late_by=0.003))
    upload.go_on(lambda: upload.sender.next > 15_000_000)
    assert upload.repeated <= 20
    assert upload.window > 100
    assert upload.sender.congestion.threshold > 100 * upload.sender.segment
