"""The setting in which the paper's rows run on two cores: `--experiment=... --scale=small`."""

from hparams import recipes

DATASET = "fashion_mnist_12k"  # comes with the package, so that the scale needs no download
EPOCHS = {DATASET: 4}  # of 11,000 pictures; sets of 50,000, CIFAR-10 above all, are seen once


def small(dataset=DATASET):
    """Setting of the rows at the small scale: a narrow ResNet-20 that sees some 45,000 pictures, PGD-1 at 8/255.

    Command: python main.py --experiment=table1 --scale=small
    Expect what results/README.md says; some two minutes a run and core. Ours: no published counterpart.
    """
    epochs = EPOCHS.get(dataset, 1)
    return recipes.fashion().replace(
        model="resnet20-w8", act="relu", dataset=dataset, epochs=epochs, learning_rate=0.4, warmup_epochs=0.1 * epochs,
        probe_attack="pgd-1", probe_every=epochs / 2, eval_attacks=("clean", "pgd-1", "pgd-10"), eval_pictures=5000,
    )
