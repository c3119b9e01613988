"""The deployed form of a module: re-parameterized branches merged, batch norms folded, activations in place.

`deploy` does it: `reparameterize` calls the methods that merge branches, `foldable_norms` finds in a record which batch
norm directly follows which convolution, `fold` changes the modules, `in_place` finds activations that may overwrite
their input. `proof` compares the outputs before and after on real tensors. The caller passes functions that trace and
run a module.
"""
