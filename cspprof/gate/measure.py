"""Profiles of a configuration's models: what each entry names, from the folder that the configuration lies in."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cspprof.core.inputs import parse_inputs
from cspprof.gate.config import Model
from cspprof.profiles import Profile, profile_spec
from cspprof.sources import Request


def profile_of(model: Model, folder: Path, *, cache: bool = True) -> Profile:
    """Read or trace the model; its paths start at `folder`, and so does its import path.

    Raises CspprofError, from the source or from the forward. A saved profile is read without torch.
    """
    request = Request(
        inputs=parse_inputs(model.inputs, model.dtype or "float32"),
        device=model.device,
        dtype=model.dtype,
        train=model.train,
    )
    with contextlib.chdir(os.fspath(folder)):
        return profile_spec(model.target, request, cache=cache)
