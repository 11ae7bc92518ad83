"""A progress bar for training and for evaluation, on stderr."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import jax
from tqdm import tqdm

from cnn_jax.training.callbacks import Callbacks


@contextmanager
def progress_bar(batch_size: int) -> Iterator[Callbacks]:
    """Yield the callbacks that show steps, time left, images a second, loss and (if any) accuracy.

    Lines that are said go to stderr, above the bar. Only the first process shows one.
    """
    shown = jax.process_index() == 0
    bar: tqdm | None = None

    def say(line: str) -> None:
        if shown:
            tqdm.write(line, file=sys.stderr)

    def start(step: int, steps: int) -> None:
        nonlocal bar
        bar = tqdm(
            total=steps,
            initial=step,
            unit="step",
            disable=not shown,
            mininterval=0.5 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
        )

    def update(step: int, metrics: dict[str, float]) -> None:
        bar.update(step - bar.n)
        rate = bar.format_dict["rate"]
        facts = [f"loss {metrics['loss']:.3f}"]
        if "accuracy" in metrics:
            facts.append(f"accuracy {metrics['accuracy']:.1%}")
        if rate:
            facts.append(f"{rate * batch_size:,.0f} images/s")
        bar.set_postfix_str(", ".join(facts), refresh=False)

    try:
        yield Callbacks(say, start, update)
    finally:
        if bar is not None:
            bar.close()


def bar(unit: str) -> Callable[[Iterable, int], Iterable]:
    """Return f(items, total) -> the items, counted by a bar in this unit."""
    options = {"unit": unit, "disable": jax.process_index() != 0, "leave": False}
    return lambda items, total: tqdm(items, total=total, **options)
