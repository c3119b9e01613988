"""The machine that measures: what it is, which CPUs the engines use, and how busy it is."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cspprof.core.errors import CspprofError, pip_install
from cspprof.core.validation import Count, Name

if sys.platform != "win32":
    import resource

BUSY_SHARE = 0.1
"""Share of the CPUs. If other processes use more, the machine is busy."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts about the machine that a result states."""

    cpu: Name
    cores: Count
    """CPUs that this process may use."""
    memory_bytes: Count
    system: Name
    python: Name

    @property
    def label(self) -> str:
        return f"{self.cpu}, {self.cores} CPUs, {self.memory_bytes / 2**30:.0f} GiB, {self.system}"


def require_psutil() -> None:
    """Raise CspprofError if the library that describes the machine is not installed."""
    if find_spec("psutil") is None:
        raise CspprofError("measuring needs the library psutil", f"Install it: {pip_install('measure')}")


def this_machine() -> Machine:
    import psutil

    return Machine(
        cpu_name(),
        len(available_cpus()),
        psutil.virtual_memory().total,
        f"{platform.system()} {platform.release()} {platform.machine()}",
        platform.python_version(),
    )


def cpu_name() -> str:
    """The name of the CPU model."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown CPU"


def available_cpus() -> list[int]:
    """The numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpus_for(threads: int) -> list[int]:
    """The CPUs on which `threads` threads of an engine run: one per core first, then the second threads of cores.

    Raises CspprofError if there are fewer CPUs.
    """
    available = available_cpus()
    if not 1 <= threads <= len(available):
        raise CspprofError(
            f"--threads {threads}: this process may use {len(available)} CPUs",
            f"Write --threads N with 1 ≤ N ≤ {len(available)}.",
        )
    return _one_per_core_first(available)[:threads]


def default_threads() -> int:
    """The number of cores that this process may use: two threads of one core share its arithmetic units."""
    return len({_core_of(cpu) for cpu in available_cpus()})


def _one_per_core_first(cpus: Sequence[int]) -> list[int]:
    seen: dict[tuple[int, ...], int] = {}
    ranked = []
    for cpu in cpus:
        core = _core_of(cpu)
        ranked.append((seen.get(core, 0), cpu))
        seen[core] = seen.get(core, 0) + 1
    return [cpu for _, cpu in sorted(ranked)]


def _core_of(cpu: int) -> tuple[int, ...]:
    """The CPUs that share the core of `cpu`; only itself where the system does not say."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    with contextlib.suppress(OSError, ValueError):
        siblings: list[int] = []
        for part in path.read_text(encoding="ascii").strip().split(","):
            first, _, last = part.partition("-")
            siblings += range(int(first), int(last or first) + 1)
        return tuple(siblings)
    return (cpu,)


def pin(cpus: Sequence[int]) -> bool:
    """Let this process and its future threads run on `cpus` only, and return whether the platform can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return False
    return True


def peak_resident_bytes() -> int:
    """The largest resident memory that this process had so far.

    On Linux `ru_maxrss` of a new process starts at the value of the process that started it, so the kernel's `VmHWM` is
    read instead.
    """
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int:
    """Bytes that new processes can use without swapping, also within the limit of a container."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return free


class CpuClock:
    """CPU seconds that other processes used since the clock was started."""

    def __init__(self) -> None:
        self._started = _busy_seconds()

    def seconds(self, own: float) -> float:
        """The seconds of all processes since the start, without the `own` seconds of the measuring processes."""
        return max(_busy_seconds() - self._started - own, 0.0)


def _busy_seconds() -> float:
    """CPU seconds of all processes since the machine was started."""
    import psutil

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times[: 8 if sys.platform == "linux" else None])) - float(idle)  # guest time is in user time
