"""Which time counts, of two clocks of which one may be wrong."""

from __future__ import annotations

import pytest

from osml_tasks.two_clocks import earlier, later

NOW = 1_800_000_000.0


@pytest.mark.parametrize(("server", "wall"), [(NOW, NOW), (NOW + 4000, NOW), (NOW, NOW + 4000)])
def test_a_clock_that_is_ahead_makes_nothing_late(server: float, wall: float) -> None:
    written = later(NOW, lambda: NOW)
    assert earlier(server, lambda: wall) - written == 0


@pytest.mark.parametrize(("server", "wall"), [(NOW - 4000, NOW), (NOW, NOW - 4000), (NOW + 4000, NOW)])
def test_what_is_written_down_by_a_wrong_clock_is_late_no_earlier(server: float, wall: float) -> None:
    written = later(server, lambda: wall)
    assert earlier(NOW, lambda: NOW) - written <= 0
