"""Any Keras model, trained adversarially by `fit`."""

import contextlib
import inspect
import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from sat_tf import activations, inputs, losses, methods, onednn, passes, train
from sat_tf.evaluate.predictor import predictor
from sat_tf.fit import batches, pace, portable, rows
from sat_tf.fit.compiled import CompiledLoss
from sat_tf.fit.view import LOGITS, View, kind_of

ROBUST = "robust_accuracy"


class AdversarialModel(keras.Model):
    """A Keras model that `fit` trains on adversarial images; the model itself is what is trained and saved.

    Everything of Keras works as ever: data of every kind, metrics, callbacks, mixed precision, strategies. Metrics of
    training are those of the images that the method trains on, adversarial ones; `val_loss` and `val_accuracy` those
    of clean ones. Files hold the model alone: `ModelCheckpoint("best.keras")`, `save`, `export` and `save_weights`
    write it as if it had been trained by itself.

    An attack sees the model in inference mode: dropout and augmentation do nothing, statistics stay as they are. Its
    random start is a function of `seed` and the optimizer's iteration, in validation of `seed` and the image.

    Args:
      model: one input, images `[batch, h, w, c]`; one output `[batch, classes]`, logits or probabilities: the compiled
        loss says which.
      method: key of `methods.METHODS`, or a method.
      attack: of `attacks.ATTACKS`, with its steps, "pgd-1"; or `(loss_fn, images, seed) -> images` in [0, 1]. None for
        the method's own: "pgd-1" of sat, "pgd-10" of trades.
      epsilon: radius of the L-infinity ball as a fraction of `value_range`: 8/255 for images in 0..1 and in 0..255.
      step_size: of the attack, the same unit; None for that of the method's own attack, else for
        `attacks.default_step_size`.
      value_range: lowest and highest value of the images that the model wants.
      validation_attack: as `attack`, of `val_robust_accuracy`; None measures none.
      validation_share: of the validation images, the share that is attacked: the first of each batch, rounded up.
      random_start, clean_start: of the attack, as `attacks.for_training` takes them.
      attack_backward, update_backward: activations whose gradients stand in, as `passes.Backward` takes them, for the
        activation layers of this package; `smooth(model, backward=...)` does so for those of any model.
      attack_precision: of the training attack, "mixed_bfloat16" or "mixed_float16"; None for the model's own.
      seed: an int.
      settings: of the method's row, by name. A method with a schedule takes its length from `fit`: epochs and batches.

    Raises:
      ValueError: the model is none of these, or a word or number can't be meant.
    """

    def __init__(
        self,
        model: keras.Model,
        method: Any = "sat",
        attack: Any = None,
        epsilon: float = 8 / 255,
        *,
        step_size: float | None = None,
        value_range: tuple[float, float] = (0, 1),
        validation_attack: Any = "pgd-10",
        validation_share: float = 1.0,
        random_start: bool = True,
        clean_start: float = 0.0,
        attack_backward: str | None = None,
        update_backward: str | None = None,
        attack_precision: str | None = None,
        seed: int = 0,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        _check_model(model)
        value_range = inputs.span(value_range)
        epsilon, step_size = inputs.check_ball("linf", (1, 1, 3), epsilon, step_size)
        if isinstance(validation_share, bool) or not 0 < float(validation_share) <= 1:
            raise ValueError(f"Expected a validation_share in (0, 1]. Received: validation_share={validation_share!r}.")
        attack, step_size = rows.own_attack(method, attack, epsilon, step_size)
        ball = {"epsilon": epsilon, "step_size": step_size}
        attack = rows.attack_of(attack, **ball, random_start=random_start, clean_start=clean_start)
        backward = passes.Backward(attack=attack_backward, update=update_backward, attack_precision=attack_precision)
        if (attack_backward or update_backward) and not _has_ours(model):
            raise ValueError(
                "Expected a model with activation layers of this package for another gradient. Received: "
                f"{model.name}, which has none. Make it by sat_tf.smooth(model, backward='parametric_softplus:10')."
            )
        make_method = rows.maker(method, attack, backward, settings)
        with model.distribute_strategy.scope():
            super().__init__(name=name or f"adversarial_{model.name}", dtype=model.dtype_policy, autocast=False)
            self.robust_tracker = keras.metrics.Mean(name=ROBUST)
        self.model, self.value_range, self.seed = model, value_range, inputs.whole("seed", seed, least=0)
        self.validation_share = float(validation_share)
        self.validation_attack = validation_attack and rows.attack_of(validation_attack, epsilon=epsilon)
        self._make_method, self._loss, self._kind, self._testing = make_method, None, None, False
        with model.distribute_strategy.scope():
            made = make_method(losses.cross_entropy)
            self._memory = rows.memory(made)
            self._told = {name: keras.metrics.Mean(name=name) for name in made.quantities if name != "accuracy"}
        self._paced = "length" in rows.settings_of(method) and "length" not in settings
        self._length = None
        self.built = model.built
        if getattr(model, "output_names", None):
            self.output_names = model.output_names

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return what the model returns."""
        return self.model(inputs, training=training)

    def build(self, input_shape: Any) -> None:
        """Build the model."""
        if not self.model.built:
            self.model.build(input_shape)
        self.built = True

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any) -> None:
        """Compile as `keras.Model.compile` does; the model itself, too, so that its files can be evaluated.

        It is not compiled itself by what no process without this project, or without the user's own code, could read.
        """
        given = inspect.signature(keras.Model.compile).bind(self, optimizer, loss, *args, **kwargs).arguments
        given.pop("self")
        self._loss, self._kind = CompiledLoss.of(loss, given.get("loss_weights")), None
        with self.distribute_strategy.scope():
            super().compile(optimizer, loss, *args, **kwargs)
            if portable.is_of_keras(given):
                self.model.compile(**{**given, "optimizer": self.optimizer})

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, after a look at the data.

        Raises:
          ValueError: images leave the range, labels are none of the model's, outputs are not what the loss says.
        """
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(
                "Expected one process with fit, which Keras does not run over several workers. Received: "
                "MultiWorkerMirroredStrategy. Take python main.py --strategy=multiworker, or sat_tf.train.Loop."
            )
        x = self._look(x, y)
        given = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs)
        given.apply_defaults()
        self._take_length(given.arguments)
        validation = kwargs.get("validation_data")
        if validation is not None:
            pair = isinstance(validation, (tuple, list)) and len(validation) in (2, 3)
            looked = self._look(*validation[:2]) if pair else self._look(validation, None)
            kwargs["validation_data"] = (looked, *validation[1:]) if pair else looked
        with _in_words():
            return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as `keras.Model.evaluate` does, clean, and under `validation_attack`: `robust_accuracy`."""
        if not kwargs.get("_use_cached_eval_dataset"):
            x = self._look(x, y)
        with self._at_test(), _in_words():
            return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train on one batch as `keras.Model.train_on_batch` does."""
        if self._paced and self._length is None:
            raise ValueError(f"{pace.WANTED} Received: train_on_batch, which does not say it. {pace.REMEDY}")
        with _in_words():
            return super().train_on_batch(self._look(x, y), y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one batch as `keras.Model.test_on_batch` does."""
        with self._at_test(), _in_words():
            return super().test_on_batch(self._look(x, y), y, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Perturb a batch and update the weights; return the metrics of the images that were trained on."""
        onednn.check(self.model)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        images, labels = self._unit(x), train.labels_of(tf.convert_to_tensor(batches.whole(y)))
        y, view, replicas = batches.whole(y), self._view(), self.distribute_strategy.num_replicas_in_sync
        method = self._make_method(self._loss.of_logits(self._kind, y, labels), **self._pace())
        step = self._iteration() // method.updates
        seed = train.seed_of_step(self.seed, step)

        def total(values, penalties):
            loss = self._loss.total(values, sample_weight)
            for penalty in penalties:  # once over all replicas
                loss += tf.cast(tf.reduce_sum(penalty), tf.float32) / replicas
            return self.optimizer.scale_loss(loss)

        updates = train.Updates(model=view, seed=seed, total=total, apply=self._apply, mean=tf.reduce_mean)
        batch = methods.Batch(images=images, labels=labels, step=step, seed=seed, memory=self._memory)
        report = method.learn(view, batch, updates)
        loss = report["loss"] / self.optimizer.scale_loss(tf.constant(1.0))
        self._track_loss(loss * replicas, images)
        for name, tracker in self._told.items():
            tracker.update_state(report[name], sample_weight=tf.shape(images)[0])
        return self.compute_metrics(x, y, view.trained_on(images), sample_weight=sample_weight)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Return the metrics of a clean batch, and of the share that is attacked whether it is right."""
        with self._at_test():
            x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
            if self.validation_attack:
                self.robust_tracker.update_state(self._withstood(self._unit(x), batches.whole(y)))
            super().test_step(data)
            return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """Return all metrics; `robust_accuracy` is one of evaluations alone, what a method reports one of training."""
        results = super().get_metrics_result()
        hidden = self._told if self._testing else ()
        for name in hidden if self._testing and self.validation_attack else (*hidden, ROBUST):
            results.pop(name, None)
        return results

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the model itself, as `model.save` does."""
        self.model.save(filepath, *args, **kwargs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Export the model itself, as `model.export` does."""
        return self.model.export(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the weights of the model itself, with the optimizer's."""
        with self._lending_the_optimizer():
            self.model.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Load weights that `save_weights` saved."""
        with self._lending_the_optimizer():
            self.model.load_weights(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Refuse: what is saved is the model itself."""
        raise NotImplementedError("Expected the model itself to be saved: robust.save(path), or model.save(path).")

    def _unit(self, x):
        """Return images float32 in [0, 1], whose values were within the range."""
        low, high = self.value_range
        images = tf.cast(batches.whole(x), tf.float32)
        slack = inputs.ROUNDED * (high - low)
        inside = tf.reduce_all((images >= low - slack) & (images <= high + slack))
        with tf.control_dependencies([tf.debugging.Assert(inside, [batches.OUTSIDE])]):
            images = tf.identity(images)
        return tf.clip_by_value(images if (low, high) == inputs.UNIT else (images - low) / (high - low), 0.0, 1.0)

    def _view(self):
        return View(self.model, self.value_range, self._kind or LOGITS)

    def _take_length(self, given):
        """Take the length of a training, on which a method's schedule depends, from what `fit` is given."""
        if not self._paced:
            return
        length = pace.length_of(given)
        if length != self._length:
            self._length, self.train_function = length, None  # which would hold the schedule of before
            self._make_method(losses.cross_entropy, **self._pace())  # a schedule that can't be kept fails here

    def _pace(self):
        return {"length": self._length} if self._paced and self._length else {}

    def _apply(self, gradients):
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))

    def _iteration(self):
        """Return the number of updates and of parts of accumulated ones, int32."""
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        return tf.cast(tf.convert_to_tensor(getattr(optimizer, "_iterations", optimizer.iterations)), tf.int32)

    def _track_loss(self, loss, images):
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=tf.shape(images)[0])

    def _withstood(self, images, y):
        """Return which of the images that are attacked are right afterwards, float32."""
        count = tf.cast(tf.math.ceil(self.validation_share * tf.cast(tf.shape(images)[0], tf.float32)), tf.int32)
        if images.shape[0] is not None:
            count = math.ceil(self.validation_share * images.shape[0])
        images, labels, view = images[:count], train.labels_of(tf.convert_to_tensor(y))[:count], self._view()
        bits = tf.reshape(tf.bitcast(images, tf.int32), [tf.shape(images)[0], -1])
        seeds = tf.stack([tf.fill(tf.shape(labels), self.seed), tf.reduce_sum(bits, -1)], 1)
        moved = self.validation_attack(lambda x: losses.cross_entropy(view(x, training=False), labels), images, seeds)
        return tf.cast(tf.argmax(view(moved, training=False), -1, labels.dtype) == labels, tf.float32)

    def _look(self, x, y):
        """Return what Keras is to be given for x, after a look at images, labels and the model's outputs."""
        self._assert_compile_called("fit")
        x, images, labels = batches.first_of(x, y)
        few = tf.cast(batches.check_images(images, self.value_range), tf.float32)
        outputs = self.model(few, training=False)
        self.built = True
        kind = kind_of(outputs, self._loss.from_logits, self._loss.name)
        if self._kind is None:
            self._kind = kind
        batches.check_labels(labels, batches.whole(outputs).shape[-1], self._loss.sparse, self._loss.name)
        return x

    @contextlib.contextmanager
    def _at_test(self) -> Iterator[None]:
        before, self._testing = self._testing, True
        try:
            yield
        finally:
            self._testing = before

    @contextlib.contextmanager
    def _lending_the_optimizer(self) -> Iterator[None]:
        before = getattr(self.model, "optimizer", None)
        self.model.optimizer = self.optimizer
        try:
            yield
        finally:
            self.model.optimizer = before


def _check_model(model):
    if not isinstance(model, keras.Model) or isinstance(model, AdversarialModel):
        raise ValueError(f"Expected a Keras model, such as keras.Sequential. Received: a {type(model).__name__}.")
    predictor(model)  # one input
    shape = getattr(model, "output_shape", None) if model.built else None
    if isinstance(shape, (list, dict)) and len(shape) != 1:
        raise ValueError(f"Expected a model with one output. Received: {len(shape)} outputs of {model.name}.")


def _has_ours(layer):
    """Say whether a layer, or one inside it, is an activation of this package."""
    inner = (*getattr(layer, "layers", ()), getattr(layer, "activation", None))
    return isinstance(layer, activations.Activation) or any(
        _has_ours(each) for each in inner if isinstance(each, keras.layers.Layer)
    )


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Turn a check's failure inside the graph into its sentence."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if batches.OUTSIDE in error.message:
            raise ValueError(batches.OUTSIDE) from None
        raise
