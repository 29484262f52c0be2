"""The settings in which the paper's rows run on two cores: `--experiment=... --scale=small` or `--scale=long`."""

from sat_tf.hparams import recipes
from sat_tf.hparams.recipe import Recipe

DATASET = "fashion_mnist_12k"  # comes with the package, so that the scale needs no download
EPOCHS = {DATASET: 4}  # of 11,000 images; sets of 50,000, CIFAR-10 above all, are seen once


def small(dataset: str = DATASET) -> Recipe:
    """Setting of the rows at the small scale: a narrow ResNet-20 that sees some 45,000 images, PGD-1 at 8/255.

    Command: python main.py --experiment=table1 --scale=small
    Expect what results/README.md says; some two minutes a run and core. Ours: no published counterpart.
    """
    epochs = EPOCHS.get(dataset, 1)
    return recipes.fashion().replace(
        model="resnet20-w8",
        act="relu",
        dataset=dataset,
        epochs=epochs,
        learning_rate=0.4,
        warmup_epochs=0.1 * epochs,
        validation_attack="pgd-1",
        validation_every=epochs / 2,
        eval_attacks=("clean", "pgd-1", "pgd-10"),
        eval_images=5000,
    )


def long(dataset: str = DATASET) -> Recipe:
    """Setting of the rows at the long scale: ResNet-20 for 16 epochs of CIFAR-10 with crop and flip, PGD-1 at 8/255.

    Command: python main.py --experiment=figure3 --scale=long --rows=swish --seeds=5 --dataset=cifar10
    Expect 71.6 clean, 42.1 under PGD-10 with ReLU; some fifty minutes a run and core. Ours: no published counterpart.
    Validated once an epoch, so that the curves of two activations show where they part; every epoch's checkpoint stays.
    """
    return recipes.fashion().replace(
        model="resnet20",
        act="relu",
        dataset=dataset,
        epochs=16,
        learning_rate=0.4,
        augment="pad_crop_flip",
        validation_every=1,
        keep_checkpoints=16,
        eval_attacks=("clean", "pgd-1", "pgd-20"),
    )


SETTINGS = {"small": small, "long": long}
