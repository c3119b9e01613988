# %% [markdown]
# # CSPNet's cost analysis, recomputed
#
# *CSPNet: A New Backbone that can Enhance Learning Capability of CNN* (Wang et al. 2019) argues with costs: the
# operations of the largest layer, the elements that every layer reads and writes, and what a stage saves if a part of
# its input bypasses it. This notebook computes these costs again from traced networks. It needs no weights, no GPU and
# no image.

# %%
import cspprof

# %% [markdown]
# ## Input and output of every layer (Fig. 8)
#
# Convolutional input/output (CIO) sums the elements that every convolution and pool reads and writes, as a proxy for
# DRAM traffic. The paper prints 34.4 M elements for ResNeXt-50 and 32.6 M for CSPResNeXt-50, at 256×256. cspprof gives
# both values, and the bars sum to them.

# %%
fig8 = cspprof.plot("fig8", "resnext50", "csp_resnext50")
fig8

# %%
fig8.to_pandas().groupby("panel").cio_cspnet.sum()

# %% [markdown]
# The saving of 5 % has two causes. The split makes stage 1 more expensive, because it adds transitions at the highest
# resolution, and the other stages cheaper. And the partial network has fewer blocks: 3-3-5-2 instead of 3-4-6-3.

# %%
cspprof.plot("stages", "resnext50", "csp_resnext50")

# %% [markdown]
# A split that saves compute can cost traffic. On Darknet-53 it saves 30 % of the MACs and adds 44 % to the CIO.

# %%
darknets = cspprof.compare("darknet53", "csp_darknet53")
for delta in darknets.deltas(["macs", "cio_cspnet"]):
    print(f"{delta.metric:10} {delta.base_value:>14,} -> {delta.value:>14,}  {delta.relative:+.1%}")

# %% [markdown]
# ## The largest layer (Fig. 7)
#
# Three detectors on PeleeNet at 416×416. With a YOLO head, the largest layer merges the levels of the pyramid. PRN adds
# feature maps instead of concatenating them, so its largest layers are PeleeNet's transitions.

# %%
cspprof.plot("fig7", "peleenet_yolo", "peleenet_prn", "csp_peleenet_efm", inputs=(1, 3, 416, 416))

# %% [markdown]
# In the paper, CSPPeleeNet with the Exact Fusion Model lowers the peak by 80 % and by 44 %, to 0.1994 BFLOPs. Its
# definition was never published, so the chart shows a *reading* (our reconstruction): the convolutions of its neck have
# 0.1994 BFLOPs, but a transition of its backbone has more.

# %%
efm = cspprof.profile("csp_peleenet_efm").to_pandas()
efm["bflops"] = 2 * efm.macs / 1e9
efm.nlargest(6, "bflops")[["path", "stage", "in", "out", "bflops"]]

# %%
neck = efm.set_index("path").macs["neck.heads.0.conv.conv"]
for name in ("peleenet_yolo", "peleenet_prn"):
    before = cspprof.profile(name).total("bottleneck_macs")
    whole = efm.macs.max()
    print(f"from {name}: its neck {neck / before - 1:+.2%}, the whole reading {whole / before - 1:+.2%}")

# %% [markdown]
# ## Bypassed fraction and fusion (Table 1, Figs. 3 and 4)
#
# γ is the fraction of a stage's input channels that bypasses its dense layers. The *fusion* says where the two paths
# join: *first* joins them before the transition, *last* after it, and *csp* has a transition on both sides. The table
# compares every published figure with ours. CSPPeleeNet is a reading.

# %%
cspprof.reproduce("table1")

# %%
cspprof.plot("fusion")

# %% [markdown]
# ## The closed form against the trace
#
# A dense block with c channels in its base layer and m layers of growth d moves w·h·(c·m + (m²+m)·d/2) elements. If the
# fraction γ of the base layer bypasses the block, the first term shrinks to (1−γ)·c·m. So the saving is at most γ, and
# close to γ only if c ≫ m·d.

# %%
cspprof.plot("closed-form", c=128, m=4, d=32)

# %% [markdown]
# The next cell compares the formula with traced blocks of m convolutions, each of which reads all earlier feature maps.
# The formula counts the input of each convolution and the d channels that it adds, exactly as CIO does.

# %%
import torch
from torch import nn


class Dense(nn.Module):
    """m 3×3 convolutions of growth d on a base layer of c channels, `bypass` of which skip the layers."""

    def __init__(self, c, m, d, bypass=0):
        super().__init__()
        self.bypass = bypass
        reads = (c - bypass + i * d for i in range(m))
        self.layers = nn.ModuleList(nn.Conv2d(n, d, 3, padding=1, bias=False) for n in reads)

    def forward(self, x):
        maps = [x[:, self.bypass :]]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1) if len(maps) > 1 else maps[0]))
        return torch.cat([x[:, : self.bypass], *maps], 1)


def traced(c, m, d, gamma, side=28):
    return cspprof.profile(Dense(c, m, d, int(gamma * c)), (1, c, side, side), name="dense").total("cio_hardnet")


def formula(c, m, d, gamma, side=28):
    return int(side * side * ((1 - gamma) * c * m + (m * m + m) * d / 2))


print("   c   m   d     γ    closed form        traced   saved")
for c, m, d in ((32, 3, 32), (128, 4, 32), (256, 8, 32), (512, 6, 32)):
    for gamma in (0, 0.25, 0.5):
        form, cio = formula(c, m, d, gamma), traced(c, m, d, gamma)
        assert form == cio
        print(f"{c:4} {m:3} {d:3} {gamma:5} {form:14,} {cio:13,}  {1 - cio / traced(c, m, d, 0):6.1%}")

# %% [markdown]
# The whole network saves less, because its transitions and bottleneck convolutions are not part of the formula.

# %%
cspprof.compare("peleenet", "csp_peleenet")
