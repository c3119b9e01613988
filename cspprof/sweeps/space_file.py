"""A design space in a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cspprof.core.errors import CspprofError
from cspprof.core.inputs import SHOWN
from cspprof.core.toml_text import read_toml
from cspprof.core.units import shortened
from cspprof.sweeps.space import axis_values, listed, parse_sizes

EXAMPLE = 'models = ["csp_peleenet"]\ngrid.gamma = "0.25:0.75:0.125"'


class SpaceFile(BaseModel):
    """The keys of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    models: list[str]
    grid: dict[str, str | list[str | int | float | bool | list[int]]] = {}
    size: list[int | str] | str | int | None = None
    batch: list[int] | int | None = None
    where: str | list[str] = []
    minimize: str | list[str] = []
    maximize: str | list[str] = []


def read_space_file(path: Path) -> dict[str, Any]:
    """The models, axes, constraints and objectives in the file. Raises CspprofError with the place of a mistake."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise CspprofError(f"{path} is not a file", "Name a TOML file: --space FILE")
        read = SpaceFile.model_validate(read_toml(path)[1])
    except FileNotFoundError:
        raise CspprofError(f"there is no file {path}", "Name a TOML file: --space FILE") from None
    except OSError as error:
        raise CspprofError(f"cannot read {path}: {error.strerror}", "Name a TOML file: --space FILE") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = shortened(".".join(map(str, first["loc"])), SHOWN)
        known = f"Its keys: {', '.join(SpaceFile.model_fields)}"
        raise CspprofError(f"{path}: {place}: {first['msg']}", known) from None
    except ValueError as error:  # also an integer of very many digits
        raise CspprofError(f"{path} is no TOML: {error}", f"Write for example:\n{EXAMPLE}") from None
    try:
        axes = {name: axis_values(name, values) for name, values in read.grid.items()}
        if read.size is not None:
            axes["size"] = parse_sizes(",".join(map(str, listed(read.size))))
        if read.batch is not None:
            axes["batch"] = axis_values("batch", read.batch)
    except CspprofError as error:
        raise CspprofError(f"{path}: {error.message}", error.hint) from None
    return {
        "models": read.models, "grid": axes, "where": listed(read.where), "minimize": listed(read.minimize),
        "maximize": listed(read.maximize),
    }  # fmt: skip
