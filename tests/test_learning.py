"""A converted network learns as well as the plain one: digits of scikit-learn, one seed here, three in `reports/`."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import CHECKOUT

REPORTS = CHECKOUT / "reports"
NOTEBOOK = CHECKOUT / "notebooks" / "your_network.py"
POINTS = 1.5
EPOCHS = 8
"""Half of those of the committed table."""
PROGRAM = """
import learning
name, model, profile = {networks}[{network}]
print(100 * learning.accuracy(model, learning.SEEDS[0], epochs={epochs}))
"""


def rows() -> list[dict[str, str]]:
    with (REPORTS / "learning.csv").open() as file:
        return list(csv.DictReader(file))


def accuracy(network: int) -> float:
    """The accuracy in percent of the plain network (0) or its conversion (1), trained in a process of its own."""
    program = PROGRAM.format(networks="list(learning.networks(learning.FUSIONS[:1]))", network=network, epochs=EPOCHS)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPORTS, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.slow
def test_a_converted_network_learns_within_1_5_points_of_the_plain_one() -> None:
    pytest.importorskip("sklearn")
    with ThreadPoolExecutor(2) as pool:
        plain, converted = pool.map(accuracy, (0, 1))
    assert plain > 97
    assert converted > plain - POINTS


def test_the_committed_table_has_each_fusion_and_no_loss_above_1_5_points() -> None:
    plain, *conversions = rows()
    assert [row["network"] for row in (plain, *conversions)] == [
        "plain", "CSP, fusion csp", "CSP, fusion first", "CSP, fusion last",
    ]  # fmt: skip
    for row in conversions:
        assert int(row["macs"]) < int(plain["macs"])
        assert float(row["accuracy"]) > float(plain["accuracy"]) - POINTS


def test_the_pages_quote_the_table() -> None:
    table = re.findall(r"^\|.*$", (REPORTS / "learning.md").read_text(), re.MULTILINE)
    assert len(table) == 2 + len(rows())
    quoted = [line.removeprefix("# ") for line in NOTEBOOK.read_text().splitlines()]
    readme = (REPORTS / "README.md").read_text().splitlines()
    for line in table:
        assert line in quoted
        assert line in readme
