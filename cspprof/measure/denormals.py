"""Flush denormal numbers to zero in this process and in the threads that it starts later.

A multiplication of denormal numbers takes up to a hundred times longer than one of normal numbers, so a few of them
in random weights or activations change the time of a network 10- to 40-fold. Only some engines have an option of
their own. New threads inherit the floating-point environment of the thread that starts them, so setting it before an
engine is imported covers the thread pool of each engine.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import sys

X86_FLUSH = 0x8040
"""Bits of the control register MXCSR: flush results to zero (bit 15), read denormals as zero (bit 6)."""
X86_OFFSET = 28
"""Offset of MXCSR in `fenv_t` of x86-64, in bytes: after the 28 bytes of the x87 environment."""
ARM_FLUSH = 1 << 24
"""Bit FZ of the control register FPCR, the first word of `fenv_t` of 64-bit ARM on Linux."""


def flush_denormals() -> bool:
    """Flush denormals from now on, and return whether this works on this platform."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        _set_bits(X86_OFFSET, X86_FLUSH)
    elif machine in ("aarch64", "arm64") and sys.platform == "linux":
        _set_bits(0, ARM_FLUSH)
    return flushes_denormals()


def flushes_denormals() -> bool:
    """Whether the result of an operation of this thread is zero where it would be denormal."""
    return sys.float_info.min * 0.5 == 0.0


def _set_bits(offset: int, bits: int) -> None:
    """Set bits of a 32-bit word of the floating-point environment, with the C functions `fegetenv` and `fesetenv`."""
    if sys.platform not in ("linux", "darwin"):  # on Windows fenv_t has another layout
        return
    library = ctypes.CDLL(ctypes.util.find_library("m") or None)
    environment = (ctypes.c_uint8 * 64)()  # larger than any fenv_t
    if library.fegetenv(environment) != 0:
        return
    word = ctypes.c_uint32.from_buffer(environment, offset)
    word.value |= bits
    library.fesetenv(environment)
