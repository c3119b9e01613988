"""Direct factorizations and linear solvers: the multiply-accumulates of the textbook algorithm.

Divisions and square roots are not MACs. Iterative algorithms (eigenvalues, singular values, matrix functions) and
blocked Householder reflections (QR) have no count that follows from the shapes. They have no rule on purpose, so they
are reported as unknown.
"""

from __future__ import annotations

from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.kinds import Kind
from cspprof.ops.op_rules import Facts, Spec, op_rule


@op_rule("aten.linalg_lu_factor_ex", "aten.linalg_lu", "aten._linalg_det", "aten._linalg_slogdet")
def lu(matrix: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """A determinant is an LU factorization; the product of the diagonal is not counted."""
    *batch, m, n = matrix.shape
    return Facts(Kind.MATMUL, prod(batch) * f.lu_macs(m, n))


@op_rule("aten.linalg_cholesky_ex")
def cholesky(matrix: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    *batch, n, _ = matrix.shape
    return Facts(Kind.MATMUL, prod(batch) * f.cholesky_macs(n))


@op_rule("aten._linalg_solve_ex")
def solve(matrix: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    *batch, n, _ = matrix.shape
    return Facts(Kind.MATMUL, prod(batch) * f.lu_macs(n, n) + 2 * f.substitution_macs(n, out.numel), outputs=1)


@op_rule("aten.linalg_inv_ex")
def inverse(matrix: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """The solution with the identity as right-hand side, as torch computes it."""
    return solve(matrix, out=out)


@op_rule("aten.linalg_solve_triangular")
def solve_triangular(matrix: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, f.substitution_macs(matrix.shape[-1], out.numel))


@op_rule("aten.triangular_solve")
def triangular_solve(right: Spec, matrix: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, f.substitution_macs(matrix.shape[-1], out.numel), outputs=1)


@op_rule("aten.linalg_lu_solve")
def lu_solve(factors: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """One forward and one backward substitution."""
    return Facts(Kind.MATMUL, 2 * f.substitution_macs(factors.shape[-1], out.numel))


@op_rule("aten.cholesky_solve")
def cholesky_solve(right: Spec, factor: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return lu_solve(factor, out=out)
