"""How fast a model trains, answers and is fed, alone or side by side with PyTorch.

Each side runs in a worker process of its own (worker.py), as the thread pools of two libraries in
one process get into each other's way. The workers take turns, A B A B, and one answers only when
its threads have gone to sleep; how much an idle one still computed is among the results. Whatever
slows the machine down for a while slows neighbouring turns alike, so it is their ratio that is
reported, and its spread.

PyTorch runs as it runs fastest: on a CPU a few turns choose the layout and how OpenMP waits.

A new task is a function and a row of the table in jax_side.py, and of that in torch_side.py where
PyTorch is to do it too.
"""

from cnn_jax.benchmark.measurement import measure
from cnn_jax.benchmark.spec import Spec

__all__ = ["Spec", "measure"]
