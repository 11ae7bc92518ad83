"""The sections that look into a classifier of small images: what the demo's page ends with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cnn_jax import trained
from cnn_jax.reports import explanations, parts, representations
from cnn_jax.reports.html import Html
from cnn_jax.reports.run_page import picture_in
from cnn_jax.trained import Trained
from cnn_jax.visualize import methods
from cnn_jax.visualize.batching import Progress, no_progress

# a pass over these and the controls judges them; the other methods take many passes each
_JUDGED = ("saliency", "gradient_times_input", "guided_backprop", "grad_cam")


def sections(
    network: Trained,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    folder: Path,
    key: Array,
    *,
    shown: int = 6,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], list[Html]]:
    """Return the numbers and the sections, whose pictures are kept in the folder as PNG.

    Args:
      images: in 0..1, some hundreds: for neighbours and patches. The first image of each of the
        first `shown` classes is explained.
    """
    picture = picture_in(folder)
    tsne_key, map_key, weight_key = jax.random.split(key, 3)
    first = [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels)[:shown]]
    f = trained.classifier(network)
    targets = labels[first]
    names = [class_names[label] for label in targets]
    question = explanations.Question(f, images[first], targets, names)
    # as many points as images: one compiled gradient serves all methods
    settings = methods.Settings(
        map_key, steps=5 * shown, samples=5 * shown, masks=400, batch_size=shown
    )
    shapes = trained.layer_shapes(network, images.shape[1:])
    spread = representations.spread(shapes)
    results: dict[str, Any] = {}
    made: list[Html] = []

    def add(
        name: str, make: Callable[..., tuple[dict[str, Any], Html]], *args: Any, **options: Any
    ):
        def one() -> list[Html]:
            results[name], section = make(*args, **options)
            return [section]

        made.extend(parts.attempt(name.capitalize(), one))

    add("filters", representations.filters_section, network, shapes, [], "each", picture)
    add("activations", representations.activations_section, network, images[0], spread, picture)
    add(
        "patches",
        representations.patches_section,
        network,
        images,
        spread[1:3],
        picture,
        channels=6,
        batch_size=len(images),
    )
    add(
        "embedding",
        representations.embedding_section,
        network,
        representations.features_layer(shapes),
        images,
        labels,
        class_names,
        tsne_key,
        picture,
        batch_size=len(images),
    )
    # occlusion has a section of its own; the deconvnet's backward pass would be one more to compile
    chosen = [name for name in methods.METHODS if name not in ("occlusion", "deconvnet", "rise")]
    maps, refused, doubts = explanations.explain(question, chosen, settings, progress)
    many = settings._replace(batch_size=100)  # as below, so that one compiled output serves all
    maps |= explanations.explain(question, ["rise"], many).maps
    add("maps", explanations.maps_section, question, maps, refused, settings, picture, doubts)
    side = max(min(images.shape[1:3]) // 4, 2)
    places = {"window": (side, side), "stride": (max(side // 4, 1),) * 2, "fill": 0.5}
    add(
        "occlusion",
        explanations.occlusion_section,
        question,
        places,
        "mean",
        "probability",
        picture,
        batch_size=100,
    )
    judged = [name for name in _JUDGED if name in maps]
    controls = explanations.explain(question, list(methods.CONTROLS), settings).maps
    judged_maps = {name: maps[name] for name in judged} | controls
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    drawn = jax.jit(lambda key: network.model.init(key, image))(weight_key)
    curves = explanations.insertion_deletion(question, judged_maps, batch_size=100)
    cascade = explanations.randomization(question, [*judged, *controls], drawn, settings)
    add("judgement", explanations.judgement_section, judged_maps, curves, cascade, {}, picture)
    return results, made
