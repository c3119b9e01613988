"""Answers are remembered between runs, and a stale one is never given: these tests try to get one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CHECKOUT
from cspprof.storage.cache.evidence import ABSENT, TICK, of_file, of_modules, of_names
from cspprof.storage.cache.witness import Witness
from warm import Warm

from cspprof.cli import profile as analyse
from cspprof.profiles import Profile
from cspprof.storage import cache_store as store

IMPORTS = """
import importlib, sys
from cspprof.storage.cache import remembered
from cspprof.core.record import Calls, Layer
from cspprof.profiles import Profile
from cspprof.sources import Request
"""
RUN = f"""{IMPORTS}
made = []

def make():
    made.append(1)
    sys.path.insert(0, "lib")
    sys.path.insert(0, ".")
    answer = importlib.import_module("net").answer()
    return Profile(answer, "net", (), (Layer("", "Net", 0, 1, 0),), (), Calls([], [], []), (), 0)

found = remembered("net", Request(), make)
print("made" if made else "remembered", found.model)
"""
"""A model of user code that needs no torch: what matters here is what it is made from."""

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def imported() -> Iterator[Warm]:
    """New processes that have imported, and remembered, nothing but cspprof."""
    forks = Warm(IMPORTS)
    yield forks
    forks.close()


@pytest.fixture
def ask_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask in a new process, in a folder with `net.py` and what it imports; answers "made …" or "remembered …"."""
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    home = tmp_path / "home"
    home.mkdir()
    (home / "net.py").write_text("import near\ndef answer():\n    return near.answer()\n")
    (home / "near.py").write_text("import far\ndef answer():\n    return far.NUMBER\n")
    (home / "far.py").write_text("NUMBER = 'one'\n")

    def call(**environment: str) -> str:
        variables = os.environ | environment
        done = subprocess.run([sys.executable, "-c", RUN], cwd=home, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


@pytest.fixture
def ask(ask_anew: Ask, imported: Warm, tmp_path: Path) -> Ask:
    """The same in a process that begins where the question does: a fifth of the time."""

    def call(**environment: str) -> str:
        time.sleep(2 * TICK)  # as a new interpreter takes longer: what was written just now could be written again
        done = imported.code(RUN, cwd=home(tmp_path), env=os.environ | environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


@pytest.fixture
def _hears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests themselves have imported in this process."""
    monkeypatch.setattr(Witness, "deaf", lambda self, files: False)


def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def rewrite(path: Path, text: str) -> None:
    """New content of the same size, with the times of the old one."""
    before = path.stat()
    assert len(text) == before.st_size
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_same_question_is_answered_once(ask_anew: Ask) -> None:
    assert [ask_anew(), ask_anew(), ask_anew()] == ["made one", "remembered one", "remembered one"]


def test_a_module_two_imports_away_is_edited(ask: Ask, tmp_path: Path) -> None:
    assert [ask(), ask()] == ["made one", "remembered one"]
    (home(tmp_path) / "far.py").write_text("NUMBER = 'three'\n")
    assert [ask(), ask()] == ["made three", "remembered three"]


def test_the_same_size_and_time_do_not_deceive(ask_anew: Ask, tmp_path: Path) -> None:
    assert [ask_anew(PYTHONDONTWRITEBYTECODE="1") for _ in range(2)] == ["made one", "remembered one"]
    rewrite(home(tmp_path) / "far.py", "NUMBER = 'two'\n")
    assert ask_anew(PYTHONDONTWRITEBYTECODE="1") == "made two"


@pytest.mark.parametrize("how", ["open('data.txt').read()", "__import__('pathlib').Path('data.txt').read_text()"])
def test_a_data_file_is_changed(ask: Ask, tmp_path: Path, how: str) -> None:
    (home(tmp_path) / "far.py").write_text(f"NUMBER = {how}\n")
    data = home(tmp_path) / "data.txt"
    data.write_text("four")
    assert [ask(), ask()] == ["made four", "remembered four"]
    rewrite(data, "five")
    assert [ask(), ask()] == ["made five", "remembered five"]


def test_a_file_that_was_missing_appears(ask: Ask, tmp_path: Path) -> None:
    (home(tmp_path) / "far.py").write_text(
        "try:\n    NUMBER = open('more.txt').read()\nexcept OSError:\n    NUMBER = 'none'\n"
    )
    assert [ask(), ask()] == ["made none", "remembered none"]
    (home(tmp_path) / "more.txt").write_text("six")
    assert ask() == "made six"


def test_a_folder_that_is_listed_gets_another_file(ask: Ask, tmp_path: Path) -> None:
    (home(tmp_path) / "far.py").write_text("import os\nNUMBER = str(len(os.listdir('blocks')))\n")
    (home(tmp_path) / "blocks").mkdir()
    assert [ask(), ask()] == ["made 0", "remembered 0"]
    (home(tmp_path) / "blocks" / "a.txt").touch()
    assert ask() == "made 1"


def test_an_entry_of_a_folder_is_asked_for_its_size(ask: Ask, tmp_path: Path) -> None:
    (home(tmp_path) / "far.py").write_text(
        "import os\nNUMBER = str(sum(e.stat().st_size for e in os.scandir('data') if e.is_file()))\n"
    )
    data = home(tmp_path) / "data"
    data.mkdir()
    (data / "weights").write_bytes(b"12345678")
    assert [ask(), ask()] == ["made 8", "remembered 8"]
    (data / "weights").write_bytes(b"123456789")
    assert [ask(), ask()] == ["made 9", "remembered 9"]


def test_a_module_comes_to_stand_before_another(ask: Ask, tmp_path: Path) -> None:
    lib = home(tmp_path) / "lib"
    lib.mkdir()
    (home(tmp_path) / "far.py").rename(lib / "far.py")
    assert [ask(), ask()] == ["made one", "remembered one"]
    (home(tmp_path) / "far.py").write_text("NUMBER = 'shadow'\n")
    assert ask() == "made shadow"


def test_a_module_that_could_not_be_imported_appears(ask: Ask, tmp_path: Path) -> None:
    (home(tmp_path) / "far.py").write_text(
        "try:\n    from extra import NUMBER\nexcept ImportError:\n    NUMBER = 'no'\n"
    )
    assert [ask(), ask()] == ["made no", "remembered no"]
    (home(tmp_path) / "extra.py").write_text("NUMBER = 'yes'\n")
    assert ask() == "made yes"


@pytest.mark.parametrize(
    "read",
    ["os.environ.get('DEPTH', 'unset')", "os.getenv('DEPTH', 'unset')", "dict(os.environ).get('DEPTH', 'unset')",
     "os.environ['DEPTH'] if 'DEPTH' in os.environ else 'unset'", "os.environb.get(b'DEPTH', b'unset').decode()"],
)  # fmt: skip
def test_an_environment_variable_is_set_and_changed(ask: Ask, tmp_path: Path, read: str) -> None:
    (home(tmp_path) / "far.py").write_text(f"import os\nNUMBER = {read}\n")
    assert [ask(), ask()] == ["made unset", "remembered unset"]
    assert [ask(DEPTH="3"), ask(DEPTH="3"), ask(DEPTH="4")] == ["made 3", "remembered 3", "made 4"]


ASKED = {
    "os.path.exists('deep')": "True",
    "os.path.isfile('deep')": "True",
    "os.path.isdir('deep')": "False",
    "os.path.lexists('deep')": "True",
    "os.access('deep', os.R_OK)": "True",
    "pathlib.Path('deep').exists()": "True",
    "pathlib.Path('deep').is_file()": "True",
    "pathlib.Path('deep').is_dir()": "False",
    "os.path.getsize('deep') if os.path.exists('deep') else 0": "3",
}
"""How a model may ask whether there is a file, and what it is told of one of three bytes."""


@pytest.mark.parametrize("question", ASKED)
def test_a_path_that_was_only_asked_about(question: str, ask: Ask, tmp_path: Path) -> None:
    """It is not there, then a file, then a folder, then gone again."""
    (home(tmp_path) / "far.py").write_text(f"import os, pathlib\nNUMBER = str({question})\n")
    deep, none = home(tmp_path) / "deep", "0" if "getsize" in question else "False"
    assert [ask(), ask()] == [f"made {none}", f"remembered {none}"]
    deep.write_text("yes")
    assert [ask(), ask()] == [f"made {ASKED[question]}", f"remembered {ASKED[question]}"]
    deep.unlink()
    deep.mkdir()
    assert ask().startswith("made ")
    assert ask().startswith("remembered ")
    deep.rmdir()
    assert ask() == f"made {none}"


def test_a_link_comes_to_lead_elsewhere(ask: Ask, tmp_path: Path) -> None:
    (home(tmp_path) / "far.py").write_text("import os\nNUMBER = os.path.basename(os.path.realpath('link'))\n")
    (home(tmp_path) / "a").mkdir()
    (home(tmp_path) / "bb").mkdir()
    link = home(tmp_path) / "link"
    link.symlink_to("a")
    assert [ask(), ask()] == ["made a", "remembered a"]
    link.unlink()
    link.symlink_to("bb")
    assert ask() == "made bb"


def test_a_model_that_makes_what_it_asks_about(ask: Ask, tmp_path: Path) -> None:
    """The first answer was given without the folder, and there will be none like it."""
    (home(tmp_path) / "far.py").write_text(
        "import os\nNUMBER = str(os.path.exists('made'))\nos.makedirs('made', exist_ok=True)\n"
    )
    assert [ask(), ask(), ask()] == ["made False", "made True", "remembered True"]


GONE = {
    "a file that was read":
        ("try:\n    NUMBER = open('data.txt').read()\n    os.remove('data.txt')\n"
         "except OSError:\n    NUMBER = 'gone'\n",
         ["made data", "made gone", "remembered gone"]),
    "a name that was listed":
        ("NUMBER = str(len(os.listdir('blocks')))\nif NUMBER == '1':\n    os.remove('blocks/a')\n",
         ["made 1", "made 0", "remembered 0"]),
    "a module that was imported":
        ("try:\n    from extra import NUMBER\n    os.remove('extra.py')\nexcept ImportError:\n    NUMBER = 'none'\n",
         ["made extra", "made none", "remembered none"]),
    "a module that could not be imported, and was written then":
        ("try:\n    from later import NUMBER\nexcept ImportError:\n    NUMBER = 'none'\n"
         "    open('later.py', 'w').write('NUMBER = 1')\n",
         ["made none", "made 1", "remembered 1"]),
}  # fmt: skip
"""What a model may change after it looked, and what it then answers."""


@pytest.mark.parametrize("what", GONE)
def test_what_was_read_is_no_more_what_it_was(what: str, ask: Ask, tmp_path: Path) -> None:
    code, answers = GONE[what]
    (home(tmp_path) / "far.py").write_text(f"import os\n{code}")
    (home(tmp_path) / "data.txt").write_text("data")
    (home(tmp_path) / "extra.py").write_text("NUMBER = 'extra'\n")
    (home(tmp_path) / "blocks").mkdir()
    (home(tmp_path) / "blocks" / "a").touch()
    assert [ask() for _ in answers] == answers


def test_a_file_of_its_own_that_it_removes_again_is_no_obstacle(ask: Ask, tmp_path: Path) -> None:
    (home(tmp_path) / "far.py").write_text(
        "import os\nopen('own.txt', 'w').write('own')\nNUMBER = open('own.txt').read()\nos.remove('own.txt')\n"
    )
    assert [ask(), ask()] == ["made own", "remembered own"]


@pytest.mark.usefixtures("_hears")
def test_two_models_of_one_process_share_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's state is looked at once; one that was changed since is noticed all the same."""
    read: list[str] = []
    monkeypatch.setattr("cspprof.storage.cache.evidence.of_file", lambda path: read.append(path) or of_file(path))
    common, more = tmp_path / "common.txt", tmp_path / "more.txt"
    common.write_text("a")
    more.write_text("b")
    time.sleep(0.05)
    witness = Witness()
    with witness.watching():
        common.read_text()
    first = witness.evidence()
    with witness.watching():
        common.read_text()
        more.read_text()
    second = witness.evidence()
    assert first is not None
    assert second is not None
    assert second.files.items() >= first.files.items()
    assert (read.count(str(common)), read.count(str(more)), len(read)) == (1, 1, len(set(read)))
    rewrite(common, "c")
    assert witness.evidence() is None


def test_a_variable_that_the_model_sets_itself(ask: Ask, tmp_path: Path) -> None:
    (home(tmp_path) / "far.py").write_text(
        "import os\nNUMBER = os.environ.get('DEPTH', 'unset')\nos.environ['DEPTH'] = 'mine'\n"
    )
    assert [ask(), ask(), ask(DEPTH="3")] == ["made unset", "remembered unset", "made 3"]


def test_os_is_as_it_was_after_watching() -> None:
    before = os.stat, os.lstat, os.access
    with Witness().watching():
        assert os.stat in os.supports_follow_symlinks
        assert CHECKOUT.stat().st_mode == before[0](CHECKOUT).st_mode
        with pytest.raises(FileNotFoundError):
            os.lstat(CHECKOUT / "nowhere")
    assert (os.stat, os.lstat, os.access) == before


def test_what_is_installed_beside_the_model(ask: Ask, tmp_path: Path) -> None:
    """Libraries look for their extensions in every folder of the search path; an output there is none."""
    (home(tmp_path) / "far.py").write_text(
        "from importlib.metadata import entry_points\nNUMBER = str(len(entry_points(group='nets')))\n"
    )
    assert [ask(), ask()] == ["made 0", "remembered 0"]
    (home(tmp_path) / "cio.csv").touch()
    assert ask() == "remembered 0"
    installed = home(tmp_path) / "nets-1.0.Dist-Info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: nets\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[nets]\none = far:NUMBER\n")
    assert [ask(), ask()] == ["made 1", "remembered 1"]
    (installed / "entry_points.txt").write_text("[nets]\none = far:NUMBER\ntwo = far:NUMBER\n")
    assert ask() == "made 2"


def test_a_variable_that_nobody_read_changes_nothing(ask: Ask) -> None:
    assert [ask(), ask(OTHER="1")] == ["made one", "remembered one"]


def test_a_library_is_upgraded(ask_anew: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, by a file of the same size and time, as an installer that keeps times would."""
    packages = home(tmp_path) / "lib"
    packages.mkdir()
    (packages / "library.py").write_text("VERSION = '1.0'\n")
    (home(tmp_path) / "far.py").write_text("from library import VERSION as NUMBER\n")
    path = f"{CHECKOUT}{os.pathsep}{packages}"
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # else Python itself takes the old bytecode for the new file's
    assert [ask_anew(PYTHONPATH=path) for _ in range(2)] == ["made 1.0", "remembered 1.0"]
    rewrite(packages / "library.py", "VERSION = '2.0'\n")
    assert ask_anew(PYTHONPATH=path) == "made 2.0"


def test_an_installed_file_is_known_by_its_inode_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.storage.cache.evidence.libraries", lambda: (f"{tmp_path}{os.sep}",))
    file = tmp_path / "library.py"
    file.write_text("a = 1\n")
    before = of_file(str(file))
    assert of_file(str(file)) == before
    rewrite(file, "a = 2\n")
    assert of_file(str(file)) != before


@pytest.mark.usefixtures("_hears")
def test_a_library_that_is_upgraded_meanwhile_is_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.storage.cache.evidence.libraries", lambda: (f"{tmp_path}{os.sep}",))
    file = tmp_path / "library.py"
    file.write_text("a = 1\n")
    time.sleep(0.05)
    witness = Witness()
    with witness.watching():
        file.read_text()
        rewrite(file, "a = 2\n")
    assert witness.evidence() is None


@pytest.mark.parametrize(
    "code",
    ["import subprocess\nNUMBER = subprocess.run(['echo', 'x'], capture_output=True, text=True).stdout.strip()",
     "import os\nos.system('true')\nNUMBER = 'x'",
     "import cspprof\n@cspprof.metric('mine', unit='elements')\ndef my(op):\n    'One.'\n    return 1\nNUMBER = 'x'",
     "import time\nopen('made.txt', 'w').write('x')\nNUMBER = open('made.txt').read()",
     "import sqlite3\nNUMBER = sqlite3.connect('numbers.db').execute(\"SELECT 'x'\").fetchone()[0]",
     "import multiprocessing\nwith multiprocessing.get_context('spawn').Pool(1) as pool:\n"
     "    NUMBER = pool.apply(str, ('x',))",
     "import pyarrow\nNUMBER = 'x'",
     "import safetensors\nNUMBER = 'x'"],
)  # fmt: skip
def test_what_cannot_be_vouched_for_is_not_kept(ask: Ask, tmp_path: Path, code: str) -> None:
    (home(tmp_path) / "far.py").write_text(code)
    assert [ask(), ask()] == ["made x", "made x"]


def test_where_torch_was_imported_before_nothing_is_remembered(ask_anew: Ask, tmp_path: Path) -> None:
    fake = home(tmp_path) / "fake"
    fake.mkdir()
    (fake / "torch.py").touch()
    (fake / "sitecustomize.py").write_text("import torch\n")
    path = f"{CHECKOUT}{os.pathsep}{fake}"
    assert [ask_anew(PYTHONPATH=path), ask_anew(PYTHONPATH=path)] == ["made one", "made one"]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"profile": "x"}', b"[]"])
def test_a_damaged_cache_is_no_answer(ask: Ask, tmp_path: Path, damage: bytes) -> None:
    assert ask() == "made one"
    for file in (tmp_path / "cache" / "asked").iterdir():
        file.write_bytes(damage)
    assert [ask(), ask()] == ["made one", "remembered one"]


def test_what_another_release_kept_is_no_answer(ask: Ask, tmp_path: Path) -> None:
    ask()
    (entry,) = (tmp_path / "cache" / "asked").glob("*.json")
    document = json.loads(entry.read_text())
    for change in ({"asked": None}, {"more": {}}):
        evidence = {**document["evidence"], **change}
        told = {k: v for k, v in evidence.items() if v is not None or k == "environment"}
        entry.write_text(json.dumps({**document, "evidence": told}))
        assert ask() == "made one"


def test_a_profile_that_was_tampered_with_is_no_answer(ask: Ask, tmp_path: Path) -> None:
    assert ask() == "made one"
    for file in (tmp_path / "cache" / "profiles").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert [ask(), ask()] == ["made one", "remembered one"]


def test_a_folder_that_cannot_be_written_is_no_obstacle(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert [ask(), ask()] == ["made one", "made one"]


def test_many_at_once(ask_anew: Ask, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask_anew(), range(8)))
    assert {answer.split()[1] for answer in answers} == {"one"}
    assert ask_anew() == "remembered one"
    assert not list((tmp_path / "cache").rglob(".*"))  # no half-written file


def test_the_cache_does_not_outgrow_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "LIMIT", 10_000)
    for i in range(20):
        store.keep(f"q{i}", {}, bytes([i]) * 1000)
        for path in (tmp_path / "cache").rglob("*.json*"):
            if path.stat().st_mtime > 1e9:
                os.utime(path, (i, i))  # as if kept one after the other
        store.keep("often", {}, b"often")
    found = store.contents()
    assert 5_000 < found.nbytes <= 10_000
    assert store.entry("q0") is None
    assert store.entry("often") is not None
    assert store.clear() == found
    assert store.contents() == store.Contents(0, 0, 0)


def test_folders_are_known_by_what_they_hold(tmp_path: Path) -> None:
    assert of_file(str(tmp_path / "none")) == ABSENT
    names, modules = of_names(str(tmp_path)), of_modules(str(tmp_path))
    (tmp_path / "notes.txt").touch()
    assert of_names(str(tmp_path)) != names
    assert of_modules(str(tmp_path)) == modules
    (tmp_path / "more.py").touch()
    assert of_modules(str(tmp_path)) != modules


NET = """
import torch
from blocks import WIDTH
class Net(torch.nn.Module):
    example_input_shape = (1, 3, 8, 8)
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, WIDTH, 1, bias=False)
    def forward(self, x):
        return self.conv(x)
"""


def cspprof(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cspprof", *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_line_remembers_and_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    (folder / "blocks.py").write_text("WIDTH = 4\n")

    def macs(*options: str) -> int:
        done = cspprof(folder, "flops", "net.py:Net", "--format", "json", *options)
        return int(json.loads(done.stdout)["models"][0]["macs"])

    assert macs() == 64 * 3 * 4
    assert json.loads(cspprof(folder, "cache", "info", "--format", "json").stdout)["profiles"] == 1
    rewrite(folder / "blocks.py", "WIDTH = 8\n")
    assert macs() == 64 * 3 * 8
    assert macs("--no-cache") == 64 * 3 * 8
    assert macs("--input", "1x3x4x4") == 16 * 3 * 8
    assert json.loads(cspprof(folder, "cache", "clear", "--format", "json").stdout)["profiles"] >= 2
    assert json.loads(cspprof(folder, "cache", "info", "--format", "json").stdout)["profiles"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["cio", "resnext50", "csp_resnext50"], ["models"], ["models", "--family", "vgg", "--sort", "macs"]]
)
def test_a_remembered_command_imports_no_torch(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    look = f"""
import sys
from cspprof.cli import main
try:
    main({arguments!r})
except SystemExit:
    print("torch" in sys.modules, "numpy" in sys.modules, "rich" in sys.modules, len(sys.modules) < 300)
"""
    monkeypatch.setenv("COLUMNS", "200")  # what is narrower than the tables takes rich
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    found = [
        subprocess.run([sys.executable, "-c", look], cwd=folder, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert found[0].splitlines()[-1] == "True True False False"
    assert found[1].splitlines()[-1] == "False False False True"
    assert found[0].splitlines()[:-1] == found[1].splitlines()[:-1]


def test_what_is_remembered_is_not_waited_for(chain: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar counts models that have to be traced; the answer has all, in the order in which they were named."""
    waited: list[str] = []
    monkeypatch.setattr(analyse, "recalled", lambda spec, request: chain if spec == "known" else None)
    monkeypatch.setattr(analyse, "profiled", lambda spec, request: replace(chain, model=spec))
    monkeypatch.setattr(analyse, "tracked", lambda specs: waited.extend(specs) or specs)
    found = analyse.measure(["new", "known", "newer", "new"], None, None, None, False, False)
    assert [p.model for p in found] == ["new", chain.model, "newer", "new"]
    assert waited == ["new", "newer"]
