"""Write costs.json, what each training of the paper takes in operations: `python results/costs.py`.

Hours follow from published throughputs of *standard training* of three networks: an accelerator that trains a ResNet-50
at so many images a second spends images x 3 forward passes x operations of one on it; at that rate of operations it is
assumed to do the adversarial steps of all networks of the family as well. (Our own step of PGD-1, 5 forward passes,
takes 1.64 times the standard step on a CPU, where 5 / 3 would be 1.67.)
"""

import dataclasses
import functools
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
NVIDIA = "https://github.com/NVIDIA/DeepLearningExamples/blob/master"
STANDARD_STEP = 3  # forward passes
PEAK = {"a100-tf32": 156e12, "a100": 312e12}  # operations a second, dense, NVIDIA's data sheet of the A100
DEVICES = {  # what a throughput was measured on: words, precision
    "a100-tf32": ("1 A100", "TF32"),
    "a100": ("1 A100", "float16 mixed"),
    "a100x8": ("8 A100", "float16 mixed"),
    "tpu-v3-8": ("TPU v3-8", "bfloat16 mixed"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """Training images a second of a network, at `size` pixels, by device of `DEVICES`; source of each."""

    model: str
    size: int
    throughput: dict
    source: str


PUBLISHED = {
    "resnet": Published(
        model="resnet50",
        size=224,
        throughput={"a100-tf32": 909, "a100": 2375, "a100x8": 17_400, "tpu-v3-8": 125_100 * 1024 / (4.4 * 3600)},
        source="A100 (40 GB), TensorFlow with XLA: "
        f"{NVIDIA}/TensorFlow/Classification/ConvNets/resnet50v1.5/README.md; "
        "TPU v3-8, Flax: 125,100 steps of 1,024 images in 4.4 hours, "
        "https://github.com/google/flax/blob/main/examples/imagenet/README.md",
    ),
    "resnext": Published(
        model="resnext101-32x4d",
        size=224,
        throughput={"a100-tf32": 371, "a100": 1132, "a100x8": 8500},
        source="A100 (40 GB), TensorFlow with XLA: "
        f"{NVIDIA}/TensorFlow/Classification/ConvNets/resnext101-32x4d/README.md",
    ),
    "efficientnet": Published(
        model="efficientnet-b4",
        size=380,
        throughput={"a100-tf32": 165, "a100": 470, "a100x8": 3550},
        source=f"A100 (80 GB), TensorFlow: {NVIDIA}/TensorFlow2/Classification/ConvNets/efficientnet_v1/README.md",
    ),
}


def family(model):
    """Return the key of `PUBLISHED` whose network is nearest to a model."""
    return next(name for name in ("efficientnet", "resnext", "resnet") if model.startswith(name))


def rates(forward):
    """Return `{family: {device: operations a second}}`; `forward` is `{family: operations of one forward pass}`.

    Where no throughput of a family was published for a device, ResNet-50's ratio to one A100 stands in for it.
    """
    found = {}
    for name, known in PUBLISHED.items():
        base = PUBLISHED["resnet"].throughput
        images = {
            device: known.throughput.get(device, known.throughput["a100"] * base[device] / base["a100"])
            for device in DEVICES
        }
        found[name] = {device: number * STANDARD_STEP * forward[name] for device, number in images.items()}
    return found


def used(rate):
    """Return in words what a family gets of the devices, by its `rates`."""
    shares = [
        f"{100 * rate[device] / peak:.0f} % of one A100's peak in {DEVICES[device][1]}" for device, peak in PEAK.items()
    ]
    return " and ".join(shares)


def hours(row, rate):
    """Return `{device: hours}` of a training, by operations a second of its family."""
    operations = row["images"] * row["passes"] * row["forward_flops"]
    return {device: operations / each / 3600 for device, each in rate[family(row["model"])].items()}


def measured():
    """Return what costs.json holds, from the recipes and the networks themselves: one row a kind of training."""
    from sat_tf import assembly, hparams, models
    from sat_tf.experiment.plan import KNOWN

    total, _, most, _, _ = KNOWN["imagenet2012"]
    kinds = {}
    for name, experiment in hparams.EXPERIMENTS.items():
        for row in experiment.rows:
            recipe = hparams.row_recipe(name, row, "paper")
            if recipe.dataset == "imagenet2012":
                size = recipe.image_size or models.image_size(recipe.model)
                passes = assembly.make_method(recipe).forward_equivalents
                train = total - (most if recipe.validation is None else recipe.validation)
                images = recipe.epochs * (train // recipe.batch_size) * recipe.batch_size
                kind = recipe.model, size, recipe.epochs, images, passes
                kinds.setdefault(kind, {"act": recipe.act, "rows": []})["rows"].append(f"{name}-{row}")
    names = ("model", "size", "epochs", "images", "passes")
    rows = [
        {**dict(zip(names, kind, strict=True)), "forward_flops": forward(kind[0], about["act"], kind[1]), **about}
        for kind, about in kinds.items()
    ]
    reference = {name: forward(each.model, "swish", each.size) for name, each in PUBLISHED.items()}
    return {"reference": reference, "rows": rows}


@functools.cache
def forward(model, act, size):
    """Return the operations of one image's forward pass; also of ResNeXt-101-32x4d, which the paper has not."""
    from sat_tf import activations, cost, models
    from sat_tf.resnet import bottleneck

    also = {"resnext101-32x4d": dataclasses.replace(bottleneck.VARIANTS["resnext50-32x4d"], blocks=(3, 4, 23, 3))}
    with cost.weightless():
        if model not in also:
            return cost.forward_flops(models.build(model, act, 1000), size)
        bottleneck.VARIANTS.update(also)
        try:
            return cost.forward_flops(bottleneck.build_bottleneck(model, activations.factory(act), 1000), size)
        finally:
            del bottleneck.VARIANTS[model]


if __name__ == "__main__":
    (HERE / "costs.json").write_text(json.dumps(measured(), indent=1) + "\n")
