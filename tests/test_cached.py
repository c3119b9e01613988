"""Results that are cached on a record."""

from __future__ import annotations

from dataclasses import replace

from cspprof.analysis.layer_rows import rows
from cspprof.analysis.stages import depths, stages
from cspprof.profiles import Profile
from cspprof.storage.profile_file import to_bytes


def test_a_result_is_computed_once(chain: Profile) -> None:
    assert rows(chain) is rows(chain)
    assert stages(chain) is stages(chain)
    assert depths(chain) is depths(chain)


def test_arguments_have_results_of_their_own(chain: Profile) -> None:
    tagged = replace(chain, layers=tuple(layer._replace(stage="body") for layer in chain.layers))
    assert set(stages(tagged)) == set(stages(tagged, True)) == {"body"}
    assert list(stages(tagged, tags=False)) == list(stages(chain))
    assert {r.stage for r in rows(tagged)} == {"body"}
    assert {r.stage for r in rows(tagged, False)} == {r.stage for r in rows(chain)}


def test_cached_results_are_not_part_of_the_record(chain: Profile) -> None:
    used = replace(chain)
    before = to_bytes(chain, compressed=False)
    rows(used)
    assert used == chain
    assert replace(used, model=chain.model) == chain
    assert to_bytes(used, compressed=False) == before
