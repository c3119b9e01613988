# %% [markdown]
# # Your network, cross stage partial
#
# In a cross stage partial network (Wang et al. 2019), a part of a stage's channels bypasses its blocks. The paper does
# this to ResNet, ResNeXt, DenseNet and Darknet. `cspprof convert` does it to your network, as a module that you can
# train, and says what it costs. The example is ConvNeXt-T (Liu et al. 2022), which is younger than the paper.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

from IPython.display import Image, Markdown

import cspprof

NETWORK = "torchvision:convnext_tiny"
plain = cspprof.profile(NETWORK)
plain

# %% [markdown]
# ## Where the cost is
#
# Each block has a depthwise 7×7 convolution and two linear layers, which widen the map four times. The linear layers
# have nearly all MACs. CIO counts convolutions only, so here the traffic of all operations is the better measure.

# %%
cspprof.plot("bottleneck", plain, top=6)

# %%
cspprof.plot("memory", plain)

# %% [markdown]
# ## The conversion
#
# `convert` finds the stages by the dataflow of one forward pass. Half of the channels bypass the blocks (γ = 0.5), and
# the blocks get narrower. Every new stage has run forward and backward before it is used.

# %%
conversion = cspprof.convert(NETWORK)
conversion

# %%
cspprof.plot("stages", conversion.before, conversion.after, metric="macs")

# %%
cspprof.plot("stages", conversion.before, conversion.after, metric="traffic_bytes")

# %% [markdown]
# ## Less repeated gradient information
#
# The paper's argument is about training: where maps are added or concatenated, the same gradient updates the layers of
# a block and everything that bypasses them. Behind the transition of a cross stage partial stage, both sides get
# gradients of their own. *Shared* counts the gradients that both sides have in common.

# %%
for p in (conversion.before, conversion.after):
    print(f"{p.model}: {cspprof.gradients(p).total.shared} shared")

# %% [markdown]
# ## Which γ, and which fusion?
#
# A larger γ saves more and leaves the blocks fewer channels. The fusion says where the 1×1 transitions are (Fig. 3 of
# the paper): before and behind the concatenation (*csp*), or only before it (*last*). The command compares them. Here
# it marks the least traffic among the networks that keep at least 15 M parameters; the others are hollow in the chart.

# %%
folder = Path(tempfile.mkdtemp())


def convert(*options):
    command = [sys.executable, "-m", "cspprof", "convert", NETWORK, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


table = convert("--gamma", "0.25:0.75:0.25", "--fusion", "csp,last", "--where", "params>=15 M",
                "--minimize", "traffic_bytes", "--format", "markdown", "-o", "choice.png")  # fmt: skip
Markdown(table[table.index("|") : table.index("\n\n", table.index("|"))])

# %%
Image(folder / "choice.png", width=500)

# %% [markdown]
# ## Does a converted network still learn?
#
# A small ResNet and its conversions, trained on the digits of scikit-learn with the same schedule and three seeds
# (`reports/learning.py`):
#
# | network | params | MACs | CIO | peak memory | seed 0 | seed 1 | seed 2 | mean accuracy |
# | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
# | plain | 272,186 | 10,130,048 | 104,512 | 48 KiB | 99.16 % | 99.66 % | 99.33 % | 99.39 % |
# | CSP, fusion csp | 179,930 | 6,247,040 | 107,584 | 56 KiB | 99.33 % | 99.5 % | 99.5 % | 99.44 % |
# | CSP, fusion first | 178,474 | 6,197,888 | 100,416 | 56 KiB | 99.5 % | 99.16 % | 99.33 % | 99.33 % |
# | CSP, fusion last | 174,330 | 6,050,432 | 93,248 | 56 KiB | 99.33 % | 99.16 % | 99.66 % | 99.39 % |
#
# Digits are an easy task: the table shows that gradients reach all parts of a converted network and that it trains as
# well, not that the accuracy on your data is the same.
#
# ## Weights
#
# Layers that did not change have the weights of the original. The others must be trained.

# %%
weights = conversion.weights()
carried = {name: old for name, old in weights.items() if old}
print(f"{len(carried)} of {len(weights)} tensors have the values of the original, for example")
for name in list(carried)[:4]:
    print(f"    {name} from {carried[name]}")

# %% [markdown]
# ## The code
#
# `conversion.source()` is a Python module that builds the converted network from the plain one. It needs torch and
# torchvision, not cspprof.

# %%
code = conversion.source()
print(code[code.index("def convert") :][:1500], "…")

# %% [markdown]
# Built by that code, the network has the same costs:

# %%
(folder / "net_csp.py").write_text(code)
built = cspprof.profile(f"{folder / 'net_csp.py'}:build", (1, 3, 224, 224))
built.total("macs"), conversion.after.total("macs")

# %% [markdown]
# ## ONNX
#
# The same network as a graph for an inference engine:

# %%
convert("-o", "net_csp.onnx")
cspprof.profile(str(folder / "net_csp.onnx")).total("macs")
