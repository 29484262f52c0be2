"""What a step spends its time on, kind of operation by kind, and how near its convolutions come to the machine.

    python benchmarks/operations.py
    python benchmarks/operations.py --model=resnet50 --act=relu,swish,smoothrelu --compare=act
    python benchmarks/operations.py --model=efficientnet-b0 --method=standard

Beside the time of a step each side has the operations that its forward-equivalents count (5 of sat, 3 of standard, 1 of
evaluate), per second, and that as a share of what a product of two square float32 matrices reaches in the same process;
and the share of every kind of operation in the time of all of one step, as TensorFlow's profiler tells it. Operations
that run side by side count one by one. Draws operations.png.
"""

import collections
import json
import pathlib
import re
import statistics
import tempfile
import time

import contest
import train_step

OPTIONS = {
    "model": "resnet20,resnet50",
    "act": "swish",
    "method": "standard,sat",
    "precision": "float32",
    "attack_precision": "none",
    "image_size": "0",
    "batch_size": "0",
}
PASSES = {"evaluate": 1, "standard": 3, "sat": 5}  # forward-equivalents
SIDE = 2048  # of the matrices
KINDS = {  # the first that fits: what names of operations begin with, once a leading _Mkl, Native or Fused is gone
    "convolutions": "Conv DepthwiseConv",
    "matrix products, 1x1 convolutions": "MatMul BatchMatMul",
    "normalisation": "BatchNorm",
    "compiled by XLA": "Xla",
    "sums and means": "Sum Mean BiasAddGrad ArgMax L2Loss SquaredDifference",
    "pooling": "AvgPool MaxPool",
    "copies and casts": "BroadcastTo Cast Concat Fill Gather Identity Pack Pad ReadVariable Reshape Slice Split "
    "Strided Tile Transpose Zeros",
    "updates": "Assign ResourceApply",
    "random numbers": "Random Stateless",
    "elementwise": "Abs Add BiasAdd Clip Div Elu Equal Erf Exp Greater Inv Less Log Max Min Mul Neg Pow RealDiv "
    "Reciprocal Relu Rsqrt Select Selu Sigmoid Sign Soft SparseSoftmax Sqrt Square Sub Swish Tanh",
}
OTHER = "other"
OPERATION = re.compile(r"[^:\s]+:(_?[A-Z]\w*)(#.*)?", re.DOTALL)  # node:type, in the profiler's names; no function


def make(setting):
    """Return a step, whose facts are where its time goes."""
    from sat_tf import cost, models

    if setting["method"] not in PASSES:
        contest.row(PASSES, setting, "method")
    run = train_step.make({**setting, "library": "sat_tf"})
    side = int(setting["image_size"]) or models.image_size(setting["model"])
    size = int(setting["batch_size"]) or train_step.batch_size(side)
    model = models.build(setting["model"], setting["act"], train_step.CLASSES, dropout=0.0)
    return Step(run, PASSES[setting["method"]] * size * cost.forward_flops(model, side))


class Step:
    """A step that knows how many operations it counts."""

    def __init__(self, run, flops):
        self.run, self.flops, self.seconds = run, flops, []

    def __call__(self):
        begun = time.perf_counter()
        self.run()
        self.seconds.append(time.perf_counter() - begun)

    def facts(self):
        """Return GFLOP a second, of a matrix product as well, and the share of every kind of operation in %."""
        rate, best = self.flops / statistics.median(self.seconds) / 1e9, matrix_rate()
        shares = {f"{kind} (%)": share for kind, share in of_kinds(profiled(self.run)).items()}
        return {"GFLOP/s": rate, "of a matrix product's (%)": 100 * rate / best, **shares}


def matrix_rate():
    """Return what a product of two square matrices reaches, in GFLOP a second: the best of five."""
    import tensorflow as tf

    matrix, times = tf.random.stateless_normal([SIDE, SIDE], [0, 0]), []
    for _ in range(6):
        begun = time.perf_counter()
        (matrix @ matrix).numpy()
        times.append(time.perf_counter() - begun)
    return 2 * SIDE**3 / min(times[1:]) / 1e9


def profiled(run):
    """Return `{type of operation: seconds}` of one run, as TensorFlow's profiler tells them."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        space = xplane_pb2.XSpace()
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(file.read_bytes())
    found = collections.Counter()
    for plane in space.planes:
        names = {number: event.name for number, event in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                kind = OPERATION.fullmatch(names[event.metadata_id])
                if kind:
                    found[kind[1]] += event.duration_ps / 1e12
    return found


def of_kinds(seconds):
    """Return the share of each kind of `KINDS` in % of the time of all operations, the largest first."""
    found = collections.Counter()
    for name, taken in seconds.items():
        found[kind_of(name)] += 100 * taken / sum(seconds.values())
    return dict(found.most_common())


def kind_of(name):
    """Return the kind of an operation's type."""
    plain = name.lstrip("_").removeprefix("Mkl").removeprefix("Native").removeprefix("Fused")
    return next((kind for kind, begin in KINDS.items() if plain.startswith(tuple(begin.split()))), OTHER)


def draw(found):
    """Return a figure of what was found: a bar for every side, as long as its step, parted by kinds of operations."""
    from sat_tf.report import figures

    bars = []
    shown = [name for name in OPTIONS if len({str(value) for value in _values(found, name)}) > 1]
    for each in found["contests"]:
        for name, side in each["sides"].items():
            setting = {**each["setting"], found["compare"]: name}
            label = ", ".join(str(setting[option]) for option in shown) or setting["model"]
            bars.append((label, 1e3 * sorted(side["seconds"])[len(side["seconds"]) // 2], side))
    shares = [{kind: side.get(f"{kind} (%)", 0) for kind in KINDS} for _, _, side in bars]
    most = {kind: max(each[kind] for each in shares) for kind in KINDS}
    told = sorted(most, key=most.get, reverse=True)[: len(figures.CYCLE)]
    kinds = [kind for kind in KINDS if kind in told and most[kind] >= 1.5]
    parts = {kind: [each[kind] for each in shares] for kind in kinds}
    parts[OTHER] = [100 - sum(each[kind] for kind in kinds) for each in shares]
    before = [0.0] * len(bars)
    with figures.styled():
        figure = figures.figure_of(9, 2.2 + 0.55 * len(bars), layout="constrained")
        axes = figure.subplots()
        for kind, colour in zip(parts, [*figures.CYCLE[: len(kinds)], figures.GREY], strict=True):
            axes.barh(range(len(bars)), parts[kind], left=before, label=kind, color=colour, zorder=2)
            for place, (part, start) in enumerate(zip(parts[kind], before, strict=True)):
                if part >= 4:
                    axes.text(start + part / 2, place, f"{part:.0f}", ha="center", va="center", color="white")
            before = [start + part for start, part in zip(before, parts[kind], strict=True)]
        axes.set_yticks(range(len(bars)), [f"{label}\n{taken:.0f} ms a step" for label, taken, _ in bars])
        axes.invert_yaxis()
        axes.set(xlim=(0, 100), xlabel="share of the time of all operations (%)")
        figure.legend(loc="outside lower center", ncols=3)
        axes.set_title("What a step spends its time on")
    return figure


def _values(found, name):
    return [
        side if name == found["compare"] else each["setting"][name]
        for each in found["contests"]
        for side in each["sides"]
    ]


if __name__ == "__main__":
    folder = contest.main(__doc__, make, OPTIONS, "method")
    if folder:
        from sat_tf import files, report

        figure = draw(json.loads((folder / "operations.json").read_text()))
        print(files.write(folder / "operations.png", report.png(figure)))
