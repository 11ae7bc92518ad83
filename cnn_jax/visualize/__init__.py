"""Looking inside a network: what it computes, what it looks at, and whether to believe a map.

The functions take any differentiable f(images) -> logits [n, classes], in JAX. Given as a
`jax.tree_util.Partial(apply, variables)`, its variables are arguments of what is compiled, so that
one compilation serves all weights; `cnn_jax.trained.classifier` gives one.
"""
