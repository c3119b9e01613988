# %% [markdown]
# # Profile your own model and gate it in CI
#
# You have a network and want to know where its compute and its memory traffic go; you change it and want to know
# whether that made it better; and then nobody should make it worse without noticing. Three calls: `cspprof.profile`,
# `cspprof.compare` and `cspprof.check`.

# %%
from pathlib import Path

import cspprof

# %% [markdown]
# ## Your model
#
# Any `nn.Module` will do, in a file or in memory. This one is a small residual network.

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
Path("net.py").write_text(NET)
plain = cspprof.profile("net.py:Net")
plain

# %% [markdown]
# Nothing was computed: the model ran on tensors that have shapes and no data. Every operation is a row.

# %%
plain.to_pandas()[["path", "kind", "stage", "in", "out", "macs", "cio_cspnet"]].head(8)

# %% [markdown]
# Where it is large: layers in execution order, the share so far, and the largest by name.

# %%
cspprof.plot("bottleneck", plain, top=6)

# %% [markdown]
# What it holds in memory while it runs, and which layers would wait for memory on a Jetson TX2:

# %%
cspprof.plot("memory", plain)

# %%
cspprof.plot("roofline", plain, hardware=["jetson-tx2"])

# %% [markdown]
# ## A refactor
#
# The cross-stage-partial form of its stages: half of the channels bypass the blocks, and a 1×1 transition joins both.

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
# Rules live in the project, in `cspprof.toml` or in `pyproject.toml` under `[tool.cspprof]`. Here: the partial network
# stays under a budget of CIO, and saves at least 60 % of the plain one's compute.

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


def tell(verdict):
    for f in verdict.findings:
        print(f"{f.outcome:6} {f.rule:9} {f.metric:10} {int(f.value):>11,}, at most {int(f.limit):>11,}")
        for cause in f.causes[:3]:
            print(f"       {cause.layer} {int(cause.difference):+,}")
    print("ok" if verdict.ok else f"exit code {verdict.exit_code}")


tell(cspprof.check())

# %% [markdown]
# Weeks later somebody finds that the partial network needs more depth, and writes 6 for 3.

# %%
deeper = Path("csp_net.py").read_text().replace("Stage(32, 64, 3)", "Stage(32, 64, 6)")
Path("csp_net.py").write_text(deeper)
tell(cspprof.check())

# %% [markdown]
# In CI the same is one line, `cspprof check`: exit code 0 where every rule holds, 1 where one is broken, 2 where there
# is no answer. `cspprof init` writes a start of the configuration, `cspprof baseline update` records what is there, so
# that rules can say `max_increase = "0%"`, and `--format` speaks to GitHub, GitLab, JUnit and SARIF.
