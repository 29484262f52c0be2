"""The recipe of robust fine-tuning: weights that others trained, a few hundred images a class."""

from sat_tf.hparams.networks import LITE_EPSILON
from sat_tf.hparams.recipe import Recipe


def finetune() -> Recipe:
    """Robust fine-tuning on a few hundred images a class: PGD-5 at 4/255 from weights that others trained, with swish.

    Command: python main.py --init=released:efficientnet-lite0 --dataset=folder --data_dir=DIR
    Expect what docs/finetune.md says. Ours: no published counterpart, chosen on validation images. The radius is the
    paper's of photographs. Small data overfit to one step or two; by SGD, or at a quarter of the rate, robustness does
    not come in twenty epochs. A new classifier learns twice as fast as what lies before it; the moving statistics
    forget the weights' own data within an epoch or two. EfficientNet-Lite's published weights were never attacked:
    swish takes the place of their relu6.
    """
    return Recipe(
        name="finetune",
        model="efficientnet-lite0",
        act="swish",
        init="released:efficientnet-lite0",
        dataset="folder",
        augment="pad_crop_flip",
        epochs=20,
        batch_size=32,
        optimizer="adamw",
        learning_rate=0.016,
        head_rate=0.032,
        warmup_epochs=2,
        weight_decay=0.05,
        norm_momentum=0.9,
        norm_epsilon=LITE_EPSILON,
        epsilon=4 / 255,
        attack="pgd-5",
        step_size=1.5 / 255,
        validation_attack="pgd-5",
        eval_attacks=("clean", "pgd-10"),
        eval_batch_size=50,
    )
