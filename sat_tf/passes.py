"""What a forward pass is for, and whose gradient activations have on its way back.

A network is run for three purposes: an *attack* differentiates it to its images, an *update* to its weights, and
*inference* reads its logits. In either of the first two, activations can have the gradient of another one while their
values stay as they are (Xie et al. 2020, Section 3.2: ReLU forward, Parametric Softplus backward).
"""

import contextlib
import dataclasses
from collections.abc import Callable

import keras

from sat_tf import activations, half

PURPOSES = ("attack", "update", "inference")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backward:
    """What a pass has instead of the network's own: another activation's gradients, another precision; None: its own.

    attack, update: whose gradient, as `activations.factory` reads it, "parametric_softplus:10".
    attack_precision: of `half.PRECISIONS`, what an attack computes in; None for what the network computes in.
    """

    attack: str | None = None
    update: str | None = None
    attack_precision: str | None = None

    def __post_init__(self):
        for spec in (self.attack, self.update):
            if spec is not None:
                activations.factory(spec)
        if self.attack_precision not in (None, *half.PRECISIONS):
            raise ValueError(
                f"Expected attack_precision of {', '.join(half.PRECISIONS)}. Received: {self.attack_precision}."
            )

    def view(self, model: Callable, purpose: str, of: keras.Model | None = None) -> Callable:
        """Return a model as it is called for a purpose: `(images, training) -> logits`, the model's to the last bit.

        What gradient it has is fixed when it is called or traced, by nothing but this argument. That of an attack in
        float16 is scaled on its way, so that the sign of a small one does not vanish. With `attack_precision` an
        attack sees other bits than the model's.

        Args:
          model: `(images, training) -> outputs`.
          purpose: of `PURPOSES`.
          of: the model whose layers it runs; None for `model` itself.

        Raises:
          ValueError: another purpose than `PURPOSES`.
        """
        if purpose not in PURPOSES:
            raise ValueError(f"Expected a purpose of {', '.join(PURPOSES)}. Received: purpose={purpose!r}.")
        spec, attacks, layers = getattr(self, purpose, None), purpose == "attack", model if of is None else of
        precision = self.attack_precision if attacks else None
        if spec is None and precision is None and not (attacks and half.in_half_precision(layers)):
            return model

        def call(images, training):
            with contextlib.ExitStack() as stack:
                if precision is not None:
                    stack.enter_context(half.computing_in(layers, precision))
                if spec is not None:
                    stack.enter_context(activations.gradient_of(spec))
                if attacks and half.in_half_precision(layers):
                    return half.keeping_gradients(lambda points: model(points, training=training))(images)
                return model(images, training=training)

        return call


OWN = Backward()  # every pass has the network's own gradients
