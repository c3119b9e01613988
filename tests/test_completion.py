"""Shell completion of models, metrics, kinds of charts and names of `explain`, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT, ONE_CONV

from cspprof.cli import completion
from cspprof.cli.models import TOPICS
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.report.charts import CHARTS
from cspprof.zoo import catalog


def test_the_names_of_the_zoo_are_current() -> None:
    assert completion.zoo_names() == catalog().names(), "python docs/generate.py"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("nets").mkdir()
    Path("nets/net.py").write_text(ONE_CONV.format(imports="", width=8))
    for file in ("net.onnx", "net.cfg", "net.pt2", "net.profile.json", "net.txt", ".hidden.py"):
        Path(file).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("incomplete", "completed"),
    [
        ("csp_resnext50", ["csp_resnext50", "csp_resnext50_panet_spp"]),
        ("tim", ["timm:"]),
        ("ne", ["net.cfg", "net.onnx", "net.profile.json", "net.pt2", "nets/"]),
        ("nets/", ["nets/net.py:"]),
        ("nets/net.py:", ["nets/net.py:Net"]),
        ("nets/net.py:X", []),
        ("nowhere/", []),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_spec_is_completed(incomplete: str, completed: list[str]) -> None:
    assert completion.complete_spec(incomplete) == completed


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_architectures_of_a_library_are_completed(library: str) -> None:
    pytest.importorskip(library, reason="the extra is not installed")
    completed = completion.complete_spec(f"{library}:resnet1")
    assert {f"{library}:resnet18", f"{library}:resnet101"} <= set(completed)
    assert all(name.startswith(f"{library}:resnet1") for name in completed)


def test_metrics_kinds_and_explained_names_are_completed() -> None:
    assert completion.complete_metric("") == ["cio", "compute", *METRICS, *CONVENTIONS]
    assert completion.complete_metrics("macs,par") == ["macs,params", "macs,params_darknet"]
    assert completion.complete_kind("f") == [kind for kind in CHARTS if kind.startswith("f")]
    assert set(completion.complete_explained("")) == {*TOPICS, "conventions", *completion.complete_metric("")}
    assert completion.complete_axis("top") == ["top1", "top5"]
    assert completion.complete_axis("moc") == ["moc"]
    assert "jetson-nano" in completion.complete_hardware("jetson")
    assert completion.complete_convention("h") == ["hardnet"]
    assert completion.complete_grouping("k") == ["kind"]
    assert completion.complete_dtype("bf") == ["bfloat16"]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["cspprof", "bottle"], "bottleneck"),
        (["cspprof", "cio", "csp_darknet53_pan"], "csp_darknet53_panet_spp"),
        (["cspprof", "plot", "roof"], "roofline"),
        (["cspprof", "explain", "peak_b"], "peak_bytes"),
        (["cspprof", "compare", "resnet10", "vgg16", "--metric", "macs,bflops_d"], "macs,bflops_darknet"),
        (["cspprof", "cache", "cl"], "clear"),
        (["cspprof", "sweep", "csp_darknet53_pan"], "csp_darknet53_panet_spp"),
        (["cspprof", "plot", "pareto", "resnet10", "--x", "peak_b"], "peak_bytes"),
        (["cspprof", "convert", "resnet10", "--minimize", "peak_b"], "peak_bytes"),
    ],
    ids=" ".join,
)
@pytest.mark.slow
def test_the_shell_gets_completions_and_no_torch_is_imported(words: list[str], completed: str) -> None:
    program = (
        "import sys\nfrom cspprof.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'matplotlib', 'pandas', 'timm', 'sympy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "_CSPPROF_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words)}
    environment["COMP_CWORD"] = str(len(words) - 1)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    *lines, imported = done.stdout.splitlines()
    assert (lines, imported) == ([completed], "[]"), done.stderr
