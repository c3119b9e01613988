"""LaTeX tables with booktabs, for papers."""

from __future__ import annotations

from collections.abc import Iterable

from cspprof.render.registry import Canvas, renderer
from cspprof.report.tables import Cell, Formula, Report, Table

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}", "*": "{*}", "`": r"\textasciigrave{}",
    "×": r"$\times$", "−": "$-$", "–": "--", "—": "---", "≥": r"$\geq$", "·": r"$\cdot$", "γ": r"$\gamma$",
    "Σ": r"$\Sigma$", "⌈": r"$\lceil$", "⌉": r"$\rceil$", "²": r"\textsuperscript{2}", "₂": r"\textsubscript{2}",
    "⁹": r"\textsuperscript{9}", "…": r"\dots{}", "→": r"$\rightarrow$", "∞": r"$\infty$", "ρ": r"$\rho$",
    "≤": r"$\leq$", "≫": r"$\gg$", "≠": r"$\neq$",
}  # fmt: skip
"""Characters with a meaning in LaTeX or no glyph. A bracket or star at the start of a row would belong to `\\\\`."""


FIRST_LINE = "% \\usepackage{booktabs} and, for \\textquotedbl, \\usepackage[T1]{fontenc}"


@renderer("latex", ".tex", is_own=lambda head: head.startswith(FIRST_LINE.encode()))
def as_latex(report: Report, canvas: Canvas) -> str:
    report = report.paper or report
    parts = [FIRST_LINE]
    parts += map(_table, report.tables_or_chart_data)
    if report.notes:
        items = "\n".join(f"  \\item {escape(note)}" for note in report.notes)
        parts.append(f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}")
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """`text` as LaTeX source on one line. Letters of other scripts remain as they are."""
    return "".join(SPECIAL.get(c, c) for c in " ".join(text.split()))


def _table(table: Table) -> str:
    columns = "".join("r" if c.numeric else "l" for c in table.columns)
    lines = [r"\begin{table}", r"  \centering"]
    if table.title:
        lines.append(f"  \\caption{{{escape(table.title)}}}")
    if table.label:
        lines.append(f"  \\label{{{table.label}}}")
    lines += [f"  \\begin{{tabular}}{{{columns}}}", r"    \toprule", _line(escape(c.header) for c in table.columns)]
    lines += [r"    \midrule", *(_line(map(_cell, row)) for row in table.rows), r"    \bottomrule"]
    return "\n".join([*lines, r"  \end{tabular}", r"\end{table}"])


def _cell(cell: Cell) -> str:
    return f"${cell.value.latex}$" if isinstance(cell.value, Formula) else escape(cell.text)


def _line(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"
