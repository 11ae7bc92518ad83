"""Training from configuration to last checkpoint, resumable at any step."""

import collections
import dataclasses
import itertools
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from jaxtyping import Float, Int, PyTree

from cnn_jax import errors, trackers
from cnn_jax.data import classes, datasets
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.models import Model
from cnn_jax.models.registry import check_task
from cnn_jax.runtime import agreement, parallel, peers
from cnn_jax.training import checkpoint, class_weights, extension, goodput, memory
from cnn_jax.training import config as configs
from cnn_jax.training.callbacks import Callbacks
from cnn_jax.training.checkpoint import checkpoint_directory
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.initial import as_published, initial_variables
from cnn_jax.training.log import open_log, read_log
from cnn_jax.training.objective import normalize_images
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.training.paths import freezing
from cnn_jax.training.state import TrainState, create_state, evaluated_variables, raw_variables
from cnn_jax.training.step import create_train_step
from cnn_jax.training.task import CLASSIFICATION, Task, check_options
from cnn_jax.training.whitening import EXAMPLES, whitened
from cnn_jax.workdir import open_workdir

# How many steps the host may run ahead of the metrics it looks at.
LOOKAHEAD = 2
# What the names of a step's own metrics begin with in a checkpoint.
TRAINED = "train_"
# From how many examples on counting their classes takes long enough to be told.
MANY = 10_000


class Diverged(Exception):
    """A metric stopped being a number; names the step, the metric and the last good checkpoint."""


class Result(NamedTuple):
    """What a run came to.

    step: of the final state; smaller than config.steps when the run was told to stop.
    loss: mean training loss (nats) over the last logged steps.
    images_per_second: of the steps made by this call, without compilation, evaluation and saving;
      the last logged one where this call made too few steps.
    parameters_sha256: checkpoint.parameters_sha256 of params and batch_stats.
    evaluation: what the task's evaluator gave last, or None.
    best: of a run that keeps its best checkpoint, {"metric", "step", "value"}.
    raw_evaluation: of a run that averages its weights, what those of the last update come to: the
      task's logged metrics.
    skipped: how many images of each split could not be decoded and were passed over, by this call
      and, of several processes, the first; None without --bad_images=skip.
    goodput: what the seconds of this run went to, see goodput.account.
    memory: of a run with --memory_limit, see memory.chosen.
    """

    step: int
    loss: float | None
    images_per_second: float | None
    parameters_sha256: str
    evaluation: dict[str, Any] | None
    best: dict[str, Any] | None = None
    raw_evaluation: dict[str, Any] | None = None
    goodput: dict[str, Any] | None = None
    skipped: dict[str, int] | None = None
    memory: dict[str, Any] | None = None


class EvaluationFailed(Exception):
    """An evaluation raised, which is the cause; the steps before it are saved.

    result: what the training came to, without this evaluation.
    """

    result: Result


def saved_config(config: TrainConfig, train_set: datasets.Dataset) -> dict[str, Any]:
    """Return what a checkpoint keeps: the options, and what evaluation needs of the data set."""
    return dataclasses.asdict(config) | {
        "mean": train_set.mean,
        "std": train_set.std,
        "class_names": train_set.class_names,
    }


def load_datasets(
    config: TrainConfig,
    task: Task = CLASSIFICATION,
    class_names: Sequence[str] = (),
    owner: str = "the run",
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Return the training and the evaluation split that the configuration names.

    Args:
      class_names: those of a network that was trained on this data, in whose numbers the labels
        are then; by default the training split's own.
      owner: whose names these are, for messages.

    Raises:
      UsageError: unknown names or no such data, or splits whose classes are not the same ones.
    """
    name, data_dir = config.dataset, config.data_dir
    train, held_out = config.train_split, config.eval_split
    if train is None or held_out is None:
        usual = task.splits(name, data_dir)
        train, held_out = train or usual[0], held_out or usual[1]
    options = {} if config.mask_values is None else {"mask_values": config.mask_values}

    def load(split: str) -> datasets.Dataset:
        dataset = task.load(name, split, data_dir, **options)
        if config.bad_images == "skip":
            dataset = dataset._replace(skipped=set())
        if not len(dataset.source):
            raise UsageError(f"{name} ({split}) has no examples; choose another split")
        return datasets.read_as(dataset, config.channels, config.mean, config.std)

    first = task.first_class
    train_set = classes.matched(load(train), class_names, owner, whole=True, first=first)
    names, owner = train_set.class_names, f"its split {train}"
    return train_set, classes.matched(load(held_out), names, owner, first=first)


def _check_sizes(config: TrainConfig, model: Model, variables: PyTree, channels: int) -> None:
    """Raise UsageError where the network of the run's end cannot take its smaller images."""
    for size, _ in configs.image_sizes(config)[:-1]:
        images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
        try:
            jax.eval_shape(model.apply, variables, images)
        except ScopeParamShapeError as error:
            raise UsageError(
                f"the weights of {model.name} depend on the images' size; leave out "
                "--start_image_size"
            ) from error
        except (UsageError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UsageError(
                f"{model.name} does not take images of {size} pixels, between "
                f"--start_image_size={config.start_image_size} and {config.image_size}: {error}"
            ) from error


def _check_norms(config: TrainConfig, model: Model, variables: PyTree, channels: int) -> None:
    """Raise UsageError where a batch norm would be given one value a channel to train on."""
    if config.batch_size // (config.accumulate or 1) > 1:
        return
    size, _ = configs.image_sizes(config)[0]  # the smallest
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    rngs = {"dropout": jax.random.key(0)}
    train = partial(model.apply, train=True, rngs=rngs, stays=freezing(config.freeze))
    jax.eval_shape(train, variables, images)


def _batches(
    config: TrainConfig,
    task: Task,
    train_set: datasets.Dataset,
    start: int,
    labels: Int[np.ndarray, " n"] | None,
) -> Iterator[Mapping[str, np.ndarray]]:
    """The run's batches from a step on, whose images grow where the configuration says so."""
    for size, end in configs.image_sizes(config):
        if start < end:
            batches = task.train_batches(
                train_set,
                config,
                image_size=size,
                start_step=start,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                balanced_by=labels,
            )
            yield from itertools.islice(batches, end - start)
            start = end


def _batch_shapes(
    config: TrainConfig,
    task: Task,
    train_set: datasets.Dataset,
    labels: Int[np.ndarray, " n"] | None,
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of all processes, at the size of the run's end."""
    hosts = jax.process_count()
    batches = task.train_batches(
        train_set,
        dataclasses.replace(config, num_threads=0),  # which read no further than asked
        image_size=config.image_size,
        start_step=0,
        process_index=jax.process_index(),
        process_count=hosts,
        balanced_by=labels,
    )
    return {
        name: jax.ShapeDtypeStruct((hosts * len(x), *x.shape[1:]), x.dtype)
        for name, x in next(batches).items()
    }


def _class_weights(
    config: TrainConfig,
    task: Task,
    train_set: datasets.Dataset,
    tell: Callable[[str], None],
    say: Callable[[str], None],
) -> Float[np.ndarray, " classes"] | None:
    """The weights of the network's outputs in the loss; None where all weigh the same.

    Args:
      tell: is told at once of what takes long.  say: is given the lines on what came out.
    """
    if config.class_weights is None:
        return None
    if config.class_weights == class_weights.BALANCED:
        if len(train_set.source) >= MANY:
            tell(f"counting the classes of {len(train_set.source)} examples")
        counts = task.class_counts(train_set)
        weights = class_weights.balanced(counts)
        absent = [train_set.class_names[i] for i in np.flatnonzero(counts == 0)]
        if absent:
            say(f"without training examples, so of weight 1: {', '.join(absent)}")
    else:
        weights = class_weights.parse(config.class_weights, train_set.class_names)
    most, least = weights.argmax(), weights.argmin()
    say(
        f"class weights: {weights[least]:.3g} ({train_set.class_names[least]}) to "
        f"{weights[most]:.3g} ({train_set.class_names[most]})"
    )
    beyond = np.ones(config.num_classes - len(weights))  # outputs that the data set has no class of
    return np.concatenate([weights, beyond]).astype(np.float32)


def _keeping_best(config: TrainConfig, task: Task, before: Mapping[str, Any]) -> TrainConfig:
    """The configuration with the metric whose best checkpoint is kept: the run's, if not given.

    Args:
      before: the configuration in the run's newest checkpoint.
    """
    metric = before.get("keep_best") if config.keep_best is None else config.keep_best
    if metric not in (None, "none", *task.logged):
        raise errors.unknown(f"metric of {task.name}", metric, task.logged)
    return dataclasses.replace(config, keep_best=metric)


def _first_images(
    config: TrainConfig, task: Task, train_set: datasets.Dataset
) -> Float[np.ndarray, "n h w c"]:
    """The first training images, not augmented, normalised: those that --whiten is to whiten."""
    count = min(len(train_set.source), EXAMPLES)
    batches = task.evaluation_batches(
        train_set,
        batch_size=count,
        preprocessing=Preprocessing(config.image_size, config.image_size, config.interpolation),
        num_threads=0,  # which read no further than asked
    )
    images = next(iter(batches))["image"]
    return np.asarray(normalize_images(images, train_set.mean, train_set.std))


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM came; the old handler returns at the end."""
    told = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    except ValueError:  # only the main thread may listen
        yield lambda: False
        return
    try:
        yield lambda: bool(told)
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_finite(step: int, metrics: dict[str, float], workdir: Path) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            good = checkpoint.steps(checkpoint_directory(workdir))
            where = f"step {good[-1]}" if good else "none was saved yet"
            raise Diverged(
                f"{name} is {value} at step {step}; last good checkpoint: {where} "
                f"(in {checkpoint_directory(workdir)}); lower --learning_rate or set --clip_norm"
            )


def train(
    config: TrainConfig,
    workdir: str | os.PathLike,
    progress: Callbacks = Callbacks(),  # noqa: B008
    devices: parallel.Devices | None = None,
    task: Task = CLASSIFICATION,
) -> Result:
    """Train as configured and leave checkpoints, metrics.jsonl and TensorBoard events in workdir.

    The same call after a kill or SIGTERM goes on from the newest intact checkpoint and ends with
    the bits that an uninterrupted run on the same machine ends with: the step fixes the position in
    the input, the augmentation and the dropout. With more steps it goes on, as a run of so many;
    with fewer, or any other change of what the outcome depends on, it is refused.

    Args:
      config: an unresolved or resolved configuration.
      workdir: a folder of this run alone, made if it is not there.
      devices: by default all of all hosts.
      task: what the network is trained for.

    Raises:
      UsageError: what does not fit together, before anything is written.
      Diverged: a metric is NaN or infinite.
      EvaluationFailed: an evaluation raised, at the end or before it.
    """
    began = time.perf_counter()
    workdir = Path(workdir).absolute()
    trackers.check(config.tracker)
    check_task(config.model, task.name)
    check_options(config, task)
    config = as_published(config)
    before = checkpoint.newest_config(checkpoint_directory(workdir)) or {}
    known, owner = before.get("class_names", ()), f"the run in {workdir}"
    train_set, eval_set = load_datasets(config, task, known, owner)
    if jax.process_count() > 1:
        both = {"training": train_set, "evaluation": eval_set}
        agreement.check({f"{x} data": datasets.fingerprint(both[x]) for x in both})
    given = configs.identity(config)
    config = _keeping_best(configs.resolve(config, train_set), task, before)
    config = task.resolve(config, train_set, eval_set)
    mode = configs.BETTER.get(config.keep_best)  # None where no best one is kept
    config = memory.as_before(config, before)
    shares = len(devices or jax.devices())
    parallel.check_batch_size(config.batch_size, shares, config.accumulate or 1)
    channels = train_set.image_shape[-1]
    model = configs.build_model(config)
    to_say: list[str] = []  # once it is certain that the run begins
    variables = initial_variables(
        dataclasses.replace(config, init_from=None) if before else config,  # goes on from its own
        model,
        channels,
        task.first_key and task.first_key(config.seed),
        class_names=train_set.class_names,
        say=to_say.append,
    )
    _check_sizes(config, model, variables, channels)
    _check_norms(config, model, variables, channels)
    if config.whiten is not None:
        variables = whitened(variables, config.whiten, _first_images(config, task, train_set))
    labels = datasets.labels(train_set) if config.sampler == "balanced" else None
    optimizer = create_optimizer(config, variables["params"])
    over = parallel.choose(config.parallel, config.shard_state, devices)
    weights_of_classes = _class_weights(config, task, train_set, progress.say, to_say.append)

    def step_of(config: TrainConfig) -> Callable:
        return create_train_step(
            model,
            optimizer,
            config,
            train_set.mean,
            train_set.std,
            over.axis_name,
            task,
            weights_of_classes,
            over.gather,
        )

    make_state = partial(create_state, model, optimizer, ema=config.ema_decay is not None)
    account = None
    if config.memory_limit is not None:
        progress.say(f"compiling, for a step within {config.memory_limit:g} GiB")
        shapes = (
            jax.eval_shape(make_state, variables),
            _batch_shapes(config, task, train_set, labels),
        )
        account_of = partial(memory.account, step_of, *shapes, devices or jax.devices())
        with_norms = memory.takes_batch_statistics(config, variables)
        config, account = memory.fitted(config, account_of, shares, with_norms)
        to_say.append(memory.line(config, account, with_norms))
    thawed = over.compile(step_of(memory.thawed(config)))
    kept = over.compile(step_of(config)) if config.freeze else thawed
    evaluate = task.evaluator(model, eval_set, config, devices)
    if over.create is None:
        state = jax.tree.map(np.asarray, make_state(variables))
    else:
        state = over.create(make_state, variables)
    now = configs.identity(config)
    # an option that an older version had not, and that nobody gives, was what the data decide
    derived = {name: value for name, value in now.items() if given[name] is None}
    defaults = configs.identity(TrainConfig()) | derived
    open_workdir(workdir, now, growing="steps", defaults=defaults)
    for line in to_say:
        progress.say(line)
    # meets the others before the first collective: the data of one may take longer than another's
    agreement.check_shared(workdir)
    manager = checkpoint.open_checkpoints(
        checkpoint_directory(workdir),
        keep=config.keep,
        best_metric=config.keep_best if mode else None,
        best_mode=mode or "max",
        warn=progress.say,
    )
    clock = goodput.Clock(workdir, jax.process_index() == 0, began)
    try:
        clock.begin("restoring", 0)
        restored = checkpoint.restore(manager, state, warn=progress.say)
        if restored is not None:
            state, start = restored
            progress.say(f"resuming from step {start}")
            if line := extension.consequence(config, before, start):
                progress.say(line)
        else:
            start = 0
        agreement.check({"the update it goes on from": start}, f"see that all read {workdir} alike")
        state = over.put_state(state)
        del variables
        clock.goes_on_from(start)
        clock.begin("starting", start)
        batches = _batches(config, task, train_set, start, labels)
        result = _run(
            config,
            task,
            workdir,
            progress,
            batches,
            over,
            lambda step: kept if configs.before_thaw(config, step) else thawed,
            evaluate,
            partial(checkpoint.save, manager, config=saved_config(config, train_set)),
            state,
            start,
            clock,
        )
    finally:
        checkpoint.finish(manager)
        clock.begin("ended", clock.step)
        clock.keep()
    result = result._replace(goodput=goodput.account(clock.keep()))
    if account is not None:
        result = result._replace(memory=memory.chosen(config, account))
    if config.bad_images == "skip":
        both = {"training": train_set.skipped, "evaluation": eval_set.skipped}
        result = result._replace(skipped={name: len(bad) for name, bad in both.items()})
        for bad in sorted(train_set.skipped | eval_set.skipped):
            progress.say(f"skipped {bad}")
    found = mode and checkpoint.best_step(checkpoint_directory(workdir), config.keep_best, mode)
    if not found:
        return result
    step, value = found
    progress.say(f"best {config.keep_best} of the checkpoints: {value:.4f} at step {step}")
    return result._replace(best={"metric": config.keep_best, "step": step, "value": value})


def _run(
    config: TrainConfig,
    task: Task,
    workdir: Path,
    progress: Callbacks,
    batches: Iterator[Mapping[str, np.ndarray]],
    over: parallel.Parallel,
    step_at: Callable[[int], Callable],
    evaluate: Callable,
    save_checkpoint: Callable[..., Any],
    state: PyTree,
    start: int,
    clock: goodput.Clock,
) -> Result:
    is_first = jax.process_index() == 0
    track = trackers.open_tracker(config, workdir, progress.say)
    log = open_log(workdir, start, track) if is_first else None
    pending: collections.deque = collections.deque()
    since_log: list[dict[str, float]] = []
    latest: dict[str, float] = {}  # the metrics of the last step that was looked at
    timer = _Timer()
    metrics_of_eval, metrics_of_raw, evaluated, step, saved = None, None, None, start, start
    failure: EvaluationFailed | None = None
    keeps_best = configs.BETTER.get(config.keep_best) is not None
    compiled = set()  # programs: a step, and the shape of its images

    def begin(phase: str) -> None:
        clock.begin(phase, step)
        peers.at(phase, step)

    def settle(ahead: int) -> None:
        """Look at the metrics of all but the newest `ahead` steps."""
        while len(pending) > ahead:
            at, metrics = pending.popleft()
            metrics = {name: float(value) for name, value in metrics.items()}
            _check_finite(at, metrics, workdir)
            latest.update(metrics)
            since_log.append(metrics)
            progress.update(at, metrics)
            if at % config.log_every == 0 or at == config.steps:
                means = {
                    name: float(np.mean([line[name] for line in since_log])) for name in metrics
                }
                means["learning_rate"] = metrics["learning_rate"]
                rate = timer.rate(config.batch_size)
                if rate is not None:
                    means["images_per_second"] = rate
                if log is not None:
                    log.write(at, means)
                since_log.clear()

    def save() -> None:
        """Save this step, unless that is done."""
        nonlocal saved
        settle(0)
        if saved == step:
            return
        begin("saving")
        state_to_save: TrainState = over.get_state(state)
        metrics = {f"{TRAINED}{name}": value for name, value in latest.items()}
        if evaluated == step:
            metrics |= _logged(task, metrics_of_eval)
        try:
            save_checkpoint(step, state_to_save, metrics=metrics)
        except FloatingPointError as error:
            good = checkpoint.steps(checkpoint_directory(workdir))
            where = f"step {good[-1]}" if good else "none was saved yet"
            raise Diverged(f"{error}; last good checkpoint: {where}") from error
        saved = step

    def measured(variables: PyTree) -> dict[str, Any]:
        begin("evaluation")
        try:
            return evaluate(over.whole(variables))
        except Exception as error:
            kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
            reason = " ".join(f"{kind}{error}".split())
            raise EvaluationFailed(f"the evaluation of step {step} failed: {reason}") from error

    def evaluate_once() -> None:
        """Evaluate and log this step, unless that is done."""
        nonlocal metrics_of_eval, evaluated
        if evaluated == step:
            return
        settle(0)
        metrics_of_eval = measured(evaluated_variables(over.get_state(state)))
        evaluated = step
        _log_evaluation(log, step, metrics_of_eval, progress, task)
        timer.pause()

    progress.start(start, config.steps)
    with _told_to_stop() as told_to_stop:
        try:
            while step < config.steps:
                begin("input")
                batch = over.put_batch(next(batches))
                step_function = step_at(step)
                program = (step_function, batch["image"].shape)
                begin("step" if program in compiled else "compilation")
                compiled.add(program)
                state, metrics = step_function(state, batch)
                step += 1
                pending.append((step, metrics))
                settle(LOOKAHEAD)
                timer.tick()
                stopping = told_to_stop() or progress.stop()
                if jax.process_count() > 1:  # all hosts stop at one step, or none does
                    stopping = _any_process(stopping, step)
                due = step % config.checkpoint_every == 0 or step == config.steps
                if stopping or due:
                    if keeps_best and due:  # not where the run just happens to be stopped
                        evaluate_once()
                    save()
                    timer.pause()
                if stopping and step < config.steps:
                    progress.say(f"told to stop: saved step {step}; the same command goes on")
                    break
                if config.eval_every and step % config.eval_every == 0 and step < config.steps:
                    evaluate_once()
            settle(0)
            if step == config.steps:
                evaluate_once()
                if over.get_state(state).ema:
                    raw = measured(raw_variables(over.get_state(state)))
                    if raw:
                        progress.say(f"its weights without averaging: {task.headline(raw)}")
                    metrics_of_raw = {name: raw.get(name) for name in task.logged if raw}
        except EvaluationFailed as error:
            save()
            failure = error
        finally:
            if log is not None:
                log.close()
    begin("saving")  # what is written in the background is waited for
    final = over.get_state(state)
    logged = [line for line in read_log(workdir) if "loss" in line]
    last = logged[-1] if logged else {}
    result = Result(
        step=step,
        loss=last.get("loss"),
        images_per_second=timer.rate(config.batch_size) or last.get("images_per_second"),
        parameters_sha256=checkpoint.parameters_sha256(
            {"params": final.params, "batch_stats": final.batch_stats}
        ),
        evaluation=metrics_of_eval,
        raw_evaluation=metrics_of_raw,
    )
    if failure is not None:
        failure.result = result
        raise failure
    return result


def _logged(task: Task, metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation that are logged, without those that nothing decides."""
    found = {name: metrics.get(name) for name in task.logged}
    return {name: value for name, value in found.items() if value is not None}


def last_metrics(workdir: str | os.PathLike) -> dict[str, float]:
    """Return the metrics of a run's last saved step; of an older version's run, those it logged."""
    saved = checkpoint.newest_metrics(checkpoint_directory(workdir))
    found = {name: value for name, value in saved.items() if name.startswith(TRAINED)}
    if found:
        return {name.removeprefix(TRAINED): value for name, value in found.items()}
    lines = [line for line in read_log(workdir) if "loss" in line]
    others = ("step", "images_per_second")
    return {name: x for name, x in lines[-1].items() if name not in others} if lines else {}


def _log_evaluation(
    log: Any, step: int, metrics: dict[str, Any], progress: Callbacks, task: Task
) -> None:
    if not metrics:  # nothing was measured
        return
    if log is not None:
        log.write(step, {f"eval_{name}": x for name, x in _logged(task, metrics).items()})
    progress.say(f"step {step}: {task.headline(metrics)}")


def _any_process(flag: bool, step: int) -> bool:
    """Whether any host was told to stop; asked every tenth step, as it costs a round trip."""
    if step % 10:
        return False
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


class _Timer:
    """Seconds spent in steps, without the first ones (compilation) and without pauses."""

    WARM_UP = 3

    def __init__(self):
        self._skip, self._last, self._seconds, self._steps = self.WARM_UP, None, 0.0, 0

    def tick(self) -> None:
        now = time.perf_counter()
        if self._skip > 0:
            self._skip -= 1
        elif self._last is not None:
            self._seconds += now - self._last
            self._steps += 1
        self._last = now

    def pause(self) -> None:
        """Do not count what lies between the last tick and the next."""
        self._last = None

    def rate(self, batch_size: int) -> float | None:
        return self._steps * batch_size / self._seconds if self._steps else None
