"""The pytest plugin: the fixture `cspprof` for assertions about the cost of models, and the option `--cspprof-update`.

Every pytest run in an environment with cspprof loads this file, so it imports only pytest. The first test that uses the
fixture imports the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cspprof.gate.pytest_fixture import CostAssertions

WRITER = "cspprof-baseline-writer"
"""The name of the plugin that `--cspprof-update` registers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's option."""
    parser.getgroup("cspprof", "cost of networks").addoption(
        "--cspprof-update",
        action="store_true",
        help="record what assert_matches_baseline measures in the baseline, instead of comparing with it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """With `--cspprof-update`, register the plugin that writes the baselines."""
    if config.getoption("cspprof_update"):
        from cspprof.gate.pytest_baseline import BaselineWriter

        config.pluginmanager.register(BaselineWriter(config), WRITER)


@pytest.fixture
def cspprof(request: pytest.FixtureRequest) -> CostAssertions:
    """Assertions about the cost of models: assert_budget, assert_drop, assert_matches_baseline."""
    from cspprof.gate.pytest_fixture import CostAssertions

    return CostAssertions(request.path.parent, request.config.rootpath, request.config.pluginmanager.get_plugin(WRITER))
