"""Where an error happened in the user's code: file and line."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

import torch

from cspprof.core.files import display_path

LIBRARIES = (Path(torch.__file__).parent, Path(__file__).parent.parent)
"""Folders of torch and of cspprof: a frame in them is not the user's code."""


def user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame of the traceback outside of torch and cspprof."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return frames[-1] if frames else None


def _is_users(file: str) -> bool:
    return file[:1] != "<" and not any(Path(file).is_relative_to(folder) for folder in LIBRARIES)


def file_and_line(file: str, line: int | None) -> str:
    """`net.py, line 12`."""
    return f"{display_path(Path(file))}, line {line}"


def definition(module: torch.nn.Module) -> str:
    """Where the user's code defines the forward of the module or, without one, its class; empty if neither is known."""
    code = getattr(inspect.unwrap(getattr(module.forward, "__func__", module.forward)), "__code__", None)
    if code is not None and _is_users(code.co_filename):
        return file_and_line(code.co_filename, code.co_firstlineno)
    try:
        file, line = inspect.getsourcefile(type(module)), inspect.getsourcelines(type(module))[1]
    except (OSError, TypeError):
        return ""
    return file_and_line(file, line) if file is not None and _is_users(file) else ""
