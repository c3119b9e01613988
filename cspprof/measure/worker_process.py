"""A process of `worker`, seen from the command: requests go in, responses come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cspprof.core.child_process import ChildProcess, ProcessEndedError
from cspprof.measure.engines.network import EngineError
from cspprof.measure.worker import MEMORY_HINT, OUT_OF_MEMORY


class Checkout(NamedTuple):
    """The code of a project in one version: the current folder of its processes, and their import path."""

    folder: Path
    path: list[str]


class WorkerProcess(ChildProcess):
    """A new process, which is ended after the command has kept what was measured."""

    def __init__(self, checkout: Checkout | None = None) -> None:
        """It imports the models of `checkout`, by default those of this process, and always the cspprof of this one."""
        super().__init__("cspprof.measure.worker", checkout.folder if checkout else None)
        if checkout:
            self.request("import_from", path=checkout.path)

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The response to a request. Raises EngineError if it failed or ended the process."""
        try:
            response: dict[str, Any] = self.response({"do": do, **arguments})
        except ProcessEndedError as error:
            if error.signal_name == "SIGKILL":  # Linux sends it if memory runs out
                message = f"{OUT_OF_MEMORY}: the system ended its process (SIGKILL)"
                raise EngineError(message, MEMORY_HINT) from None
            raise EngineError(str(error)) from None
        if "failed" in response:
            raise EngineError(response["failed"], response["hint"])
        return response
