"""The cache of profiles: a second run of a command imports no torch, and never shows an outdated profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CHECKOUT, ONE_CONV

import cspprof
from cspprof import sources, zoo
from cspprof.core.record import Record, TensorSpec
from cspprof.ops import RULES, Facts, op_rule
from cspprof.profiles import Profile
from cspprof.sources import Request, cache_key, cache_keys
from cspprof.storage import cache

# -- which records can be cached, and under which key ------------------------------------------------

PACKAGES = ("cspprof", "torch", "timm", "torchvision", "onnx")
CACHEABLE = ["resnet50", "timm:resnet50", "torchvision:resnet50", "net.cfg", "net.pt2", "net.onnx"]


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Installed packages and their versions, in a process without a user's code, in a folder with models."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES, "1.0")
    for module in (sources, cache_keys):
        monkeypatch.setattr(module, "installation", lambda name: versions[name] and f"{name}-{versions[name]} abc")
    monkeypatch.delitem(sys.modules, "cspprof.sources.python_factory", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("net.cfg", "net.pt2", "net.onnx", "net.profile.json", "net.py"):
        Path(name).write_text("some content")
    return versions


@pytest.mark.usefixtures("versions")
def test_each_spec_and_request_has_its_own_key() -> None:
    requests = [
        Request(),
        Request(inputs=(1, 3, 64, 64)),
        Request(inputs=(1, 3, 64, 32)),
        Request(inputs=TensorSpec((1, 3, 64, 64), "float16")),
        Request(inputs={"x": (1, 3, 64, 64)}),
        Request(device="cpu"),
        Request(dtype="float16"),
        Request(train=True),
    ]
    questions = [(spec, request) for spec in [*CACHEABLE, "resnet50,width=2"] for request in requests]
    keys = [cache_key(*question) for question in questions]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert [cache_key(*question) for question in questions] == keys


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("spec", ["net.py:Net", "package.module:net", "net.profile.json", "missing.cfg"])
def test_other_specs_are_not_cached(spec: str) -> None:
    assert cache_key(spec, Request()) is None


@pytest.mark.usefixtures("versions")
def test_a_request_with_tensors_or_on_an_accelerator_is_not_cached() -> None:
    import torch

    assert cache_key("resnet50", Request(inputs=torch.empty(1, 3, 8, 8))) is None
    assert cache_key("resnet50", Request(device="cuda")) is None


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("name", ["net.cfg", "net.pt2", "net.onnx"])
def test_other_content_of_a_file_is_another_key(name: str) -> None:
    key = cache_key(name, Request())
    Path(name).write_text("other content")
    assert cache_key(name, Request()) not in (None, key)


@pytest.mark.usefixtures("versions")
def test_onnx_with_weights_in_other_files_is_not_cached() -> None:
    tensor = pytest.importorskip("onnx").helper.make_tensor("w", 1, [1], [0.0])
    tensor.external_data.add(key="location", value="weights.bin")
    Path("net.onnx").write_bytes(tensor.SerializeToString())
    assert cache_key("net.onnx", Request()) is None


@pytest.mark.parametrize("spec", CACHEABLE)
@pytest.mark.parametrize("package", PACKAGES)
def test_the_version_of_each_package_that_makes_the_record_is_in_the_key(
    package: str, spec: str, versions: dict[str, str | None]
) -> None:
    key = cache_key(spec, Request())
    versions[package] = "1.1"
    if cache_key(spec, Request()) == key:
        assert package not in ("cspprof", spec.partition(":")[0], "onnx" if spec == "net.onnx" else "torch")
        return
    versions[package] = None  # an editable installation, see `installation`
    assert cache_key(spec, Request()) is None


@pytest.mark.parametrize("version", ["1.0.dev1", "1.0+local", "1.0rc1"])
def test_a_development_version_is_not_cached(version: str, versions: dict[str, str | None]) -> None:
    versions["cspprof"] = version
    assert cache_key("resnet50", Request()) is None


@pytest.mark.usefixtures("versions")
def test_an_environment_variable_of_timm_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    of_timm, of_zoo = (cache_key(spec, Request()) for spec in ("timm:resnet50", "resnet50"))
    monkeypatch.setenv("TIMM_FUSED_ATTN", "0")
    assert cache_key("timm:resnet50", Request()) not in (None, of_timm)
    assert cache_key("resnet50", Request()) == of_zoo


@pytest.mark.usefixtures("versions")
def test_nothing_is_cached_while_a_users_rule_or_model_is_registered() -> None:
    op_rule("mine.op")(lambda *args, out: Facts("other"))
    assert cache_key("resnet50", Request()) is None
    RULES.remove("mine.op")
    assert cache_key("resnet50", Request()) is not None
    cspprof.model("mine", family="mine", paper="none")(lambda: None)
    assert cache_key("mine", Request()) is None
    zoo.MODELS.remove("mine")


def test_an_installation_is_known_by_its_version_and_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    installation, info = cache_keys.installation.__wrapped__, tmp_path / "fakelib-1.0.dist-info"
    assert installation("fakelib") is None
    (tmp_path / "fakelib").mkdir()
    (tmp_path / "fakelib" / "__init__.py").touch()
    assert installation("fakelib") is None  # a checkout
    info.mkdir()
    (info / "RECORD").write_text("fakelib.pth,sha256=abc,1\n")
    assert installation("fakelib") is None  # editable
    (info / "RECORD").write_text("fakelib/__init__.py,sha256=abc,0\n")
    first = installation("fakelib")
    (info / "RECORD").write_text("fakelib/__init__.py,sha256=def,0\n")
    second = installation("fakelib")
    info.rename(tmp_path / "fakelib-1.1.dist-info")
    assert len({None, first, second, installation("fakelib")}) == 4


# -- the folder --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "records"


def cached_model(key: str, record: Record) -> str:
    """The model's name in the stored record, or in the one that is stored now."""
    return cache.cached_record(lambda: key, lambda: record).model


def test_a_stored_record_is_returned_until_it_is_damaged_or_cleared(folder: Path, chain: Profile) -> None:
    second, third = replace(chain, model="second"), replace(chain, model="third")
    assert [cached_model("a", record) for record in (chain, second)] == ["chain", "chain"]
    with cache.disabled():
        assert cached_model("a", second) == "second"
    for damage in (b"", b"{}", (folder / "a.profile.json.gz").read_bytes()[:-9]):
        (folder / "a.profile.json.gz").write_bytes(damage)
        assert [cached_model("a", record) for record in (second, third)] == ["second", "second"]
    assert len(cache.clear()) == 1
    assert cached_model("a", third) == "third"


def test_a_folder_that_cannot_be_written_is_not_used(folder: Path, chain: Profile) -> None:
    folder.parent.write_text("a file in its place")
    assert [cached_model("a", replace(chain, model=name)) for name in ("first", "second")] == ["first", "second"]
    assert cache.clear() == []


@pytest.mark.usefixtures("folder")
def test_a_record_is_not_stored_if_its_key_changes_meanwhile(chain: Profile) -> None:
    keys = iter(["before", "after"])
    assert cache.cached_record(lambda: next(keys), lambda: chain) == chain
    assert cache.entries() == []


def test_entries_that_were_not_used_are_removed_first(
    folder: Path, chain: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_model("used", chain)
    monkeypatch.setattr(cache, "LIMIT", 10 * cache.entries()[0].nbytes + 1)
    for i in range(30):
        cached_model(f"{i}", chain)
        os.utime(folder / f"{i}.profile.json.gz", (i, i))
        cached_model("used", chain)
    names = {entry.path.name.partition(".")[0] for entry in cache.entries()}
    assert {"used", "29", "28"} < names
    assert sum(entry.nbytes for entry in cache.entries()) <= cache.LIMIT


# -- commands of an installed cspprof ----------------------------------------------------------------

PROGRAM = """
import sys
from cspprof.cli import main
try:
    main(sys.argv[1:])
finally:
    print("libraries:", *sorted({"torch", "onnx", "numpy", "pandas"} & set(sys.modules)), file=sys.stderr)
"""

Run = Callable[..., tuple[str, bool]]


@pytest.fixture
def run_installed(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command of an installed cspprof in a new process: its output, and whether it traced or read the model."""
    site = tmp_path / "site"
    info = site / f"cspprof-{cspprof.__version__}.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("cspprof/__init__.py,sha256=abc,1\n")
    (site / "cspprof").symlink_to(CHECKOUT / "cspprof")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[str, bool]:
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr.splitlines()[-1] != "libraries:"

    return run


def write_onnx(width: int) -> None:
    helper = pytest.importorskip("onnx").helper
    value = helper.make_tensor_value_info
    weight = helper.make_tensor("w", 1, [width, 3, 1, 1], [0.0] * width * 3)
    conv = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    graph = helper.make_graph([conv], "g", [value("x", 1, [1, 3, 8, 8])], [value("y", 1, [1, width, 8, 8])], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    Path("net.onnx").write_bytes(model.SerializeToString())


@pytest.mark.slow
def test_a_second_run_prints_the_same_without_torch(run_installed: Run) -> None:
    command = ("cio", "squeezenet", "--layers", "--input", "1x3x64x64")
    first, traced = run_installed(*command)
    assert traced
    assert run_installed(*command) == (first, False)


@pytest.mark.slow
def test_a_changed_file_is_read_again(run_installed: Run, folder: Path) -> None:
    command = ("flops", "net.onnx", "--format", "csv")
    write_onnx(width=4)
    narrow, read = run_installed(*command)
    assert read
    assert run_installed(*command) == (narrow, False)
    assert run_installed(*command, "--no-cache") == (narrow, True)
    write_onnx(width=8)
    wide, read = run_installed(*command)
    assert read
    assert wide != narrow
    info = json.loads(run_installed("cache", "info", "--format", "json")[0])
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert info == {"schema": "cspprof.cache/1", "folder": str(folder), "profiles": 2, "bytes": size, "limit": 2**28}
    assert json.loads(run_installed("cache", "clear", "--format", "json")[0]) == info
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_several_processes_write_at_once(run_installed: Run, folder: Path) -> None:
    write_onnx(width=4)
    with ThreadPoolExecutor(4) as pool:
        outputs = set(pool.map(lambda _: run_installed("flops", "net.onnx")[0], range(4)))
    assert len(list(folder.iterdir())) == 1  # no file is left half written
    assert outputs == {run_installed("flops", "net.onnx")[0]}


@pytest.mark.slow
def test_a_users_python_is_not_cached(run_installed: Run, folder: Path) -> None:
    Path("net.py").write_text(ONE_CONV.format(imports="", width=4))
    run_installed("flops", "net.py:Net", "squeezenet", "--input", "1x3x64x64")
    assert not folder.exists()


def test_a_checkout_caches_nothing(run_installed: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    write_onnx(width=4)
    run_installed("flops", "net.onnx")
    assert not folder.exists()
