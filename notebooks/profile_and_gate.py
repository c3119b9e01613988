# %% [markdown]
# # Profile your own model and gate it in CI
#
# Three questions about your network: where do its compute and memory traffic go, did a change make it better, and does
# a later change make it worse? `cspprof.profile`, `cspprof.compare` and `cspprof.check` answer them.

# %%
import os
import tempfile
from pathlib import Path

import cspprof

# %% [markdown]
# ## Your model
#
# cspprof profiles any `nn.Module`, in a file or in memory. This example is a small residual network.

# %%
NET = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class Stage(nn.Module):
    def __init__(self, c_in, channels, depth):
        super().__init__()
        self.down = nn.Conv2d(c_in, channels, 3, 2, 1, bias=False)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(depth)))

    def forward(self, x):
        return self.blocks(self.down(x))


class Net(nn.Module):
    example_input_shape = (1, 3, 64, 64)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.stage1 = Stage(32, 64, 3)
        self.stage2 = Stage(64, 128, 3)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.stage2(self.stage1(self.stem(x))).mean((2, 3)))
"""
os.chdir(tempfile.mkdtemp())  # the files of this notebook go into a temporary folder
Path("net.py").write_text(NET)
plain = cspprof.profile("net.py:Net")
plain

# %% [markdown]
# No value was computed: the model ran on tensors that have shapes and no data. Every operation is a row.

# %%
plain.to_pandas()[["path", "kind", "stage", "in", "out", "macs", "cio_cspnet"]].head(8)

# %% [markdown]
# The layers in execution order, the cumulative share, and the names of the largest layers:

# %%
cspprof.plot("bottleneck", plain, top=6)

# %% [markdown]
# The activation memory that is alive while it runs, and the layers that wait for memory on a Jetson TX2:

# %%
cspprof.plot("memory", plain)

# %%
cspprof.plot("roofline", plain, hardware=["jetson-tx2"])

# %% [markdown]
# ## A refactor
#
# In the cross-stage-partial form of a stage, half of the channels bypass the blocks, and a 1×1 transition joins both
# parts.

# %%
STAGE = NET[NET.index("class Stage") : NET.index("class Net")]
PARTIAL = """class Stage(nn.Module):
    def __init__(self, c_in, channels, depth):
        super().__init__()
        self.down = nn.Conv2d(c_in, channels, 3, 2, 1, bias=False)
        self.blocks = nn.Sequential(*(Block(channels // 2) for _ in range(depth)))
        self.transition = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x):
        bypass, main = self.down(x).chunk(2, 1)
        return self.transition(torch.cat([bypass, self.blocks(main)], 1))


"""
Path("csp_net.py").write_text(NET.replace(STAGE, PARTIAL))
partial = cspprof.profile("csp_net.py:Net")
cspprof.compare(plain, partial)

# %%
cspprof.plot("stages", plain, partial, metric="macs")

# %% [markdown]
# ## The gate
#
# Rules live in `cspprof.toml`, or in `pyproject.toml` under `[tool.cspprof]`. These two say that the partial network
# stays below a CIO budget, and saves at least 60 % of the plain network's compute.

# %%
Path("cspprof.toml").write_text("""
[models.net]
target = "net.py:Net"

[models.csp_net]
target = "csp_net.py:Net"

[[rules]]
id = "budget"
model = "csp_net"
metric = "cio"
max = "0.4 M"

[[rules]]
id = "csp-pays"
model = "csp_net"
base = "net"
metric = "macs"
min_drop = "60%"
""")


def show(verdict):
    for f in verdict.results:
        print(f"{f.outcome:6} {f.rule:9} {f.metric:10} {int(f.value):>11,}, at most {int(f.limit):>11,}")
        for cause in f.causes[:3]:
            print(f"       {cause.layer} {int(cause.difference):+,}")
    print("ok" if verdict.ok else f"exit code {verdict.exit_code}")


show(cspprof.check())

# %% [markdown]
# A later change makes the partial network deeper: 6 blocks instead of 3 in the first stage.

# %%
deeper = Path("csp_net.py").read_text().replace("Stage(32, 64, 3)", "Stage(32, 64, 6)")
Path("csp_net.py").write_text(deeper)
show(cspprof.check())

# %% [markdown]
# In CI, run `cspprof check`. Its exit code is 0 if every rule holds, 1 if a rule fails, and 2 if a model could not be
# measured. `cspprof init` writes a commented configuration, and `cspprof check --update-baseline` records the current
# totals, so that a rule can say `max_increase = "0%"`. `--format` writes the verdict for GitHub, GitLab, JUnit and
# SARIF.
