"""The rules for other tools, module by module, beside what these tools printed (`data/peer_counts.json`)."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import CHECKOUT
from peer_modules import COUNTS, TOOLS, cases

import cspprof

PRINTED: dict[str, dict[str, float]] = json.loads(COUNTS.read_text())


@pytest.mark.parametrize("tool", TOOLS)
def test_a_module_costs_what_the_tool_prints(tool: str) -> None:
    ours = {name: cspprof.profile(module, shape).total(tool) for name, (module, shape) in cases(tool).items()}
    assert ours == PRINTED[tool]


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_the_counts_are_those_of_the_tool(tool: str) -> None:
    """In a process of its own, because some tools replace functions of torch and do not restore all of them."""
    if not find_spec(tool) or (tool == "calflops" and not find_spec("transformers")):
        pytest.skip(f"{tool} or its requirements are not installed (extra bench)")
    program = f"import json, peer_modules; print('\\n' + json.dumps(peer_modules.counts({tool!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT / "tests", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == PRINTED[tool]
