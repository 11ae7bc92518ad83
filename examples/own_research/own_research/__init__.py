"""The energy model of motion and texture perception as a network, on gratings.

Importing this package, as --plugin=own_research does, registers what it brings by name.
"""

import cnn_jax
from own_research.energy_net import energy_net
from own_research.gratings import gratings
from own_research.margin import margin
from own_research.random_signs import RANDOM_SIGNS

cnn_jax.register_model("energy_net", energy_net)
cnn_jax.register_dataset("gratings", gratings)
cnn_jax.register_loss("margin", margin)
cnn_jax.register_attack("random_signs", RANDOM_SIGNS)
cnn_jax.register_recipe(
    "gratings",
    {
        "model": "energy_net",
        "dataset": "gratings",
        "loss": "margin",
        "optimizer": "optax.adam",
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "batch_size": 50,
        "epochs": 20,
    },
)
