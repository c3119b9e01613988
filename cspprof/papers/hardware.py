"""Peak rates of hardware: float32 multiply-accumulates per second, and bytes per second from memory."""

from __future__ import annotations

from dataclasses import dataclass

from cspprof.core.errors import CspprofError, UnknownNameError
from cspprof.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Hardware:
    """The parameters of a Roofline (Williams et al. 2009). The peak is that of float32 arithmetic without tensor cores,
    sparsity or narrower types."""

    name: str
    title: str
    gmacs: float
    """10⁹ multiply-accumulates per second: half of the FLOPs that vendors print."""
    gb_per_s: float
    peak_source: str
    bandwidth_source: str

    @property
    def source(self) -> str:
        """Where both figures come from."""
        return f"{self.peak_source}; {self.bandwidth_source}" if self.bandwidth_source else self.peak_source

    @property
    def ridge(self) -> float:
        """MACs per byte below which memory bandwidth is the limit."""
        return self.gmacs / self.gb_per_s

    def attainable(self, macs_per_byte: float) -> float:
        """The upper bound in 10⁹ MACs per second at this intensity."""
        return min(self.gmacs, self.gb_per_s * macs_per_byte)


SYNTAX = "name:peak_gmacs:gb_per_s, as in mychip:500:25.6"
HARDWARE: Registry[Hardware] = Registry("hardware")


def _add(name: str, title: str, lanes: int, ghz: float, gb_per_s: float, peak: str, bandwidth: str) -> None:
    """Register hardware that does `lanes` multiply-accumulates in each clock cycle, with the source of each figure."""
    HARDWARE.add(name, Hardware(name, title, lanes * ghz, gb_per_s, peak, bandwidth))


_add("i9-9900k", "Core i9-9900K", 8 * 2 * 8, 3.6, 41.6,
     "8 cores at their base clock, two 8-wide FMA units each (Intel ARK)",
     "two channels of DDR4-2666 (Intel ARK)")  # fmt: skip
_add("gtx1080ti", "GeForce GTX 1080 Ti", 3584, 1.582, 484,
     "3,584 cores at boost clock (NVIDIA product page)",
     "352 bits of GDDR5X at 11 Gb/s (NVIDIA product page)")  # fmt: skip
_add("jetson-tx2", "Jetson TX2", 256, 1.3, 59.7,
     "256 cores at 1.3 GHz (module data sheet)", "128 bits of LPDDR4 (module data sheet)")  # fmt: skip
_add("jetson-nano", "Jetson Nano", 128, 0.9216, 25.6,
     "128 cores at 921.6 MHz (module data sheet)", "64 bits of LPDDR4 (module data sheet)")  # fmt: skip
_add("jetson-orin-nano", "Jetson Orin Nano 8 GB", 1024, 0.625, 68,
     "1,024 cores at 625 MHz (module data sheet)", "128 bits of LPDDR5 (module data sheet)")  # fmt: skip
_add("t4", "Tesla T4", 2560, 1.59, 320,
     "2,560 cores at boost clock (data sheet)", "256 bits of GDDR6 at 10 Gb/s (data sheet)")  # fmt: skip
_add("a100", "A100 80 GB SXM", 6912, 1.41, 2039,
     "6,912 cores at boost clock (data sheet: 19.5 TFLOPS)", "HBM2e (data sheet: 2,039 GB/s)")  # fmt: skip
_add("h100", "H100 SXM", 16896, 1.98, 3350,
     "16,896 cores at boost clock (data sheet: 67 TFLOPS)", "HBM3 (data sheet: 3.35 TB/s)")  # fmt: skip
_add("rtx4090", "GeForce RTX 4090", 16384, 2.52, 1008,
     "16,384 cores at boost clock (NVIDIA product page)",
     "384 bits of GDDR6X at 21 Gb/s (NVIDIA product page)")  # fmt: skip
_add("pi4", "Raspberry Pi 4", 4 * 4, 1.5, 12.8,
     "four Cortex-A72 at 1.5 GHz (product brief), one 4-wide FMA each (Arm optimization guide)",
     "32 bits of LPDDR4-3200 (product brief)")  # fmt: skip
_add("pi5", "Raspberry Pi 5", 4 * 2 * 4, 2.4, 17.1,
     "four Cortex-A76 at 2.4 GHz (product brief), two 4-wide FMA units each (Arm optimization guide)",
     "32 bits of LPDDR4X-4267 (product brief)")  # fmt: skip


def hardware(text: str) -> Hardware:
    """The hardware of a known name, or of `name:peak_gmacs:gb_per_s`. Raises CspprofError for anything else."""
    if ":" not in text:
        if text not in HARDWARE:
            known = ", ".join(HARDWARE)
            raise UnknownNameError(f"no hardware named {text!r}", f"Known: {known}; or write {SYNTAX}")
        return HARDWARE.get(text)
    name, _, numbers = text.partition(":")
    try:
        gmacs, gb_per_s = map(float, numbers.split(":"))
    except ValueError:
        gmacs = gb_per_s = 0
    if not (name and 0 < gmacs < float("inf") and 0 < gb_per_s < float("inf")):
        raise CspprofError(f"cannot parse the hardware {text!r}", f"Write {SYNTAX}, both above 0")
    return Hardware(name, name, gmacs, gb_per_s, "given by the user", "")
