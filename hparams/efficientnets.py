"""The recipes of the EfficientNets: the paper's first runs, its enhanced one, and the release's own optimizer."""

import dataclasses
from collections.abc import Callable

from sat_tf.hparams.recipe import Recipe

# Accuracy in %: clean as the SAT release publishes it, under PGD-200 where the paper says it in words (Section 5.2).
PUBLISHED = {
    "efficientnet-b0": (65.2, 37.6),
    "efficientnet-b1": (68.6, None),
    "efficientnet-b2": (70.3, None),
    "efficientnet-b3": (73.1, None),
    "efficientnet-b4": (75.9, None),
    "efficientnet-b5": (77.8, None),
    "efficientnet-b6": (79.2, None),
    "efficientnet-b7": (79.8, 57.0),
    "efficientnet-b8": (None, None),
    "efficientnet-l1": (80.7, 58.0),
    "efficientnet-l2": (None, None),
    **{f"efficientnet-lite{number}": (None, None) for number in range(5)},
}
ENHANCED = {"efficientnet-l1": (82.2, 58.6)}


def act_of(model: str) -> str:
    """Return the activation that an architecture has where nobody names one."""
    return "relu6" if model.startswith("efficientnet-lite") else "swish"


def _expected(clean, robust):
    if clean is None:
        return "no published number"
    return f"{clean} clean, {robust} under PGD-200" if robust else f"{clean} clean, robustness only drawn"


def named(make: Callable[[], Recipe], doc: str) -> Callable[[], Recipe]:
    """Return a recipe function with its docstring."""
    make.__doc__ = doc
    return make


def plain(model: str) -> Callable[[], Recipe]:
    """Return the recipe function of a model of Figure 4."""
    source = "SAT paper, Section 5.2 and Figure 4" if PUBLISHED[model][0] else "As Figure 4 of the SAT paper"
    return named(
        lambda: Recipe(
            name=model,
            model=model,
            act=act_of(model),
            dataset="imagenet2012",
            augment="imagenet",
            epochs=100,
            batch_size=256,
            learning_rate=0.1,
            momentum=0.9,
            schedule="steps",
            decay_epochs=(30, 60, 90),
            weight_decay=1e-4,
            norm_momentum=0.9,
            norm_epsilon=1e-5,
            epsilon=4 / 255,
            step_size=4 / 255,
            steps_per_call=100,
            validation_attack="pgd-10",
            validation_every=5,
            eval_attacks=("clean", "pgd-10", "pgd-20", "pgd-200"),
        ),
        f"""{source}: {model}, the ResNet recipe; {_expected(*PUBLISHED[model])}.

    Command: python main.py --model={model} --dataset=imagenet2012 --data_dir=DIR
    Cost: 100 epochs of five forward-equivalents an image; --plan tells FLOPs, memory and accelerator-hours.
    "All other training settings are the same as in our ResNet experiments": SGD with momentum 0.9, rate 0.1 per 256
    images, / 10 at epochs 30, 60, 90 of 100, weight decay 1e-4, PGD-1 with epsilon = step size = 4/255, no other
    regularisation. Batch normalisation 0.9 and 1e-5, as the release's command line has it. Images of the model's own
    size on ImageNet, of the data's own size on small sets.
    """,
    )


def enhanced(model: str) -> Callable[[], Recipe]:
    """Return the recipe function of a model with the paper's training enhancements."""
    return named(
        lambda: dataclasses.replace(
            plain(model)(),
            name=f"{model}-enhanced",
            epochs=200,
            decay_epochs=(60, 120, 180),
            weight_decay=1e-5,
            dropout=None,
            stochastic_depth=0.2,
            policy="autoaugment",
            average_decay=0.9999,
            validation_weights="averaged",
            validation_every=1,
            patience=65,
        ),
        f"""SAT paper, Section 5.2, training enhancements: {model}; {_expected(*ENHANCED.get(model, (None, None)))}.

    Command: python main.py --model={model} --recipe={model}-enhanced --dataset=imagenet2012 --data_dir=DIR
    Cost: 200 epochs of five forward-equivalents an image; --plan tells FLOPs, memory and accelerator-hours.
    From the paper: weight decay 1e-5, dropout, stochastic depth, AutoAugment (the release: policy v0), 200 epochs,
    early stopping on robustness. From the release: dropout by the model, stochastic depth 0.2 at the last block,
    moving average 0.9999, by which its enhanced L1 is evaluated.
    Where both are silent: the optimizer stays that of the first runs, since only changes are listed; its rate falls at
    epochs 60, 120, 180, the same shares of a run twice as long; no label smoothing, since the paper does not name it;
    validation is by PGD-10 on 10,000 training images after every epoch, of the averaged weights; patience is 65
    validations, more than the 60 epochs between two falls of the rate, so that no plateau before a fall ends the run.
    """,
    )


def rmsprop(model: str) -> Callable[[], Recipe]:
    """Return the recipe function of a model under the optimizer that the release's code has by default."""
    return named(
        lambda: dataclasses.replace(
            plain(model)(),
            name=f"{model}-rmsprop",
            optimizer="rmsprop",
            schedule="exponential",
            learning_rate=0.016,
            decay_epochs=(2.4,),
            decay_rate=0.97,
            warmup_epochs=5,
            weight_decay=1e-5,
            label_smoothing=0.1,
            epochs=350,
        ),
        f"""The optimizer that the SAT release's code has by default: {model}, RMSProp; no published number.

    Command: python main.py --model={model} --recipe={model}-rmsprop --dataset=imagenet2012 --data_dir=DIR
    Cost: 350 epochs of five forward-equivalents an image; --plan tells FLOPs, memory and accelerator-hours.
    RMSProp (decay 0.9, momentum 0.9, epsilon 0.001), 0.016 per 256 images, x 0.97 every 2.4 epochs, 5 epochs of
    warm-up, label smoothing 0.1, weight decay 1e-5. The SAT paper's runs do not use it.
    Differs from source: weight decay acts on kernels only, there on everything but batch normalisation.
    """,
    )


EFFICIENTNETS = {
    **{model: plain(model) for model in PUBLISHED},
    **{f"{model}-enhanced": enhanced(model) for model in PUBLISHED},
    **{f"{model}-rmsprop": rmsprop(model) for model in PUBLISHED},
}
