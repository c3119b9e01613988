# %% [markdown]
# # A first look
#
# Where the compute and the memory traffic of a network go, and what its cross-stage-partial twin changes.

# %%
import cspprof

plain = cspprof.profile("resnext50")
plain

# %% [markdown]
# The largest layers by CIO, input plus output elements of every convolution and pool.

# %%
plain.to_pandas().nlargest(5, "cio_cspnet")[["path", "stage", "in", "out", "cio_cspnet"]]

# %% [markdown]
# Beside its twin, and stage by stage.

# %%
both = cspprof.compare("resnext50", "csp_resnext50")
both

# %%
for part in both.by_stage("cio_cspnet"):
    print(f"{part.name:8} {part.difference:+,}")
