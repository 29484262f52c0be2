"""A training step here against PyTorch's: same network, weights, images and threads.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --model=resnet20,resnet50 --method=standard,sat --precision=float32,mixed_bfloat16
    python benchmarks/train_step.py --library=sat_tf --act=relu,swish,smoothrelu --compare=act
    python benchmarks/train_step.py --library=sat_tf --method=standard,sat --compare=method
    python benchmarks/train_step.py --model=resnet50 --attack_precision=none,mixed_bfloat16

Libraries: sat_tf; keras_conv, the same with Keras' own grouped convolution; torch, eager and channels-last;
torch.compile. Methods: standard; sat, which is PGD-1 before each update, whose floor is 5 forward-equivalents (attack:
forward and input gradient; update: forward, input and weight gradients) against 3 of standard, a ratio of 1.67;
evaluate, a forward pass. --attack_precision is of sat_tf's attack alone, PyTorch's side stays as it is. Sides give the
same logits before they begin. --image_size=0 is 224 for the networks of ImageNet and 32 for the others.
"""

import contest
import numpy as np

OPTIONS = {
    "library": "sat_tf,torch,torch.compile",
    "model": "resnet20",
    "act": "swish",
    "method": "sat",
    "precision": "float32",
    "attack_precision": "none",
    "image_size": "0",
    "batch_size": "0",
}
EPSILON, CLASSES = 4 / 255, 1000
TOLERANCE = 1e-3  # of logits, by which sums in another order may differ


def make(setting, rehearsals=2):
    """Return a side's step on one batch; `rehearsals` of it have been made."""
    from sat_tf import models

    side = int(setting["image_size"]) or models.image_size(setting["model"])
    size = int(setting["batch_size"]) or batch_size(side)
    rng = np.random.default_rng(0)
    images = rng.random((size, side, side, 3), np.float32)
    labels = rng.integers(0, CLASSES, size).astype(np.int32)
    model = weighted(models.build(setting["model"], setting["act"], CLASSES, dropout=0.0))
    run = contest.row(LIBRARIES, setting, "library")(setting, model, images, labels)
    for _ in range(rehearsals):
        run()
    return run


def batch_size(side):
    """Return the images a batch where none are asked for."""
    return 8 if side > 64 else 128


def weighted(model):
    """Return a model with weights and statistics that are a function of nothing, so that all sides have the same."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        shape = variable.shape
        fan = np.prod(shape[:-1]) if len(shape) > 1 else 1
        values = rng.normal(0, np.sqrt(2 / fan), shape) if len(shape) > 1 else rng.uniform(0.8, 1.2, shape)
        variable.assign(values.astype(np.float32))
    return model


def ours(setting, model, images, labels):
    """Return the compiled step of this project."""
    import tensorflow as tf

    from sat_tf import attacks, half, methods, optim, passes, train
    from sat_tf.layers import convolution

    if setting["library"] == "keras_conv":
        convolution.conv2d = keras_conv

    half.compute_in(model, setting["precision"])
    if setting["method"] == "evaluate":
        forward, given = tf.function(lambda x: model(x, training=False)), tf.constant(images)
        return lambda: forward(given).numpy()
    short = None if setting["attack_precision"] == "none" else setting["attack_precision"]
    optimizer = optim.sgd(lambda step: tf.constant(1e-3), momentum=0.9)
    optimizer.build(model.trainable_variables)
    loop = train.Loop(
        state=train.TrainState(model=model, optimizer=optimizer),
        method=methods.METHODS[setting["method"]](
            attacks.PGD(epsilon=EPSILON, step_size=EPSILON, steps=1), backward=passes.Backward(attack_precision=short)
        ),
        strategy=tf.distribute.get_strategy(),
        batch_size=len(images),
        weight_decay=1e-4,
    )
    iterator = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    steps = loop.compile()
    return lambda: steps(iterator, tf.constant(1))


def keras_conv(inputs, kernel, strides, padding, groups=1):
    """Convolve as Keras does, which leaves the gradient of groups to XLA on a CPU."""
    import keras

    return keras.ops.conv(inputs, kernel, strides, padding.lower())


def theirs(setting, model, images, labels):
    """Return PyTorch's step, eager or compiled."""
    import torch

    torch.set_num_threads(int(setting["threads"]))
    network = torch_network(model, images[:2])
    given = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    wanted = torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
    call = torch.compile(network) if setting["library"] == "torch.compile" else network
    half = setting["precision"] == "mixed_bfloat16"

    def loss_of(points):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = call(points)
        return torch.nn.functional.cross_entropy(logits.float(), wanted)

    def attacked():
        network.eval().requires_grad_(False)
        start = (given + torch.empty_like(given).uniform_(-EPSILON, EPSILON)).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(start), start)
        moved = start.detach() + EPSILON * gradient.sign()
        network.requires_grad_(True)
        return torch.minimum(torch.maximum(moved, given - EPSILON), given + EPSILON).clamp(0, 1)

    def run():
        if setting["method"] == "evaluate":
            network.eval()
            with torch.no_grad():
                loss_of(given)
            return
        points = attacked() if setting["method"] == "sat" else given
        network.train()
        optimizer.zero_grad(set_to_none=True)
        loss_of(points).backward()
        optimizer.step()

    return run


def torch_network(model, images):
    """Return a Keras model of this project as a PyTorch module with its weights, channels last.

    Args:
      model: of this project, functional.
      images: `[n, h, w, 3]`, on which both must give the same logits.

    Raises:
      ValueError: they do not.
    """
    import torch
    from torch.nn import functional

    def normalisation(layer):
        norm = torch.nn.BatchNorm2d(layer.gamma.shape[0], layer.epsilon, 1 - layer.momentum)
        values = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
        for to, value in zip((norm.weight, norm.bias, norm.running_mean, norm.running_var), values, strict=True):
            to.data.copy_(torch.from_numpy(value.numpy()))
        return norm

    def convolution(layer):
        kernel = layer.kernel.numpy()
        depthwise = type(layer).__name__ == "DepthwiseConvNorm"
        kernel = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
        groups = len(kernel) if depthwise else layer.groups
        size, strides = kernel.shape[2], layer.strides if isinstance(layer.strides, int) else layer.strides[0]
        bias = layer.bias.numpy() if getattr(layer, "use_bias", False) else None
        made = torch.nn.Conv2d(kernel.shape[1] * groups, len(kernel), size, strides, 0, 1, groups, bias is not None)
        made.weight.data.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
        if bias is not None:
            made.bias.data.copy_(torch.from_numpy(bias))
        symmetric = strides == 1 or layer.padding == "symmetric"
        made.padding = (size // 2, size // 2) if symmetric else (0, 0)
        made = made if symmetric else torch.nn.Sequential(torch.nn.ZeroPad2d(same_padding(size)), made)
        after = getattr(getattr(layer, "activation", None), "__name__", "linear")
        return torch.nn.Sequential(made, torch.nn.Sigmoid()) if after == "sigmoid" else made

    def same_padding(size):
        """Return what TensorFlow pads of even images at stride 2: left, right, above, below."""
        missing = max(size - 2, 0)
        return (missing // 2, missing - missing // 2) * 2

    class Subsample(torch.nn.Module):
        def __init__(self, filters):
            super().__init__()
            self.filters = filters

        def forward(self, x):
            missing = self.filters - x.shape[1]
            return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing // 2, missing - missing // 2))

    class SmoothReLU(torch.nn.Module):
        def __init__(self, raw):
            super().__init__()
            self.raw = torch.nn.Parameter(torch.tensor(raw))

        def forward(self, x):
            positive, alpha = x.clamp(min=0), self.raw**2
            return positive - torch.log1p(alpha * positive) / alpha

    class Function(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, *inputs):
            return self.function(*inputs)

    def dense(layer):
        made = torch.nn.Linear(*layer.kernel.shape)
        made.weight.data.copy_(torch.from_numpy(layer.kernel.numpy().T.copy()))
        made.bias.data.copy_(torch.from_numpy(layer.bias.numpy()))
        return made

    makers = {
        "Rescaling": lambda layer: Function(lambda x: float(layer.scale) * x + float(layer.offset)),
        "ConvNorm": lambda layer: torch.nn.Sequential(convolution(layer), normalisation(layer)),
        "DepthwiseConvNorm": lambda layer: torch.nn.Sequential(convolution(layer), normalisation(layer)),
        "Conv": convolution,
        "Norm": normalisation,
        "Swish": lambda layer: torch.nn.SiLU(),
        "ReLU": lambda layer: torch.nn.ReLU(),
        "SmoothReLU": lambda layer: SmoothReLU(layer.raw.numpy()),
        "GELU": lambda layer: torch.nn.GELU(),
        "Softplus": lambda layer: torch.nn.Softplus(),
        "ELU": lambda layer: torch.nn.ELU(layer.alpha),
        "Add": lambda layer: Function(lambda a, b: a + b),
        "Multiply": lambda layer: Function(lambda a, b: a * b),
        "MaxPooling2D": lambda layer: Function(
            lambda x: functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
        ),
        "GlobalAveragePooling2D": lambda layer: Function(lambda x: x.mean((2, 3), keepdim=layer.keepdims)),
        "Subsample": lambda layer: Subsample(layer.filters),
        "Dense": dense,
        "Dropout": lambda layer: torch.nn.Identity(),
        "StochasticDepth": lambda layer: torch.nn.Identity(),
    }

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            places = {id(model.inputs[0]): 0}
            self.wires, made = [], []
            for layer in model.operations[1:]:
                node = layer._inbound_nodes[0]
                name = type(layer).__name__
                if name not in makers:
                    raise ImportError(f"no PyTorch layer for {name}")
                made.append(makers[name](layer))
                self.wires.append([places[id(tensor)] for tensor in node.input_tensors])
                places[id(node.output_tensors[0])] = len(made)
            self.made = torch.nn.ModuleList(made)

        def forward(self, x):
            found = [x]
            for layer, wires in zip(self.made, self.wires, strict=True):
                found.append(layer(*(found[wire] for wire in wires)))
            return found[-1]

    network = Network().to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        theirs = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    own = np.asarray(model(images, training=False))
    if np.abs(theirs - own).max() > TOLERANCE * max(np.abs(own).max(), 1):
        raise ValueError(
            f"Expected the same logits of both networks. Received: {np.abs(theirs - own).max():.3g} apart."
        )
    return network


LIBRARIES = {"sat_tf": ours, "keras_conv": ours, "torch": theirs, "torch.compile": theirs}


if __name__ == "__main__":
    contest.main(__doc__, make, OPTIONS, "library")
