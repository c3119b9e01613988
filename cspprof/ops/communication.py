"""Collectives of torch.distributed: they move elements between processes, without MACs."""

from __future__ import annotations

from cspprof.core.kinds import Kind
from cspprof.ops.op_rules import register_without_macs

register_without_macs(
    Kind.DATA,
    "wait_tensor _wrap_tensor_autograd all_reduce all_reduce_coalesced all_gather_into_tensor "
    "all_gather_into_tensor_coalesced all_gather_into_tensor_out reduce_scatter_tensor reduce_scatter_tensor_coalesced "
    "reduce_scatter_tensor_out all_to_all_single broadcast isend irecv batch_p2p_ops",
    namespace="_c10d_functional",
)
register_without_macs(
    Kind.DATA, "all_to_all_single all_gather_into_tensor reduce_scatter_tensor", namespace="_c10d_functional_autograd"
)
register_without_macs(
    Kind.DATA,
    "allreduce allreduce_coalesced allgather _allgather_base allgather_coalesced allgather_into_tensor_coalesced "
    "reduce reduce_scatter _reduce_scatter_base reduce_scatter_tensor_coalesced broadcast gather gather_into_tensor "
    "scatter alltoall alltoall_base send recv recv_any_source barrier monitored_barrier check_for_nan",
    namespace="c10d",
)
register_without_macs(Kind.DATA, "shard_dim_alltoall", namespace="_dtensor")
