"""A saved profile's first line has its totals, and is believed only where they cannot be others: these tests try to
get a wrong one."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT

import cspprof
from cspprof import head, saving
from cspprof.errors import ProfileError
from cspprof.gate.checking import check, update
from cspprof.gate.config import Model
from cspprof.gate.loading import Config, load
from cspprof.gate.measured import Measured, measured
from cspprof.gate.measuring import profile_of
from cspprof.glance import Glance, glance_at
from cspprof.head import believed, fingerprint_of
from cspprof.metrics import METRICS, Metric, metric
from cspprof.record import Kind, Profile
from cspprof.saving import from_bytes, to_bytes
from cspprof.structure import structure

ENDINGS = [".profile.json", ".profile.json.gz"]
MODELS = ["resnet10", "csp_resnext50", "darknet53", "csp_peleenet", "hardnet39ds", "yolov3_tiny_prn", "mobilenet_v2",
          "densenet121", "thundernet_snet49"]  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def saved(request: pytest.FixtureRequest) -> Profile:
    return cspprof.profile(request.param)


@pytest.fixture
def ours() -> Iterator[None]:
    """The numbers that come with cspprof are back afterwards, in their order."""
    before = dict(METRICS.items())
    yield
    for name in list(METRICS):
        METRICS.remove(name)
    for name, number in before.items():
        METRICS.add(name, number)


def unread(*_: Any) -> Any:
    raise AssertionError("the whole profile is read")


def project(folder: Path, profile: Profile, ending: str, rules: str) -> Config:
    profile.save(folder / f"net{ending}")
    config = folder / "cspprof.toml"
    config.write_text(f'[models.net]\ntarget = "net{ending}"\n{rules}')
    return load(config)


SAME_CIO = '[[rules]]\nid = "cio"\nmax_increase = "0%"\n'


# -- what it says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_the_line_has_what_the_whole_profile_gives(saved: Profile, compressed: bool) -> None:
    data = to_bytes(saved, compressed)
    found, whole = believed(data), from_bytes(data, "x")
    assert found is not None
    assert found.totals == {name: METRICS.get(name).total(whole) for name in METRICS}
    assert (found.model, found.inputs, found.tool) == (whole.model, whole.inputs, whole.tool)
    assert (found.uncounted, found.structure) == (whole.uncounted, structure(whole))


def test_operations_without_a_rule_are_told(chain: Profile) -> None:
    odd = chain.specs[1]._replace(target="my.op", kind=Kind.UNKNOWN, macs=None)
    found = believed(to_bytes(replace(chain, specs=(chain.specs[0], odd, chain.specs[2])), compressed=True))
    assert found is not None
    assert found.uncounted == {"my.op": 1}


def test_what_is_measured_is_the_same_layer_by_layer(saved: Profile) -> None:
    glance = glance_at(to_bytes(saved, compressed=True), "x")
    assert glance is not None
    ours, theirs = (measured("net", found, "fvcore", ["macs", "fvcore", "moc"]) for found in (glance, saved))
    for field in Measured.__dataclass_fields__:
        if field not in ("structure", "parts"):
            assert getattr(ours, field) == getattr(theirs, field)
    assert ours.structure() == theirs.structure()
    assert dict(ours.parts) == dict(theirs.parts)
    assert list(ours.parts) == list(theirs.parts)


def test_the_file_is_one_document_whose_other_lines_are_the_facts(chain: Profile, tmp_path: Path) -> None:
    text = chain.save(tmp_path / "x.profile.json").read_text()
    document = json.loads(text)
    assert json.loads("{" + text.partition("\n")[2]) == {k: v for k, v in document.items() if k not in ("head", "seal")}
    assert gzip.decompress(to_bytes(chain, compressed=True)).decode().partition("\n")[2] == text.partition("\n")[2]


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_passing_check_reads_the_line_alone(
    saved: Profile, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path, saved, ending, SAME_CIO)
    update(config)
    longest = 0
    plain = zlib.decompressobj

    class Counted:
        def __init__(self, *arguments: Any) -> None:
            self.plain = plain(*arguments)

        def decompress(self, *arguments: Any) -> bytes:
            nonlocal longest
            text = self.plain.decompress(*arguments)
            longest = max(longest, len(text))
            return text

        def __getattr__(self, name: str) -> Any:
            return getattr(self.plain, name)

    with monkeypatch.context() as patched:
        patched.setattr(zlib, "decompressobj", Counted)
        patched.setattr(gzip, "decompress", unread)
        patched.setattr(saving, "from_dict", unread)
        verdict = check(config)
    assert (verdict.exit_code, verdict.notes) == (0, ())
    assert verdict.findings[0].value == saved.total("cio_cspnet")
    assert longest < 3000


@pytest.mark.parametrize(
    "rules",
    ['[[rules]]\nid = "r"\nmax = 100\n',  # fails, so layers are named
     '[[rules]]\nid = "r"\nlayer = "a"\nmax = "1 G"\n'],
)  # fmt: skip
def test_layers_are_read_from_the_whole(rules: str, chain: Profile, tmp_path: Path, monkeypatch: Any) -> None:
    config = project(tmp_path, chain, ".profile.json.gz", rules)
    read = []
    plain = saving.from_dict
    monkeypatch.setattr(saving, "from_dict", lambda document: [read.append(1), plain(document)][1])
    found = check(config)
    assert len(read) == 1
    assert found.findings == check(config, measure=lambda model: chain).findings


def test_a_convention_of_another_tool_is_worked_out(chain: Profile, tmp_path: Path) -> None:
    chain.save(tmp_path / "x.profile.json.gz")
    glance = profile_of(Model(target="x.profile.json.gz"), tmp_path)
    assert isinstance(glance, Glance)
    assert glance.total("torchinfo") == METRICS.get("torchinfo").total(chain)


@pytest.mark.parametrize(
    ("asked", "read"),
    [({}, Glance), ({"input": "1x3x4x4"}, Glance), ({"device": "meta"}, Glance), ({"dtype": "float32"}, Profile)],
)
def test_only_what_the_file_holds_as_it_is(
    asked: dict[str, Any], read: type[object], chain: Profile, tmp_path: Path
) -> None:
    chain.save(tmp_path / "x.profile.json")
    assert isinstance(profile_of(Model(target="x.profile.json", **asked), tmp_path), read)


def test_another_input_is_not_answered_from_the_line(tmp_path: Path) -> None:
    profile = cspprof.profile("resnet10")
    profile.save(tmp_path / "x.profile.json.gz")
    found = profile_of(Model(target="x.profile.json.gz", input="1x3x128x128"), tmp_path)
    assert found.total("macs") == cspprof.profile("resnet10", (1, 3, 128, 128)).total("macs")


@pytest.mark.slow
def test_a_remembered_model_is_checked_by_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "cspprof.toml").write_text('[models.net]\ntarget = "resnet10"\n' + SAME_CIO)
    program = """
import sys
from cspprof import saving
from cspprof.cli import main
plain, read = saving.from_dict, []
saving.from_dict = lambda document: [read.append(1), plain(document)][1]
try:
    main(sys.argv[1:])
except SystemExit as leaving:
    print(leaving.code, len(read), "torch" in sys.modules)
"""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", program, "check", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()[-1]

    assert run("--update-baseline") == "0 0 True"
    assert run() == "0 0 False"


# -- what is not believed -------------------------------------------------------------------------


def one_member(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data), mtime=0)


@pytest.mark.parametrize("compressed", [False, True])
def test_no_byte_can_be_changed(chain: Profile, compressed: bool) -> None:
    data = to_bytes(chain, compressed)
    said = believed(data)
    assert said is not None
    # Of gzip's own header these say nothing of the content: whether it is text, when, by what and where it was made.
    idle = range(3, 10) if compressed else range(0)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert believed(changed) == (said if at in idle else None), at


@pytest.mark.parametrize("compressed", [False, True])
def test_no_byte_can_be_missing_or_added(chain: Profile, compressed: bool) -> None:
    data = to_bytes(chain, compressed)
    assert not any(believed(data[:n]) for n in range(len(data)))
    assert believed(data + b" ") is None
    assert believed(data + data) is None


@pytest.mark.parametrize("compressed", [False, True])
def test_the_line_of_another_profile_is_refused(chain: Profile, compressed: bool) -> None:
    """Of the same model, with one operation counted otherwise."""
    other = replace(chain, specs=(chain.specs[0]._replace(macs=1), *chain.specs[1:]))
    lines, rests = zip(*(head._split(to_bytes(p, compressed)) for p in (chain, other)), strict=True)
    packed = partial(gzip.compress, mtime=0) if compressed else bytes
    assert believed(packed(lines[0]) + rests[0]) is not None
    assert believed(packed(lines[0]) + rests[1]) is None
    assert believed(packed(lines[1]) + rests[0]) is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"macs":["Sum",12672,1]', '"macs":["Sum",12673,1]'),
        lambda text: text.replace(",3456,0]", ",3457,0]"),  # the fact, in the rest
        lambda text: text.replace("\n", ""),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps(json.loads(text), indent=1),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_edited_is_worked_out_anew(
    edit: Callable[[str], str], ending: str, chain: Profile, tmp_path: Path
) -> None:
    file = chain.save(tmp_path / f"x{ending}")
    packed, unpacked = (gzip.compress, gzip.decompress) if ending.endswith(".gz") else (bytes, bytes)
    text = unpacked(file.read_bytes()).decode()
    assert edit(text) != text
    file.write_bytes(packed(edit(text).encode()))
    whole = Profile.load(file)
    found = measured("net", profile_of(Model(target=file.name), tmp_path), "cspnet")
    assert found.totals == {name: METRICS.get(name).total(whole) for name in METRICS.names()}


def test_compressed_otherwise_it_is_read_whole(chain: Profile) -> None:
    data = to_bytes(chain, compressed=True)
    assert believed(one_member(data)) is None
    assert believed(gzip.decompress(data)) is None
    assert from_bytes(one_member(data), "x") == from_bytes(gzip.decompress(data), "x") == chain


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_without_the_line_is_read_as_ever(chain: Profile, compressed: bool) -> None:
    data = json.dumps(saving.to_dict(chain)).encode()
    old = gzip.compress(data) if compressed else data
    assert believed(old) is None
    assert from_bytes(old, "x") == chain


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_file_is_no_pass(ending: str, chain: Profile, tmp_path: Path) -> None:
    config = project(tmp_path, chain, ending, '[[rules]]\nid = "r"\nmax = "1 G"\n')
    assert check(config).exit_code == 0
    file = tmp_path / f"net{ending}"
    file.write_bytes(file.read_bytes()[:-20])
    verdict = check(config)
    assert verdict.exit_code == 2
    assert "is not a saved profile" in verdict.problems[0].message
    with pytest.raises(ProfileError, match="is not a saved profile"):
        Profile.load(file)


def test_a_file_that_is_not_there_is_told_as_ever(chain: Profile, tmp_path: Path) -> None:
    config = project(tmp_path, chain, ".profile.json", '[[rules]]\nid = "r"\nmax = "1 G"\n')
    (tmp_path / "net.profile.json").unlink()
    assert "there is no file net.profile.json" in check(config).problems[0].message


# -- whose numbers they are -----------------------------------------------------------------------


def totals_of(data: bytes) -> dict[str, Any]:
    glance = glance_at(data, "x")
    found = measured("net", glance or from_bytes(data, "x"), "cspnet")
    return {name: amount.value for name, amount in found.totals.items()}


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("when", ["before saving", "after saving"])
def test_a_number_of_the_users_is_computed(when: str, chain: Profile) -> None:
    data = to_bytes(chain, compressed=True)

    @metric("relu_elements", unit="elements")
    def relu_elements(op: Any) -> int:
        """Elements that ReLU writes."""
        return op.writes[0].numel if op.kind is Kind.ACTIVATION else 0

    if when == "before saving":
        data = to_bytes(chain, compressed=True)
    assert totals_of(data)["relu_elements"] == 128


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("when", ["before saving", "after saving"])
def test_a_number_of_ours_that_somebody_replaced_is_theirs(when: str, chain: Profile) -> None:
    data = to_bytes(chain, compressed=True)
    METRICS.remove("macs")

    @metric("macs", unit="MACs")
    def macs(op: Any) -> int:
        """Ten for each operation."""
        return 10

    macs.__module__ = "cspprof.metrics.compute"  # it may say that it is ours
    if when == "before saving":
        data = to_bytes(chain, compressed=True)
    found = totals_of(data)
    assert found["macs"] == 30
    assert found["balance"] == 30 / (2 * 9216)  # which looks MACs up by name


@pytest.mark.usefixtures("ours")
def test_what_somebody_saved_with_numbers_of_theirs_is_not_ours(chain: Profile) -> None:
    plain: Metric = METRICS.get("macs")
    METRICS.remove("macs")
    METRICS.add("macs", replace(plain, of_op=lambda op: 10))
    data = to_bytes(chain, compressed=True)
    METRICS.remove("macs")
    METRICS.add("macs", plain)
    assert totals_of(data)["macs"] == 12672
    assert from_bytes(data, "x") == chain


# -- whose code -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of cspprof's sources."""
    folder = tmp_path_factory.mktemp("other") / "cspprof"
    shutil.copytree(CHECKOUT / "cspprof", folder, ignore=shutil.ignore_patterns("__pycache__"))
    time.sleep(2 * head.TICK)
    return folder


def test_totals_load_no_code_that_is_not_in_the_fingerprint(chain: Profile, tmp_path: Path) -> None:
    file = cspprof.profile("csp_peleenet").save(tmp_path / "x.profile.json.gz")
    program = f"""
import sys
from pathlib import Path
from cspprof.head import head_of
from cspprof.record import Profile
from cspprof.saving import to_bytes
profile = Profile.load({str(file)!r})
assert head_of(profile) is not None
to_bytes(profile, compressed=True)
print(*(m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "cspprof"), sep="\\n")
"""
    env = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    loaded = {Path(line).relative_to(CHECKOUT / "cspprof") for line in done.stdout.splitlines()}
    assert {Path("record.py"), Path("tensors.py"), Path("metrics/memory.py"), Path("structure.py")} < loaded
    assert {file for file in loaded if file.parts[:-1] not in ((), ("metrics",))} == set()


def test_every_source_is_in_the_fingerprint(package: Path) -> None:
    before = fingerprint_of(package, time.time())
    assert before is not None
    for file in (*package.glob("*.py"), *package.glob("metrics/*.py")):
        source = file.read_bytes()
        file.write_bytes(source + b"\n")
        assert fingerprint_of(package, time.time() + 1) not in (before, None), file
        file.write_bytes(source)
    assert fingerprint_of(package, time.time() + 1) == before


def test_a_source_that_was_changed_after_it_was_loaded_vouches_for_nothing(
    package: Path, chain: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(2 * head.TICK)
    loaded = time.time()
    assert fingerprint_of(package, loaded) is not None
    source = (package / "kinds.py").read_bytes()
    (package / "kinds.py").write_bytes(source)
    os.utime(package / "kinds.py", (0, 0))  # whatever time it says that it is of
    assert fingerprint_of(package, loaded) is None
    data = to_bytes(chain, compressed=True)
    monkeypatch.setattr(head, "fingerprint", lambda: None)
    assert believed(data) is None
    assert believed(to_bytes(chain, compressed=True)) is None
    assert from_bytes(to_bytes(chain, compressed=True), "x") == chain


def test_without_sources_nothing_is_vouched_for(tmp_path: Path) -> None:
    assert fingerprint_of(tmp_path, time.time() + 1) is None


@pytest.mark.parametrize(
    ("module", "old", "new", "cio"),
    [
        ("metrics/traffic.py", "op.reads[0].numel + op.writes[0].numel", "op.reads[0].numel", 176),
        ("tensors.py", "numel = prod(shape)", "numel = 2 * prod(shape)", 864),
        ("_version.py", '__version__ = "', '__version__ = "9', 432),
    ],
)
def test_another_release_gives_its_own_numbers(
    module: str, old: str, new: str, cio: int, package: Path, chain: Profile, tmp_path: Path
) -> None:
    """Each reads what the other saved."""
    source = (package / module).read_text()
    assert old in source
    (package / module).write_text(source.replace(old, new))
    time.sleep(2 * head.TICK)
    program = """
import sys
from pathlib import Path
from cspprof.gate.measured import measured
from cspprof.glance import glance_at
from cspprof.record import Profile
data = Path(sys.argv[1]).read_bytes()
profile = Profile.load(sys.argv[1])
found = measured("x", glance_at(data, "x") or profile, "cspnet")
profile.save(sys.argv[2])
assert glance_at(Path(sys.argv[2]).read_bytes(), "x") is not None
print(glance_at(data, "x") is None, found.totals["cio_cspnet"].value)
"""
    files = [str(chain.save(tmp_path / "ours.profile.json.gz")), str(tmp_path / "theirs.profile.json.gz")]
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *files], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(package.parent)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        (package / module).write_text(source)
    assert done.stdout.split() == ["True", str(cio)]
    theirs = Path(files[1]).read_bytes()
    assert glance_at(theirs, "x") is None
    assert totals_of(theirs)["cio_cspnet"] == 432
