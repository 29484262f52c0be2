"""Attacks here against those of other libraries: same network, weights, images, radius and threads.

    python benchmarks/attack.py
    python benchmarks/attack.py --checkpoint=RUN --library=sat_tf,torchattacks --attack=autoattack --images=50
    python benchmarks/attack.py --checkpoint=RUN --library=sat_tf,one_by_one --attack=apgd-t,fab-t --images=50
    python benchmarks/attack.py --checkpoint=RUN --library=sat_tf,every_image --attack=pgd-200 --images=500
    python benchmarks/attack.py --library=every_image --attack=pgd-1,pgd-20,pgd-200 --compare=attack
    python benchmarks/attack.py --library=plain,plain_bfloat16 --attack=pgd-1,pgd-20 --checkpoint=RUN --images=10000
    python benchmarks/attack.py --library=sat_tf --checkpoint=RUN --batch_size=25,50,100 --compare=batch_size

Libraries: sat_tf, an evaluation in which fooled images leave the batch; one_by_one, the same with one target or restart
of an image at a time; every_image, PGD on all images to its end; plain, the compiled `attacks.PGD`; plain_bfloat16, the
same with the network in bfloat16, whose images the network then reads in float32; foolbox, art and cleverhans on the
same Keras model; torchattacks, and autoattack, the authors' code (--autoattack_path, its folder), on the same network
in PyTorch. --tracing=included times the compilation, too, as a user meets it who evaluates once.
With --checkpoint a run's test images are attacked, else random ones with the labels that the network gives them. Ratios
of --compare=attack are those of their times: --attack=pgd-20,pgd-200 shows how time and peak memory grow with steps.
"""

import functools
import sys

import contest
import numpy as np
import train_step

OPTIONS = {
    "library": "plain,every_image,sat_tf,foolbox,art,cleverhans,torchattacks",
    "attack": "pgd-20",
    "images": "100",
    "batch_size": "100",
    "epsilon": "8",
    "tracing": "excluded",
    "checkpoint": "",
    "data_dir": "",
    "model": "resnet20",
    "act": "swish",
    "image_size": "32",
    "autoattack_path": "",
}


def make(setting):
    """Return a side's attack on all images; its facts are the share left right and the farthest, in 255ths."""
    model, images, labels = subject(setting)
    attack = contest.row(LIBRARIES, setting, "library")(setting, model, images, labels)
    clean, kept = logits_of(model, images).argmax(-1) == labels, []

    def run():
        kept[:] = [np.asarray(attack())]

    def facts():
        right = clean & (logits_of(model, kept[0]).argmax(-1) == labels)
        return {"right": float(right.mean()), "farthest": 255 * float(np.abs(kept[0] - images).max())}

    if setting["tracing"] == "excluded":
        run()
    run.facts = facts
    return run


def subject(setting):
    """Return the model, images float32 `[n, h, w, 3]` and labels int32 `[n]`."""
    import tensorflow as tf

    from sat_tf import assembly, models
    from sat_tf.runs import checkpoints

    count = int(setting["images"])
    if not setting["checkpoint"]:
        model = train_step.weighted(models.build(setting["model"], setting["act"], 10))
        side = int(setting["image_size"])
        images = np.random.default_rng(0).random((count, side, side, 3), np.float32)
        return model, images, logits_of(model, images).argmax(-1).astype(np.int32)
    found = checkpoints.open_checkpoint(setting["checkpoint"], {"eval_images": count, "eval_batch_size": count})
    dataset = assembly.load_data(found.recipe, setting["data_dir"] or None)
    batches = assembly.evaluation_batches(found.recipe, dataset.test, found.image_size, tf.distribute.get_strategy())
    images, labels, _ = next(iter(batches.unbatch().batch(count)))
    return found.load(dataset.classes), images.numpy(), labels.numpy().astype(np.int32)


def logits_of(model, images):
    """Return logits in batches of at most 100."""
    parts = [np.asarray(model(images[at : at + 100], training=False)) for at in range(0, len(images), 100)]
    return np.concatenate(parts)


def evaluating(final=False, **options):
    """Return a library: `evaluate.Attacker` with some options."""

    def library(setting, model, images, labels):
        from sat_tf import evaluate

        def made():
            return evaluate.Attacker(model, batch_size=int(setting["batch_size"]), **options)

        attacker = made()
        logits = attacker.logits(images)
        examples = evaluate.Examples(images=images, labels=labels)

        def attack():
            one = attacker if setting["tracing"] == "excluded" else made()
            result = one.attack(
                examples,
                setting["attack"],
                epsilon=float(setting["epsilon"]) / 255,
                logits=logits,
                final=final and "pgd" in setting["attack"],
            )
            return result.attacked(images)

        return attack

    return library


def steps_of(setting):
    """Return the steps of PGD, which is what most libraries have in common."""
    name, _, steps = setting["attack"].rpartition("-")
    if name != "pgd":
        raise ImportError(f"{setting['attack']} is not compared with {setting['library']}")
    return int(steps)


def step_size(setting):
    """Return PGD's step size: 1/255, or epsilon / steps where that is larger."""
    return max(1 / 255, float(setting["epsilon"]) / 255 / steps_of(setting))


def batches(setting, images, labels, attack):
    """Return an attack of all images, batch by batch."""
    size = int(setting["batch_size"])
    return lambda: np.concatenate(
        [np.asarray(attack(images[at : at + size], labels[at : at + size])) for at in range(0, len(images), size)]
    )


def plain(setting, model, images, labels, precision=None):
    """`attacks.PGD`, compiled; with a precision of half.PRECISIONS, the model computes in that."""
    import tensorflow as tf

    from sat_tf import attacks, losses, passes

    epsilon = float(setting["epsilon"]) / 255
    attack = attacks.PGD(epsilon=epsilon, step_size=step_size(setting), steps=steps_of(setting))
    attacked = passes.Backward(attack_precision=precision).view(model, "attack")

    @tf.function
    def run(images, labels):
        return attack(lambda x: losses.cross_entropy(attacked(x, training=False), labels), images, 0)

    return batches(setting, images, labels, lambda x, y: run(tf.constant(x), tf.constant(y)))


def foolbox(setting, model, images, labels):
    """`foolbox.attacks.LinfPGD`."""
    import foolbox
    import tensorflow as tf

    if not hasattr(np, "find_common_type"):  # eagerpy 0.30 asks for it, NumPy 2 has dropped it
        np.find_common_type = lambda arrays, scalars: np.result_type(*arrays, *scalars)
    bounded = foolbox.TensorFlowModel(model, bounds=(0, 1), device="/CPU:0")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=step_size(setting), steps=steps_of(setting), random_start=True)
    epsilon = float(setting["epsilon"]) / 255
    call = lambda x, y: attack(bounded, tf.constant(x), tf.constant(y), epsilons=epsilon)[1]  # noqa: E731
    return batches(setting, images, labels, call)


def art(setting, model, images, labels):
    """`art.attacks.evasion.ProjectedGradientDescent` on `TensorFlowV2Classifier`."""
    import tensorflow as tf
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    classes = model.output_shape[-1]
    classifier = TensorFlowV2Classifier(
        model=tf.function(lambda x, training=False: model(x, training=False)),
        nb_classes=classes,
        input_shape=images.shape[1:],
        clip_values=(0, 1),
        loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    attack = ProjectedGradientDescent(
        classifier,
        eps=float(setting["epsilon"]) / 255,
        eps_step=step_size(setting),
        max_iter=steps_of(setting),
        num_random_init=1,
        batch_size=int(setting["batch_size"]),
        verbose=False,
    )
    return lambda: attack.generate(images, np.eye(classes)[labels])


def cleverhans(setting, model, images, labels):
    """`cleverhans.tf2.attacks.projected_gradient_descent`."""
    import tensorflow as tf
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    def run(images, labels):
        return projected_gradient_descent(
            lambda x: model(x, training=False),
            tf.constant(images),
            float(setting["epsilon"]) / 255,
            step_size(setting),
            steps_of(setting),
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=tf.constant(labels, tf.int64),
            sanity_checks=False,
        )

    return batches(setting, images, labels, run)


def in_torch(setting, model, images, labels, make_attack):
    """Return an attack on the same network in PyTorch; `make_attack(network) -> (images, labels) -> images`."""
    import torch

    torch.set_num_threads(int(setting["threads"]))
    network = train_step.torch_network(model, images[:2]).requires_grad_(False)
    attack = make_attack(network)
    given = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    wanted = torch.from_numpy(labels.astype(np.int64))
    size = int(setting["batch_size"])

    def run():
        parts = [attack(given[at : at + size], wanted[at : at + size]) for at in range(0, len(given), size)]
        return torch.cat(parts).detach().permute(0, 2, 3, 1).numpy()

    return run


def torchattacks(setting, model, images, labels):
    """The attack of this name in torchattacks, with AutoAttack's settings."""
    import torchattacks

    epsilon, classes = float(setting["epsilon"]) / 255, model.output_shape[-1]

    def of(network):
        named = {
            "apgd-ce": lambda: torchattacks.APGD(network, eps=epsilon, steps=100),
            "apgd-t": lambda: torchattacks.APGDT(network, eps=epsilon, steps=100, n_classes=classes),
            "fab-t": lambda: torchattacks.FAB(
                network, eps=epsilon, steps=100, n_classes=classes, multi_targeted=True, alpha_max=0.1
            ),
            "square": lambda: torchattacks.Square(network, eps=epsilon, n_queries=5000),
            "autoattack": lambda: torchattacks.AutoAttack(network, eps=epsilon, n_classes=classes),
        }
        if setting["attack"] in named:
            return named[setting["attack"]]()
        return torchattacks.PGD(network, eps=epsilon, alpha=step_size(setting), steps=steps_of(setting))

    return in_torch(setting, model, images, labels, of)


def autoattack(setting, model, images, labels):
    """The authors' own code, of whose folder the path is given."""
    if not setting["autoattack_path"]:
        raise ImportError("give the folder of the authors' code by --autoattack_path")
    sys.path.insert(0, setting["autoattack_path"])
    from autoattack import AutoAttack

    if setting["attack"] not in ("autoattack", "apgd-ce", "apgd-t", "fab-t", "square"):
        raise ImportError(f"{setting['attack']} is not compared with autoattack")

    def of(network):
        epsilon = float(setting["epsilon"]) / 255
        made = AutoAttack(with_plain_images(network), norm="Linf", eps=epsilon, device="cpu", verbose=False)
        if setting["attack"] != "autoattack":
            made.attacks_to_run = [setting["attack"]]
        return lambda x, y: made.run_standard_evaluation(x, y, bs=int(setting["batch_size"]))

    return in_torch(setting, model, images, labels, of)


def with_plain_images(network):
    """Return a channels-last network whose images, and gradients to them, lie in memory as the authors' code asks."""
    import torch

    class Enter(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images):
            return images.contiguous(memory_format=torch.channels_last)

        @staticmethod
        def backward(ctx, gradient):
            return gradient.contiguous()

    class Entered(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(Enter.apply(images))

    return Entered()


LIBRARIES = {
    "sat_tf": evaluating(),
    "one_by_one": evaluating(side_by_side=False),
    "every_image": evaluating(final=True),
    "plain": plain,
    "plain_bfloat16": functools.partial(plain, precision="mixed_bfloat16"),
    "foolbox": foolbox,
    "art": art,
    "cleverhans": cleverhans,
    "torchattacks": torchattacks,
    "autoattack": autoattack,
}

if __name__ == "__main__":
    contest.main(__doc__, make, OPTIONS, "library")
