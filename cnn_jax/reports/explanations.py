"""Sections about what an answer depends on: tables of methods, occlusion, and their judgement."""

import hashlib
import types
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int

from cnn_jax.errors import UsageError
from cnn_jax.reports import explanation_figures as figures
from cnn_jax.reports import html
from cnn_jax.reports.html import Html
from cnn_jax.reports.run_page import Picture
from cnn_jax.visualize import faithfulness, methods
from cnn_jax.visualize.batching import Progress, no_progress
from cnn_jax.visualize.grad_cam import last_spatial_layer
from cnn_jax.visualize.occlusion import occluded_outputs, occlusion
from cnn_jax.visualize.scores import class_scores

Maps = Mapping[str, Float[np.ndarray, "n h w"]]


class Question(NamedTuple):
    """What is asked: why does f give these images these classes?

    f: f(pixels, tap=...) -> logits, a Partial over the variables.
    names: a title for each image.
    """

    f: Partial
    pixels: Float[np.ndarray, "n h w c"]
    targets: Int[np.ndarray, " n"]
    names: Sequence[str]


def titles(
    names: Sequence[str],
    class_names: Sequence[str],
    logits: Float[np.ndarray, "n classes"],
    targets: Int[np.ndarray, " n"],
) -> list[str]:
    """Return a title an image: its name, and how probable its target is."""
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    return [
        f"{name}\n{class_names[target]}: {p[target]:.0%}"
        for name, target, p in zip(names, targets, probabilities, strict=True)
    ]


class Explained(NamedTuple):
    """What methods made of a question.

    maps: by the method's name.
    refused: why this network does not allow a method.
    doubts: what was warned of while a map was made, as of ReLUs that were not recognised.
    """

    maps: dict[str, Float[np.ndarray, "n h w"]]
    refused: dict[str, str]
    doubts: dict[str, str]


def explain(
    question: Question,
    names: Sequence[str],
    settings: methods.Settings,
    progress: Progress = no_progress,
) -> Explained:
    """Return the map of each method, and what is to be said of those that fail or fit badly."""
    maps, refused, doubts = {}, {}, {}
    for name in progress(list(names), len(names)):
        method = methods.named(name)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            try:
                found = method.explain(question.f, question.pixels, question.targets, settings)
            except UsageError as error:
                refused[name] = str(error)
                continue
        for each in told:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        if lines := [str(each.message) for each in told if each.category is UserWarning]:
            doubts[name] = "; ".join(lines)
        maps[name] = np.asarray(found)
    return Explained(maps, refused, doubts)


def maps_section(
    question: Question,
    maps: Maps,
    refused: Mapping[str, str],
    settings: methods.Settings,
    picture: Picture,
    doubts: Mapping[str, str] = types.MappingProxyType({}),
) -> tuple[dict[str, Any], Html]:
    """Return the numbers and the section of a table of maps, images down and methods across."""
    tables = methods.METHODS | methods.CONTROLS
    rows = [
        [
            figures.colour(image),
            *(figures.heat(m[i], tables[name].signed) for name, m in maps.items()),
        ]
        for i, image in enumerate(question.pixels)
    ]
    titles = ["image", *(tables[name].title for name in maps)]
    results: dict[str, Any] = {
        "targets": question.targets,
        "refused": refused,
        "doubts": dict(doubts),
        "maps_sha256": {n: hashlib.sha256(m.tobytes()).hexdigest() for n, m in maps.items()},
    }
    parts = [
        picture(
            figures.picture_table(rows, question.names, titles),
            "maps",
            "What the named class depends on: bright, or red for and blue against it. "
            "Each map on its own scale.",
        )
    ]
    if len(maps) > 1:
        table = faithfulness.agreement(maps)
        results["agreement"] = {
            a: dict(zip(maps, row, strict=True)) for a, row in zip(maps, table, strict=True)
        }
        caption = (
            "How alike two methods rank the pixels: Spearman's correlation, mean of the images."
        )
        parts.append(picture(figures.matrix(table, titles[1:]), "agreement", caption))
    if "integrated_gradients" in maps:
        results["integrated_gradients_error"], compared = completeness_error(question, maps)
        aim = "Integrated gradients should add up to the score less that of a black image."
        if compared:
            error = results["integrated_gradients_error"]
            aim += (
                f" With {settings.steps} steps they miss the difference by {error:.2%} of it "
                f"(median of {compared} images)."
            )
        left_out = len(question.pixels) - compared
        if left_out:
            score = "scores" if left_out == 1 else "score"
            aim += f" {left_out} of the images {score} as a black one does: a difference of 0."
        parts.append(aim)
    parts += [f"Left out: {reason}" for reason in refused.values()]
    parts += [f"{tables[name].title}: {doubt}." for name, doubt in doubts.items()]
    return results, html.section("What the answer depends on", *parts)


def completeness_error(question: Question, maps: Maps) -> tuple[float | None, int]:
    """Return by what share the integrated gradients miss the difference of the scores.

    It is the median of the images whose score is not a black one's, and None without any; their
    number is returned too.
    """
    images = jnp.asarray(question.pixels)
    score = jax.jit(lambda f, images: class_scores(f(images), question.targets))
    gain = score(question.f, images) - score(question.f, jnp.zeros_like(images))
    total = maps["integrated_gradients"].sum(axis=(1, 2))
    gain = np.asarray(gain)
    total, gain = total[gain != 0], gain[gain != 0]
    return float(np.median(np.abs(total - gain) / np.abs(gain))) if len(gain) else None, len(gain)


def occlusion_section(
    question: Question,
    places: Mapping[str, Any],
    aggregate: str,
    output: str,
    picture: Picture,
    *,
    batch_size: int,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], Html]:
    """Return the numbers and the section of occlusion: the output by place, and the map.

    Args:
      places: window, stride and fill, see cnn_jax.visualize.occlusion.
    """
    f, pixels, targets, names = question
    options = {**places, "output": output, "batch_size": batch_size, "progress": progress}
    outputs = np.asarray(occluded_outputs(f, pixels, targets, **options))
    maps = np.asarray(occlusion(f, pixels, targets, **options, aggregate=aggregate))
    rows = []
    for image, output_by_place, map_ in zip(pixels, outputs, maps, strict=True):
        row, column = np.unravel_index(output_by_place.argmin(), output_by_place.shape)
        top, left = row * places["stride"][0], column * places["stride"][1]
        worst = image.copy()
        height, width = places["window"]
        worst[top : top + height, left : left + width] = places["fill"]
        shown = [figures.colour(image), figures.colour(worst)]
        rows.append([*shown, figures.heat(output_by_place), figures.heat(map_, signed=True)])
    titles = ["image", "worst cover", f"{output} by place", f"loss ({aggregate})"]
    least = outputs.min(axis=(1, 2))
    results = {
        "targets": targets,
        "evaluations": int(outputs.size),
        "least_output": least,
        "outputs": outputs,
        "maps_sha256": hashlib.sha256(maps.tobytes()).hexdigest(),
    }
    section = html.section(
        "Occlusion",
        f"A window of {places['window'][0]} x {places['window'][1]} pixels slides over the image; "
        f"{outputs[0].size} places an image, in batches of one program.",
        picture(
            figures.picture_table(rows, names, titles),
            "occlusion",
            f"Where covering lowers the {output} of the class. Third column: the {output} by place "
            "of the window, dark where it is low; fourth: what each pixel's windows take away.",
        ),
    )
    return results, section


def insertion_deletion(
    question: Question,
    maps: Maps,
    *,
    batch_size: int,
    pixels: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, dict[str, np.ndarray]]:
    """Return of each method the mean "insertion" and "deletion" curve over the images."""
    curves: dict[str, dict[str, np.ndarray]] = {"insertion": {}, "deletion": {}}
    for name in progress(list(maps), len(maps)):
        arguments = (question.f, question.pixels, question.targets, maps[name])
        for kind in curves:
            run = getattr(faithfulness, kind)
            found = run(*arguments, pixels=pixels, batch_size=batch_size)
            curves[kind][name] = np.asarray(found).mean(axis=0)
    return curves


def randomization(
    question: Question,
    names: Sequence[str],
    drawn: Any,
    settings: methods.Settings,
    *,
    cascade: bool = True,
    progress: Progress = no_progress,
) -> dict[str, list[faithfulness.Likeness]]:
    """Return of each method how alike its maps stay while the network is randomised.

    Args:
      drawn: freshly initialised variables.
    """
    f, pixels, targets, _ = question
    (variables,) = f.args
    layers = faithfulness.layers_from_the_top(f, variables["params"], pixels[:1])
    if settings.layer is None and {"grad_cam", "guided_grad_cam"} & set(names):
        # found once: looking for it traces the network
        settings = settings._replace(layer=last_spatial_layer(f, pixels[:1]))
    rows = {}
    for name in progress(list(names), len(names)):
        method = methods.named(name)

        def maps(variables, method=method):
            changed = Partial(f.func, variables)
            return np.asarray(method.explain(changed, pixels, targets, settings))

        rows[name] = faithfulness.randomization_check(
            maps, variables, drawn, layers, cascade=cascade
        )
    return rows


def judgement_section(
    maps: Maps,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    cascade: Mapping[str, Sequence[faithfulness.Likeness]],
    alone: Mapping[str, Sequence[faithfulness.Likeness]],
    picture: Picture,
) -> tuple[dict[str, Any], Html]:
    """Return the numbers and the section that judges the methods, as a table over them."""
    tables = methods.METHODS | methods.CONTROLS
    titles = {name: tables[name].title for name in maps}
    results: dict[str, Any] = {"methods": {}, "cascade": {}, "alone": {}, "curves": curves}
    rows, blind = [], []
    for name in maps:
        areas = {
            kind: float(faithfulness.area(jnp.asarray(curves[kind][name])[None])[0])
            for kind in ("insertion", "deletion")
        }
        row: dict[str, Any] = dict(areas)
        if name in cascade:
            last = cascade[name][-1]
            row |= {"spearman": last.spearman, "ssim": last.ssim}
            row["insensitive"] = faithfulness.insensitive(cascade[name])
            results["cascade"][name] = [like._asdict() for like in cascade[name]]
            if row["insensitive"]:
                blind.append(titles[name])
        if name in alone:
            results["alone"][name] = [like._asdict() for like in alone[name]]
        results["methods"][name] = row
        verdict = {None: None, True: "insensitive", False: "changes"}[row.get("insensitive")]
        keys = ("insertion", "deletion", "spearman", "ssim")
        rows.append([titles[name], *(row.get(key) for key in keys), verdict])
    header = ["method", "insertion (high is good)", "deletion (low is good)"]
    header += ["Spearman, randomised", "SSIM, randomised", "when the network is randomised"]
    verdict = (
        f"Not to be believed as explanations of this network: {', '.join(blind)}. Their maps "
        "hardly change when all its weights are drawn anew."
        if blind
        else "Every method's map changes when the network's weights are drawn anew."
    )
    parts = [
        "Insertion and deletion: area under the class's probability while pixels appear in a "
        "blurred image, or turn black, the map's largest first. Randomised: likeness of the maps "
        "of the trained network and of one whose weights are all drawn anew.",
        html.table(header, rows),
        verdict,
        html.figures(
            *(
                picture(
                    figures.curves(
                        {titles[name]: values for name, values in curves[kind].items()},
                        kind,
                        "probability",
                        "share of pixels",
                    ),
                    kind,
                    f"{kind.capitalize()}, mean of the images.",
                )
                for kind in ("insertion", "deletion")
            )
        ),
    ]
    for kind, likenesses, what in (
        ("cascade", cascade, "from the top down to the one named"),
        ("alone", alone, "one at a time"),
    ):
        if likenesses:
            layers = [like.layer for like in next(iter(likenesses.values()))]
            by_name = {
                titles[n]: [like.spearman for like in rows] for n, rows in likenesses.items()
            }
            parts.append(
                picture(
                    figures.cascade(layers, by_name, "Spearman's correlation"),
                    f"randomised_{kind}",
                    f"Likeness of the maps to the trained network's, layers randomised {what}.",
                )
            )
    return results, html.section("Whether to believe the maps", *parts)
