"""The module that a converted stage becomes. The generated code of a conversion contains a copy of this class."""

from __future__ import annotations

import torch
from torch import nn


class CSPStage(nn.Module):
    """A cross stage partial stage (CSPNet, Wang et al. 2019, Fig. 3): one part of the channels bypasses the blocks.

        x ─┬─ main ── blocks ── block_transition ── concat ── pool ── transition ── out
           └─ bypass ──────────────────────────────┘

    (N, C, H, W) -> (N, C_out, H', W'). Without `bypass` and `main`, two 1×1 convolutions, the channels of x are sliced
    into `widths`: those that bypass the blocks, and those that run through them.
    """

    def __init__(
        self,
        blocks: nn.Module,
        widths: tuple[int, int],
        bypass: nn.Module | None = None,
        main: nn.Module | None = None,
        block_transition: nn.Module | None = None,
        pool: nn.Module | None = None,
        transition: nn.Module | None = None,
        down: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.widths = widths
        self.down = down
        self.bypass = bypass
        self.main = main
        self.blocks = blocks
        self.block_transition = block_transition
        self.pool = pool
        self.transition = transition

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.down is not None:
            x = self.down(x)
        if self.bypass is None or self.main is None:
            bypass, main = torch.split(x, list(self.widths), dim=1)
        else:
            bypass, main = self.bypass(x), self.main(x)
        main = self.blocks(main)
        if self.block_transition is not None:
            main = self.block_transition(main)
        x = torch.cat([main, bypass], dim=1)
        if self.pool is not None:
            x = self.pool(x)
        if self.transition is not None:
            x = self.transition(x)
        return x
