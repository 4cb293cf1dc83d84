"""Colours of classes: the same in every job, and different from each other."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from osml_tasks.imagery.class_colours import UNCLASSIFIED, class_colours

NAMES = st.lists(st.text(min_size=1), unique=True)


@given(NAMES, st.randoms())
def test_colours_do_not_depend_on_the_order_of_arrival(names: list[str], order: random.Random) -> None:
    shuffled = names + names
    order.shuffle(shuffled)
    assert class_colours(shuffled) == class_colours(names)


@given(NAMES.filter(lambda names: len(names) <= 12))
def test_up_to_twelve_classes_have_colours_of_their_own(names: list[str]) -> None:
    colours = class_colours([*names, ""])
    assert len(set(colours.values())) == len(names) + 1
    assert colours[""] == UNCLASSIFIED


def test_a_class_keeps_its_colour_from_job_to_job() -> None:
    alone = {name: class_colours([name])[name] for name in ("ship", "vehicle", "aircraft")}
    assert alone == {"ship": (0x00, 0x9E, 0x73), "vehicle": (0xD5, 0x5E, 0x00), "aircraft": (0xCC, 0x79, 0xA7)}
