"""A few of the faults of ``make chaos``, on a rig of their own: nothing lost, nothing doubled, nothing left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.faults import Fault, all_faults
from tests.chaos.renewed_rig import RenewedRig

QUICK = [fault for fault in all_faults() if fault.quick]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenewedRig]:
    with RenewedRig(tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_it_costs_no_feature_and_leaves_no_object(rig: RenewedRig, fault: Fault) -> None:
    row = rig.run(fault)
    assert fault.is_survived(row), row
