"""Prints how small DeepFool's and DDN's perturbations are, ours beside foolbox's, as Markdown.

python -m docs.minimal_norms

Of the sample photographs and a random crop of each, with EfficientNet-Lite 0 of the same weights in
JAX and in PyTorch. Both sides take foolbox's settings; each adversarial image is judged by both
networks. Runs where torch, timm and foolbox are installed beside this project; under five minutes
on two cores.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import foolbox
import jax
import numpy as np
import torch
from PIL import Image

import cnn_jax
from cnn_jax import trained
from cnn_jax.attacks import ddn, deepfool
from cnn_jax.data import photographs, preprocessing, sample_photographs
from tests.references import torch_lite

ATTACKS = {  # foolbox's own defaults, which are ours too
    "DeepFool": (
        partial(deepfool.deepfool, steps=50, overshoot=0.02, candidates=10),
        foolbox.attacks.L2DeepFoolAttack(steps=50, overshoot=0.02, candidates=10),
    ),
    "DDN": (
        partial(ddn.ddn, steps=100, radius=1.0, gamma=0.05),
        foolbox.attacks.DDNAttack(steps=100, init_epsilon=1.0, gamma=0.05),
    ),
}


def images(options: preprocessing.Preprocessing) -> tuple[list[str], np.ndarray]:
    """Return names and pixels: each photograph as the network sees it, then a crop of each."""
    opened = [Image.open(each.path).convert("RGB") for each in sample_photographs.PHOTOGRAPHS]
    whole = [preprocessing.to_array(preprocessing.preprocess(each, options)) for each in opened]
    crops, _ = photographs.random_crops(opened, len(opened), options.image_size, seed=1)
    names = [each.path.stem for each in sample_photographs.PHOTOGRAPHS]
    pixels = np.concatenate([np.stack(whole).astype(np.float32) / 255, crops])
    return names + [f"{name}, crop" for name in names], pixels


def timed(function: Callable[[], np.ndarray], compiling: list[float]) -> tuple[np.ndarray, str]:
    """Return what it gives, and its seconds in words."""
    compiling.clear()
    start = time.perf_counter()
    found = function()
    seconds, compiled = time.perf_counter() - start, sum(compiling)
    return found, f"{seconds - compiled:.0f} s" + (f" and {compiled:.0f} s" if compiled else "")


def main() -> None:
    cnn_jax.configure()
    network, torchs = trained.embedded(), torch_lite.load()
    names, pixels = images(network.preprocessing)
    f = trained.classifier(network)

    def of_torch(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torchs(torch_lite.first(images)).numpy()

    logits = {"ours": jax.jit(f), "foolbox": of_torch}
    answers = {side: np.asarray(each(pixels)) for side, each in logits.items()}
    difference = np.abs(answers["ours"] - answers["foolbox"]).max()
    assert difference < 1e-4, f"the networks differ by {difference}"
    labels = answers["ours"].argmax(axis=1)
    print(f"{len(pixels)} images; the logits differ by {difference:.1e} at most\n")

    compiling: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: (
            compiling.append(seconds) if "backend_compile" in event else None
        )
    )
    wrapped = foolbox.PyTorchModel(torchs, bounds=(0, 1), device="cpu")
    first, true = torch_lite.first(pixels), torch.from_numpy(labels)
    sizes, rows = {}, []
    for name, (ours, theirs) in ATTACKS.items():
        runs = {
            "ours": partial(ours, logits_of=f, images=pixels, labels=labels),
            "foolbox": lambda theirs=theirs: torch_lite.last(theirs.run(wrapped, first, true)),
        }
        for side, run in runs.items():
            found, seconds = timed(run, compiling)
            size = np.sqrt(np.square(found - pixels, dtype=np.float64).sum(axis=(1, 2, 3)))
            judged = [
                (np.asarray(g(found)).argmax(axis=1) != labels).sum() for g in logits.values()
            ]
            share = size / np.sqrt(np.square(pixels, dtype=np.float64).sum(axis=(1, 2, 3)))
            sizes[f"{name}, {side}"] = size
            rows.append(
                f"| {name}, {side} | {np.median(size):.4f} | {np.median(share):.5f} "
                f"| {judged[0]} | {judged[1]} | {seconds} |"
            )
            print(rows[-1], file=sys.stderr)
    print("| attack | median norm | over the image's norm | fooled, JAX | fooled, torch | time |")
    print("|---|---|---|---|---|---|", *rows, sep="\n")
    print("\n| image |", " | ".join(sizes), "|")
    print("|---" * (1 + len(sizes)) + "|")
    for name, row in zip(names, np.transpose(list(sizes.values())), strict=True):
        print(f"| {name} |", " | ".join(f"{size:.4f}" for size in row), "|")


if __name__ == "__main__":
    main()
