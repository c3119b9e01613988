"""Saved profiles: what is saved can be loaded, also from earlier versions, and a damaged file gives a clear error."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

import cspprof
from cspprof.core.errors import CspprofError, ProfileError
from cspprof.profiles import Profile
from cspprof.storage import profile_file
from cspprof.storage.profile_file import from_bytes, to_bytes, to_dict

FILE_OF_0_1_0 = Path(__file__).parent / "data" / "0.1.0.profile.json.gz"
"""A user's network with a shared layer, saved by cspprof 0.1.0: the first gzip member ends with the entry `head`."""


@pytest.mark.parametrize("suffix", [".profile.json", ".profile.json.gz"])
def test_saving_and_loading(tmp_path: Path, suffix: str) -> None:
    p = cspprof.profile("csp_resnet50")
    path = p.save(tmp_path / f"a{suffix}")
    assert Profile.load(path) == p
    assert p.save(tmp_path / f"b{suffix}").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", [".profile.json", ".profile.json.gz"])
def test_a_file_of_version_0_1_0_loads(tmp_path: Path, suffix: str) -> None:
    content = gzip.decompress(FILE_OF_0_1_0.read_bytes())
    file = tmp_path / f"x{suffix}"
    file.write_bytes(FILE_OF_0_1_0.read_bytes() if suffix.endswith("gz") else content)
    p = Profile.load(file)
    totals = json.loads(content)["head"]["totals"]
    assert {name: p.total(name) for name in totals} == {
        name: amount[1] if amount[0] == "Peak" or amount[2] == 1 else amount[1] / amount[2]
        for name, amount in totals.items()
    }
    assert (p.model, p.source, p.complete) == ("net.py:Net", "net.py:Net", True)
    assert p.layers[-1].shared_with == ("again",)
    assert Profile.load(p.save(tmp_path / "again.profile.json.gz")) == p


@pytest.mark.parametrize("name", ["", "stem.0", 'say "a"', "back\\slash", "two\nlines", "del\x7f", "größe", "\u2028"])
def test_any_layer_name_can_be_saved(chain: Profile, name: str) -> None:
    layers = (*chain.layers[:-1], chain.layers[-1]._replace(path=name))
    assert from_bytes(to_bytes(replace(chain, layers=layers), compressed=False), "x").layers == layers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a saved profile"),
        ("[]", "has schema None"),
        ('{"schema": "cspprof.record/99"}', "has schema 'cspprof.record/99'; this version reads"),
        ('{"schema": "cspprof.record/2"}', "is damaged"),
    ],
)
def test_a_file_with_other_content_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "x.profile.json"
    file.write_text(content)
    with pytest.raises(CspprofError, match=message):
        Profile.load(file)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path, chain: Profile) -> None:
    file = chain.save(tmp_path / "x.profile.json.gz")
    data = bytearray(file.read_bytes())
    for i in range(20, 60):
        data[i] ^= 255
    file.write_bytes(data)
    with pytest.raises(CspprofError, match="is not a saved profile"):
        Profile.load(file)


@pytest.mark.parametrize("column", ["path", "class", "params"])
def test_columns_of_different_lengths_are_refused(chain: Profile, column: str) -> None:
    document = to_dict(chain)
    document["layers"][column].pop()
    with pytest.raises(ProfileError, match="is damaged"):
        from_bytes(json.dumps(document).encode(), "x")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CspprofError, match=r"cannot read .*: Is a directory") as refused:
        Profile.load(tmp_path)
    assert refused.value.hint == "Name another file."


# -- files that are made to take much memory ------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(ProfileError) as refused:
        profile_file.load(path)
    return str(refused.value)


@pytest.mark.slow
def test_small_file_that_unpacks_to_a_gigabyte_is_refused(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(b'{"schema":"') + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b" " * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    file = tmp_path / "bomb.profile.json.gz"
    file.write_bytes(head + block * 1024 + packer.flush())
    tracemalloc.start()
    try:
        assert "it unpacks to more than 67,108,864 bytes" in refusal(file)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 200_000, "nested too deeply"), ("[" + "[]," * 4_000_001 + "0]", "more than 4,000,000 values")],
)
def test_document_beyond_the_limits_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "large.profile.json"
    file.write_text(text)
    assert message in refusal(file)
