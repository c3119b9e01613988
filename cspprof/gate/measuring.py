"""Profiles of a configuration's models: what each entry names, from the folder that the configuration lies in."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cspprof.cache import SPEAKS_FOR_ITSELF, remembered_glance
from cspprof.gate.config import Model
from cspprof.glance import Glance, glance_at
from cspprof.inputs import parse_inputs
from cspprof.record import Profile

if TYPE_CHECKING:
    from cspprof.sources import Request


def profile_of(model: Model, folder: Path) -> Profile | Glance:
    """Read or trace the model; its paths start at `folder`, and so does its import path. Of what was saved or
    remembered, only the totals are read until somebody asks for more.

    Raises CspprofError, from the source or from the forward. A saved profile is read without torch.
    """
    from cspprof.sources import Request, profile_spec

    request = Request(
        inputs=parse_inputs(model.inputs, model.dtype or "float32"),
        device=model.device,
        dtype=model.dtype,
        train=model.train,
    )
    with contextlib.chdir(os.fspath(folder)):
        saved = _saved(model.target, request)
        return saved or remembered_glance(model.target, request, lambda: profile_spec(model.target, request))


def _saved(target: str, request: Request) -> Glance | None:
    """A glance at the file, where that is a saved profile of what is asked for."""
    from cspprof.sources import parse
    from cspprof.sources.saved_profile import holds

    spec = parse(target)
    if spec.options or not spec.target.endswith(SPEAKS_FOR_ITSELF):
        return None
    try:
        found = glance_at(Path(spec.target).read_bytes(), spec.target)
    except OSError:
        return None
    return found if found is not None and holds(found.inputs, request) else None
