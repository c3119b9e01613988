"""The machine that measures: CPUs for threads, memory, and the CPU time of other processes."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from cspprof.core.errors import CspprofError
from cspprof.measure import machine
from cspprof.measure.machine import CpuClock, cpus_for, default_threads, peak_resident_bytes, this_machine


@pytest.fixture
def siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four CPUs on two cores: 0 and 1 share a core, 2 and 3 the other one."""
    monkeypatch.setattr(machine, "available_cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(machine, "_core_of", lambda cpu: (cpu // 2 * 2, cpu // 2 * 2 + 1))


@pytest.mark.usefixtures("siblings")
def test_threads_get_different_cores_before_they_share_one() -> None:
    assert [cpus_for(n) for n in (1, 2, 3, 4)] == [[0], [0, 2], [0, 2, 1], [0, 2, 1, 3]]
    assert default_threads() == 2


@pytest.mark.usefixtures("siblings")
@pytest.mark.parametrize("threads", [0, -1, 5])
def test_a_number_of_threads_without_as_many_cpus_is_refused(threads: int) -> None:
    with pytest.raises(CspprofError, match=f"--threads {threads}: this process may use 4 CPUs") as caught:
        cpus_for(threads)
    assert caught.value.hint == "Write --threads N with 1 ≤ N ≤ 4."


def test_the_machine_has_a_name_and_the_cpus_of_this_process() -> None:
    found = this_machine()
    assert found.cpu
    assert found.cores == len(machine.available_cpus())
    assert found.memory_bytes == psutil.virtual_memory().total
    assert 0 < machine.available_memory() <= found.memory_bytes


def test_the_peak_of_a_new_process_does_not_start_at_that_of_its_parent() -> None:
    """`ru_maxrss` would: a child is created with the memory of its parent."""
    program = (
        "from cspprof.measure.machine import peak_resident_bytes\n"
        "before = peak_resident_bytes()\n"
        "data = bytearray(b'x' * (64 << 20))\n"
        "print(before, peak_resident_bytes() - before)"
    )
    ballast = bytearray(b"x" * (256 << 20))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, growth = map(int, done.stdout.split())
    assert before < 128 << 20 < len(ballast) <= peak_resident_bytes()
    assert 60 << 20 < growth < 200 << 20


def test_the_cpu_time_of_other_processes_excludes_that_of_the_engines() -> None:
    clock = CpuClock()
    sum(range(3_000_000))
    busy = clock.seconds(own=0.0)
    assert busy > 0
    assert clock.seconds(own=1e9) == 0.0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform cannot pin a process")
def test_a_pinned_process_runs_on_its_cpus_only() -> None:
    cpu = machine.available_cpus()[-1]
    program = f"from cspprof.measure.machine import pin, available_cpus; print(pin([{cpu}]), available_cpus())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"True [{cpu}]"
