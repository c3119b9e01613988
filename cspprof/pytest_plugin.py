"""The pytest plugin: a fixture `cspprof` that holds models against budgets, and `--cspprof-update`.

Every pytest run of every environment with cspprof in it loads this file, so it imports nothing but pytest; what the
fixture needs is imported by the first test that asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cspprof.gate.pytest_fixture import Gate

RECORDER = "cspprof-recorder"
"""What pytest calls the part that is only there with `--cspprof-update`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's option."""
    parser.getgroup("cspprof", "cost of networks").addoption(
        "--cspprof-update",
        action="store_true",
        help="record what assert_matches_baseline measures in the baseline, instead of comparing with it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """With `--cspprof-update`, add what collects the recordings of all tests and writes them at the end."""
    if config.getoption("cspprof_update"):
        from cspprof.gate.pytest_baseline import Recorder

        config.pluginmanager.register(Recorder(config), RECORDER)


@pytest.fixture
def cspprof(request: pytest.FixtureRequest) -> Gate:
    """Assertions about what models cost: assert_budget, assert_drop, assert_matches_baseline."""
    from cspprof.gate.pytest_fixture import Gate

    return Gate(request.path.parent, request.config.rootpath, request.config.pluginmanager.get_plugin(RECORDER))
