"""What a recipe computes on: its strategy, its precision, and the other processes that train with this one."""

from collections.abc import Callable, Iterable

import keras
import tensorflow as tf
from absl import logging

from sat_tf import console, half, hparams, layers, progress, recomputed, replicas
from sat_tf.distribute import cluster, precision, strategies
from sat_tf.distribute.channel import Channel


def start(strategy: str = "auto", *, channel: Channel | None = None, tpu: str | None = None) -> None:
    """Prepare a process that runs experiments: its devices, which must come first, and its log lines.

    Args:
      strategy: of `sat_tf.distribute.cluster.STRATEGIES`, as the recipe names it.
      channel: to the processes that train together with this one; the first of them alone tells what happens.
      tpu: "local" or a name, where one is asked for.
    """
    strategies.prepare(strategy, channel=channel, tpu=tpu)
    console.start()
    strategies.tell_unseen()
    progress.SILENT = not strategies.team().is_chief
    if progress.SILENT:
        logging.set_verbosity(logging.ERROR)


def make_deterministic(seed: int) -> None:
    """Fix every source of randomness: the same seed on the same machine gives the same bits."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def make_strategy(
    recipe: hparams.Recipe, batches: Iterable[str] = ("batch_size", "eval_batch_size")
) -> tf.distribute.Strategy:
    """Return the recipe's distribution strategy; the `batches` that will be used must split over its replicas."""
    strategy = strategies.strategy_of(recipe.strategy)
    if "batch_size" in batches:
        cluster.check_batch(recipe.batch_size, strategy.num_replicas_in_sync, "replicas")
        parts = strategy.num_replicas_in_sync * recipe.accumulate_steps
        cluster.check_batch(recipe.batch_size, parts, "parts of accumulate_steps on all replicas")
    if "eval_batch_size" in batches:
        cluster.check_batch(recipe.eval_batch_size, replicas.here(strategy), "replicas", "eval_batch_size")
    return strategy


def settled(recipe: hparams.Recipe, known: Callable[[], hparams.Recipe | None]) -> hparams.Recipe:
    """Return a recipe that says what `attack_precision=auto` means: what the run has, else what is faster here.

    Args:
      recipe: that was asked for.
      known: returns the recipe of the run that goes on, None where one begins; the chief's counts.
    """

    def settle():
        if before := known():
            kept = before.attack_precision or "in the precision of updates"
            logging.info("attack_precision=auto: the run goes on as it began, %s.", kept)
            return before.attack_precision
        found, share = precision.faster_precision()
        what = "attack_precision=auto: in bfloat16 a convolution's gradient takes %.2f of float32's time here: %s."
        logging.info(what, share, found)
        return found

    if recipe.attack_precision != "auto":
        return recipe
    return recipe.replace(attack_precision=strategies.team().from_chief(settle))


def evaluating(recipe: hparams.Recipe, changes: dict) -> tf.distribute.Strategy:
    """Return the strategy of an evaluation: the one that is asked for, and what there is for a run of other machines.

    Args:
      recipe: of the checkpoint, with `changes`.
      changes: what was asked for.
    """
    if "strategy" not in changes and recipe.strategy in ("multiworker", "tpu"):
        recipe = recipe.replace(strategy="auto")
    return make_strategy(recipe, ["eval_batch_size"])


def compiles(recipe: hparams.Recipe, strategy: tf.distribute.Strategy) -> bool:
    """Say whether XLA compiles the training step; a TPU's strategy does so itself."""
    if recipe.jit_compile != "on" or isinstance(strategy, tf.distribute.TPUStrategy):
        return False
    if (count := strategy.num_replicas_in_sync) > 1:
        raise ValueError(
            "Expected one replica with jit_compile=on: XLA does not compile updates that replicas make together. "
            f"Received: {count} replicas. Leave --jit_compile out, or name --strategy=one."
        )
    return True


def prepared(recipe: hparams.Recipe, model: keras.Model) -> keras.Model:
    """Return a model that computes in the recipe's precision, and normalises over replicas where that is asked for."""
    if recipe.precision != "float32":  # a user's own network keeps what it was built with
        half.compute_in(model, recipe.precision)
    if recipe.synchronized_norm:
        layers.synchronize(model)
    if recipe.remat:
        recomputed.check(model)
    return model
