"""What a forward pass is for, and whose gradient activations have on its way back.

A network is run for three purposes: an *attack* differentiates it to its images, an *update* to its weights, and
*inference* reads its logits. In either of the first two, activations can have the gradient of another one while their
values stay as they are (Xie et al. 2020, Section 3.2: ReLU forward, Parametric Softplus backward).
"""

import contextlib
import dataclasses
from collections.abc import Callable

from sat_tf import activations
from sat_tf.half import in_half_precision, keeping_gradients

PURPOSES = ("attack", "update", "inference")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backward:
    """The activation whose gradient stands in for the network's own, for each purpose; None for its own.

    attack, update: as `activations.factory` reads it, "parametric_softplus:10".
    """

    attack: str | None = None
    update: str | None = None

    def __post_init__(self):
        for spec in (self.attack, self.update):
            if spec is not None:
                activations.factory(spec)

    def view(self, model: Callable, purpose: str) -> Callable:
        """Return a model as it is called for a purpose: `(images, training) -> logits`, the model's to the last bit.

        What gradient it has is fixed when it is called or traced, by nothing but this argument. That of an attack on a
        float16 model is scaled on its way, so that the sign of a small one does not vanish.

        Raises:
          ValueError: another purpose than `PURPOSES`.
        """
        if purpose not in PURPOSES:
            raise ValueError(f"Expected a purpose of {', '.join(PURPOSES)}. Received: purpose={purpose!r}.")
        spec, keeps = getattr(self, purpose, None), purpose == "attack" and in_half_precision(model)
        if spec is None and not keeps:
            return model

        def call(images, training):
            with contextlib.nullcontext() if spec is None else activations.gradient_of(spec):
                if keeps:
                    return keeping_gradients(lambda points: model(points, training=training))(images)
                return model(images, training=training)

        return call


OWN = Backward()  # every pass has the network's own gradients
