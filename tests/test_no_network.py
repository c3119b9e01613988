"""cspprof needs no network: commands run while every connection and every look-up of a name fails."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECKOUT, Result, quick

from cspprof.profiles import Profile

COMMANDS = (
    "profile chain.profile.json", "compare chain.profile.json resnet10", "report chain.profile.json -o page.html",
    "plot bottleneck chain.profile.json -o bars.svg", "explain cio", "models --family resnet", "metrics",
    "check", "init", "cache info", "closed-form --list", "gradients resnet10", "bottleneck timm:resnet18",
    "whatif torchvision:resnet18 --size 64", "convert resnet18 --input 1x3x64x64", "verify resnet10",
)  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A folder without files, in which no socket can be connected. Attempts are listed."""
    attempts: list[str] = []

    def refuse(*arguments: object, **options: object) -> None:
        attempts.append(f"{arguments}")
        raise OSError("there is no network in this test")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.chdir(tmp_path)
    return attempts


@pytest.mark.parametrize("command", quick(COMMANDS, 12))
def test_a_command_makes_no_connection(
    command: str, run: Callable[..., Result], chain: Profile, offline: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.save("chain.profile.json")
    if command == "check":
        Path("cspprof.toml").write_text('[models.x]\ntarget = "chain.profile.json"\n[[rules]]\nid = "r"\nmax = "1 G"\n')
    got = run(*command.split())
    assert (got.code, offline) == (0, []), got.err


def test_no_module_imports_a_client_of_a_network() -> None:
    """Dask and MLflow connect where an option names an address. `socket` gives the name of this machine."""
    clients = re.compile(
        r"^\s*(?:import|from) (urllib\.request|http|ftplib|smtplib|ssl|requests|httpx|aiohttp|socket)\b", re.M
    )
    found = {
        (path.name, name)
        for path in (CHECKOUT / "cspprof").rglob("*.py")
        for name in clients.findall(path.read_text(encoding="utf-8"))
    }
    assert found == {("journal.py", "socket")}
