"""How a training step's time and memory grow: with network, replicas, accumulated parts, resolution, or `remat`.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --model=resnet20 --replicas=1,2 --compare=replicas
    python benchmarks/scaling.py --model=resnet20 --accumulate_steps=1,2,4 --compare=accumulate_steps
    python benchmarks/scaling.py --model=resnet50 --image_size=96 --batch_size=128 --remat=false,true --compare=remat

Replicas are devices of this machine's one processor, which they share: a ratio of 1 means that they cost nothing. Parts
are of a batch whose size does not change.
"""

import contest
import numpy as np
import train_step

OPTIONS = {
    "model": "efficientnet-b0,efficientnet-b1,efficientnet-b2,efficientnet-b3,efficientnet-b4",
    "replicas": "1",
    "accumulate_steps": "1",
    "remat": "false",
    "method": "sat",
    "act": "swish",
    "image_size": "0",
    "batch_size": "8",
}


def make(setting):
    """Return a step of one batch over some replicas."""
    import tensorflow as tf

    from sat_tf import attacks, data, methods, models, optim, train
    from sat_tf.distribute import strategies

    count, size = int(setting["replicas"]), int(setting["batch_size"])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    names = tuple(device.name for device in tf.config.list_logical_devices("CPU"))
    strategy = strategies.mirrored(names) if count > 1 else tf.distribute.get_strategy()
    side = int(setting["image_size"]) or models.image_size(setting["model"])
    rng = np.random.default_rng(0)
    images = rng.random((size, side, side, 3), np.float32)
    labels = rng.integers(0, train_step.CLASSES, size).astype(np.int32)
    epsilon = train_step.EPSILON
    with strategy.scope():
        model = train_step.weighted(models.build(setting["model"], setting["act"], train_step.CLASSES, dropout=0.0))
        optimizer = optim.sgd(lambda step: tf.constant(1e-3), momentum=0.9)
        optimizer.build(model.trainable_variables)
    loop = train.Loop(
        state=train.TrainState(model=model, optimizer=optimizer),
        method=methods.METHODS[setting["method"]](attacks.PGD(epsilon=epsilon, step_size=epsilon, steps=1)),
        strategy=strategy,
        batch_size=size,
        accumulate_steps=int(setting["accumulate_steps"]),
        remat=setting["remat"] == "true",
    )

    def batches(context):
        batch = tf.data.Dataset.from_tensors((images, labels)).repeat()
        return data.one_replica_each(batch, context.num_replicas_in_sync)

    iterator, steps = iter(strategy.distribute_datasets_from_function(batches)), loop.compile()
    steps(iterator, tf.constant(2))
    return lambda: steps(iterator, tf.constant(1))


if __name__ == "__main__":
    contest.main(__doc__, make, OPTIONS, "model")
