"""Results that are cached on a record."""

from __future__ import annotations

from dataclasses import replace

from cspprof.analysis.layer_rows import layer_rows
from cspprof.analysis.stages import stage_depths, stage_labels
from cspprof.profiles import Profile
from cspprof.storage.profile_file import to_bytes


def test_a_result_is_computed_once(chain: Profile) -> None:
    assert layer_rows(chain) is layer_rows(chain)
    assert stage_labels(chain) is stage_labels(chain)
    assert stage_depths(chain) is stage_depths(chain)


def test_arguments_have_results_of_their_own(chain: Profile) -> None:
    tagged = replace(chain, layers=tuple(layer._replace(stage="body") for layer in chain.layers))
    assert set(stage_labels(tagged)) == set(stage_labels(tagged, True)) == {"body"}
    assert list(stage_labels(tagged, use_tags=False)) == list(stage_labels(chain))
    assert {r.stage for r in layer_rows(tagged)} == {"body"}
    assert {r.stage for r in layer_rows(tagged, False)} == {r.stage for r in layer_rows(chain)}


def test_cached_results_are_not_part_of_the_record(chain: Profile) -> None:
    used = replace(chain)
    before = to_bytes(chain, compressed=False)
    layer_rows(used)
    assert used == chain
    assert replace(used, model=chain.model) == chain
    assert to_bytes(used, compressed=False) == before
