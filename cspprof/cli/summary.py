"""The command `summary`: the tree of modules."""

from __future__ import annotations

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.cli.specs import profile_specs
from cspprof.report.summary import summary_report


def summary_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, depth: o.Depth = None,
) -> None:  # fmt: skip
    """Print the modules of each model as a tree, with output shape, params, MACs, CIO and memory, and the totals."""
    writer = ReportWriter(format, output)
    writer.write(summary_report(profile_specs(specs, input, dtype, device, train, strict), depth))
