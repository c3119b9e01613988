"""What follows from a profile alone is worked out once, and is no part of it."""

from __future__ import annotations

from dataclasses import replace

from cspprof.analysis.layer_rows import rows
from cspprof.analysis.stages import depths, stages
from cspprof.profiles import Profile
from cspprof.storage.profile_file import to_bytes


def test_rows_stages_and_depths_are_worked_out_once(chain: Profile) -> None:
    assert rows(chain) is rows(chain)
    assert stages(chain) is stages(chain)
    assert depths(chain) is depths(chain)


def test_each_question_has_its_own_answer(chain: Profile) -> None:
    tagged = replace(chain, layers=tuple(layer._replace(stage="body") for layer in chain.layers))
    assert set(stages(tagged)) == set(stages(tagged, True)) == {"body"}
    assert list(stages(tagged, tags=False)) == list(stages(chain))
    assert {r.stage for r in rows(tagged)} == {"body"}
    assert {r.stage for r in rows(tagged, False)} == {r.stage for r in rows(chain)}


def test_a_profile_is_what_it_was(chain: Profile) -> None:
    asked = replace(chain)
    before = to_bytes(chain, compressed=False)
    rows(asked)
    assert asked == chain
    assert replace(asked, model=chain.model) == chain
    assert to_bytes(asked, compressed=False) == before
