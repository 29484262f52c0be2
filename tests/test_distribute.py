"""Clusters from flags, TF_CONFIG and Slurm; how processes meet; strategies; precision; two worker processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_methods import attack_of, loop_of, make, network, small_batch

from sat_tf import cli, half, methods, models, optim, passes, train
from sat_tf.distribute import channel, cluster, precision, strategies, team

ROOT = pathlib.Path(__file__).parents[1]
TWO = ("a:7000", "b:7000")


# Who trains together.


def tf_config(index=0, kind="worker", **jobs):
    jobs = jobs or {"worker": list(TWO)}
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def slurm(rank=0, node=0, local=0, nodes="node[09-10]", counts="1(x2)", job="123"):
    names = ("PROCID", "NODEID", "LOCALID", "STEP_NODELIST", "STEP_TASKS_PER_NODE", "JOB_ID")
    return {f"SLURM_{n}": str(v) for n, v in zip(names, (rank, node, local, nodes, counts, job), strict=True)}


@pytest.mark.parametrize(
    "environment,workers,index",
    [
        (tf_config(1), TWO, 1),
        (tf_config("1"), TWO, 1),
        (tf_config(0, chief=["c:1"], worker=["w:1", "w:2"]), ("c:1", "w:1", "w:2"), 1),
        (tf_config(0, "chief", chief=["c:1"], worker=["w:1", "w:2"]), ("c:1", "w:1", "w:2"), 0),
        (slurm(1, 1), ("node09:20123", "node10:20123"), 1),
        (slurm(2, 1, 0, "n[2,10]", "2(x2)"), ("n2:20123", "n2:20124", "n10:20123", "n10:20124"), 2),
    ],
)
def test_a_cluster_of_the_environment(environment, workers, index):
    found = cluster.find("multiworker", environment)
    assert (found.workers, found.index, found.is_chief) == (workers, index, index == 0)


def test_what_auto_takes():
    assert cluster.find("auto", {}) is None
    assert cluster.find("auto", tf_config(1)).size == 2
    assert cluster.find("auto", tf_config(0, worker=["a:1"])) is None  # as platforms set it for a single machine
    assert cluster.find("auto", slurm()) is None  # a step of Slurm's may hold trainings that do not know each other
    assert cluster.find("auto", {}, workers=TWO, index=1).index == 1
    assert cluster.find("multiworker", tf_config(0), workers=("x:1", "y:1"), index=1).workers == ("x:1", "y:1")
    assert cluster.find("one", tf_config(0)) is None and cluster.find("tpu", {}, tpu="local") is None


@pytest.mark.parametrize(
    "strategy,environment,flags,says",
    [
        ("multi", {}, {}, "Expected strategy of auto, one, mirrored, multiworker, tpu"),
        ("multiworker", {}, {}, "Expected --workers=host:port,host:port and --worker_index=i, TF_CONFIG, or a start"),
        ("multiworker", {}, {"workers": TWO}, "Expected --workers with --worker_index, which of them"),
        ("multiworker", {}, {"index": 0}, "Expected --worker_index with --workers, host:port"),
        ("multiworker", {}, {"workers": TWO, "index": 2}, "worker index from 0 to 1 in --workers. Received: 2"),
        ("multiworker", {}, {"workers": ("a:7000", "a:7000"), "index": 0}, "every worker once"),
        ("multiworker", {}, {"workers": ("a", "b"), "index": 0}, "host:port,host:port in --workers. Received: 'a'"),
        ("multiworker", {}, {"workers": ("a:70000",), "index": 0}, "Received: 'a:70000'"),
        ("multiworker", {}, {"workers": (), "index": 0}, "one worker or more"),
        ("mirrored", {}, {"workers": TWO, "index": 0}, "--workers with --strategy=multiworker"),
        ("mirrored", {}, {"tpu": "local"}, "--tpu with --strategy=tpu"),
        ("auto", {}, {"tpu": "local", "workers": TWO, "index": 0}, "--workers or --tpu"),
        ("tpu", {}, {"tpu": ""}, "--tpu=local or the name"),
        ("multiworker", {"TF_CONFIG": "{"}, {}, "Expected JSON such as"),
        ("multiworker", {"TF_CONFIG": "[]"}, {}, "Expected a TF_CONFIG such as"),
        ("multiworker", {"TF_CONFIG": '{"cluster": {"worker": [1]}}'}, {}, "Expected a TF_CONFIG such as"),
        ("multiworker", tf_config(2), {}, "one of its 2 workers. Received: worker 2"),
        ("auto", tf_config(-1), {}, "Received: worker -1"),
        ("multiworker", tf_config(0, "ps", worker=["a:1"], ps=["b:1"]), {}, "chief and worker alone. Received: ps"),
        ("multiworker", {"SLURM_PROCID": "0"}, {}, "Write srun -N4 --ntasks-per-node=1"),
        ("multiworker", slurm(counts="1"), {}, "2 nodes in SLURM_STEP_NODELIST, 1 numbers"),
        ("multiworker", slurm(counts="1(2)"), {}, "numbers such as 1"),
        ("multiworker", slurm(nodes="n[a-b]"), {}, "a list of nodes"),
        ("multiworker", slurm("x"), {}, "whole number in SLURM_PROCID"),
        ("multiworker", slurm(1, 1, 0, "n[1-2]", "2(x2)"), {}, "--distribution=block"),
    ],
)
def test_what_is_no_cluster_is_said_in_a_sentence(strategy, environment, flags, says):
    with pytest.raises(ValueError) as error:
        cluster.find(strategy, environment, **flags)
    assert says in str(error.value) and "Received" in str(error.value) and "\n" not in str(error.value)


def test_hosts_and_counts_of_slurm():
    assert cluster.expand_hosts("a[01-03,7]-ib,login") == ["a01-ib", "a02-ib", "a03-ib", "a7-ib", "login"]
    assert cluster.expand_hosts("r[1-2]n[1-2]") == ["r1n1", "r1n2", "r2n1", "r2n2"]
    assert cluster.expand_counts("2(x3),1") == [2, 2, 2, 1]


def test_a_batch_that_does_not_split():
    cluster.check_batch(64, 4)
    with pytest.raises(ValueError, match="multiple of the 4 workers. Received: batch_size=63. The nearest below is 60"):
        cluster.check_batch(63, 4)
    with pytest.raises(ValueError, match="The smallest is 4"):
        cluster.check_batch(3, 4)


# How they meet.


def addresses(count):
    """Return free addresses of this machine."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return tuple(f"localhost:{port}" for port in ports)


def met(count, work, meanings=None, patience=20.0, present=None, workers=None):
    """Run `work(team)` in a thread a process; return by index what it returns or raises."""
    workers, results = workers or addresses(count), {}

    def run(index):
        mine = cluster.Cluster(workers=workers, index=index)
        meaning = (meanings or [{}] * count)[index]
        try:
            with channel.Channel.opened(mine, meaning, patience) as opened:
                results[index] = work(team.Team(channel=opened))
        except (OSError, ValueError, KeyError) as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in present or range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_processes_tell_each_other_everything():
    def work(mates):
        told = mates.all_of({"index": mates.index})
        summed = mates.summed([mates.index, 10])
        chief = mates.from_chief(lambda: ["from", mates.index])
        arrays = mates.exchange({"a": np.full([2, mates.index], mates.index, np.float32)})
        variable = tf.Variable([float(mates.index + 5)])
        mates.share([variable])
        return told, summed, chief, [each["a"].shape for each in arrays], variable.numpy().tolist()

    found = met(3, work)
    told = [{"index": 0}, {"index": 1}, {"index": 2}]
    expected = told, [3, 30], ["from", 0], [(2, 0), (2, 1), (2, 2)], [5.0]
    assert found == {0: expected, 1: expected, 2: expected}


def test_alone_one_tells_oneself(tmp_path):
    alone = team.ALONE
    assert (alone.size, alone.index, alone.is_chief) == (1, 0, True)
    assert alone.all_of([1]) == [[1]] and alone.summed([2, 3]) == [2, 3] and alone.from_chief(lambda: 4) == 4
    with alone.writing(tmp_path) as folder:
        assert folder == tmp_path


def test_only_the_chief_writes_where_it_is_said(tmp_path):
    def work(mates):
        with mates.writing(tmp_path / "run") as folder:
            folder.mkdir(exist_ok=True)
            (folder / f"by-{mates.index}").touch()
        return folder

    found = met(2, work)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["by-0"]
    assert found[0] == tmp_path / "run" and not found[1].exists()


def test_whoever_fails_tells_the_others_why():
    def work(mates):
        if mates.index == 1:
            raise ValueError("The disk of this one is gone.")
        return mates.all_of(0)

    found = met(3, work)
    assert str(found[1]) == "The disk of this one is gone."
    for index in (0, 2):
        assert isinstance(found[index], OSError) and "Stopped with worker" in str(found[index])
        assert "The disk of this one is gone." in str(found[index])


ALONE = """
import sys, time
from sat_tf.distribute import channel, cluster
channel.LOOK, channel.GRACE = 0.1, 0.3
index, workers = int(sys.argv[1]), tuple(sys.argv[2].split(","))
with channel.Channel.opened(cluster.Cluster(workers=workers, index=index)):
    print("met", flush=True)
    time.sleep(60)  # as a collective waits for one that is gone
"""


def test_a_killed_worker_ends_those_that_wait_for_it():
    workers = ",".join(addresses(3))
    command = [sys.executable, "-c", ALONE]
    started = [
        subprocess.Popen(
            [*command, str(i), workers], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(3)
    ]
    try:
        assert [process.stdout.readline() for process in started] == ["met\n"] * 3
        started[2].kill()
        for process in started[:2]:
            _, said = process.communicate(timeout=30)
            assert process.returncode == 1 and "Stopped with worker 2 (localhost:" in said and "which is gone" in said
    finally:
        for process in started:
            process.kill()


def test_who_waits_for_one_hears_of_another_that_is_gone(monkeypatch):
    """Worker 1 waits for worker 2 in a collective, which fails and names nobody; the chief waits for worker 1."""
    monkeypatch.setattr(channel, "LOOK", 0.1)
    ended = threading.Event()

    def work(mates):
        if mates.index == 0:
            return mates.all_of(0)
        if mates.index == 1:
            ended.wait(10)
            raise OSError("TensorFlow failed: Connection reset by peer") from tf.errors.UnavailableError(None, None, "")
        mates.channel.peers[0].close()  # as the system does for a process that was killed
        ended.set()
        mates.channel.peers.clear()
        raise KeyError

    found = met(3, work)
    for index in (0, 1):
        assert isinstance(found[index], OSError)
        assert str(found[index]).startswith("Stopped with worker 2 (localhost:") and "which is gone" in str(
            found[index]
        )


def test_what_is_missing_or_other_is_named():
    found = met(3, lambda mates: None, patience=1.0, present=(0, 1))
    assert "Expected all 3 workers. Received: no word of worker 2 (localhost:" in str(found[0])
    assert "no word of worker 2" in str(found[1])
    found = met(2, lambda mates: None, patience=0.5, present=(1,))
    assert "Expected an answer of worker 0 (localhost:" in str(found[1])
    meanings = [{"batch_size": 64, "seed": 0}, {"batch_size": 32, "seed": 0}]
    for error in met(2, lambda mates: None, meanings).values():
        assert isinstance(error, ValueError) and "Expected the same batch_size everywhere. Received: 32" in str(error)
    with socket.create_server(("localhost", 0)) as taken:
        workers = (f"localhost:{taken.getsockname()[1]}", *addresses(1))
        found = met(2, lambda mates: None, patience=0.5, present=(0,), workers=workers)
    assert "Expected a free port for worker 0" in str(found[0])


def test_strangers_do_not_matter():
    workers = addresses(2)

    def knock():
        host, _, port = workers[0].rpartition(":")
        for _ in range(100):
            try:
                with socket.create_connection((host, int(port)), 1) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                return
            except OSError:
                threading.Event().wait(0.05)

    knocking = threading.Thread(target=knock)
    knocking.start()
    assert met(2, lambda mates: mates.all_of(mates.index), workers=workers) == {0: [0, 1], 1: [0, 1]}
    knocking.join()


# Strategies.


def test_strategies_by_name(two_replicas):
    assert strategies.strategy_of("one").num_replicas_in_sync == 1
    assert strategies.strategy_of("auto").num_replicas_in_sync == 1  # two CPU devices are no reason
    assert strategies.strategy_of("mirrored") is two_replicas
    assert strategies.team() is team.ALONE


def test_a_tpu_that_is_not_there():
    with pytest.raises(ValueError, match="Expected a TPU on this machine with --tpu=local. Received: none"):
        strategies.prepare("tpu", tpu="local")
    (address,) = addresses(1)
    with pytest.raises(ValueError, match=f"an address that answers with --tpu=grpc://{address}"):
        strategies.prepare("tpu", tpu=f"grpc://{address}")


def test_who_ends_before_tensorflow_connects_is_named(monkeypatch):
    """TensorFlow would wait for it for ever."""
    monkeypatch.setattr(strategies, "_state", dict(strategies._state))
    monkeypatch.setattr(strategies, "_multiworker", lambda cluster: pytest.fail("it connects"))

    def work(mates):
        if mates.index == 0:
            mates.channel.peers[1].close()  # as the system does for a process that was killed
            mates.channel.peers.clear()
            raise KeyError
        strategies.prepare("multiworker", channel=mates.channel)

    error = met(2, work)[1]
    assert isinstance(error, OSError) and "Stopped with worker 0 (localhost:" in str(error), error


HANGING = """
import ctypes
from sat_tf.distribute import strategies
with strategies.ending_after(60, "too early"):
    pass
with strategies.ending_after(0.5, "It hangs."):
    ctypes.PyDLL(None).sleep(60)  # which keeps Python's lock, as TensorFlow does where it connects
"""


def test_a_process_that_hangs_with_pythons_lock_is_ended():
    done = subprocess.run([sys.executable, "-c", HANGING], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == -9 and done.stderr.strip().splitlines()[-1] == "It hangs."


def test_workers_that_have_not_met(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(0)["TF_CONFIG"])
    with pytest.raises(ValueError, match="Expected the 2 workers to have met"):
        strategies.strategy_of("multiworker")


def test_gpus_that_tensorflow_does_not_see(tmp_path, monkeypatch):
    assert strategies.unseen_gpu(tmp_path, {}) is None
    driver = tmp_path / "proc/driver/nvidia/version"
    driver.parent.mkdir(parents=True)
    driver.touch()
    assert strategies.unseen_gpu(tmp_path, {}).startswith("no GPU seen: NVIDIA's driver is here")
    assert strategies.unseen_gpu(tmp_path, {"CUDA_VISIBLE_DEVICES": "-1"}) is None
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    assert strategies.unseen_gpu(tmp_path, {}) is None


# Precision.


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_computes_in_a_precision_and_back_again(name):
    images = tf.random.stateless_uniform([4, 16, 16, 3], [0, 1])
    model = models.build("resnet8-w8", "swish", 10)
    exact = model(images, training=False).numpy()
    with half.computing_in(model, name):
        short = model(images, training=False)
    keras.config.set_dtype_policy(name)
    try:
        twin = models.build("resnet8-w8", "swish", 10)
    finally:
        keras.config.set_dtype_policy("float32")
    twin.set_weights(model.get_weights())
    twin.get_layer("scale").dtype_policy = "float32"  # 2 x - 1 of an image has more digits than half precision
    np.testing.assert_array_equal(short, twin(images, training=False))  # as if it had been built so
    assert 0 < np.abs(short - exact).max() < 0.05
    np.testing.assert_array_equal(model(images, training=False), exact)
    assert all(variable.dtype == "float32" for variable in model.variables)


def test_tensor_float_32_is_off_for_as_long():
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = enabled()
    with precision.exactly():
        assert not enabled()
    assert enabled() == before


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_trains_in_float16_as_in_float32(name):
    """Losses of a few steps on a small network, whose loss scale must not be seen in them."""
    images, labels = small_batch(size=8)
    # TRADES' attack begins where the divergence has no gradient but half precision's rounding.
    backward = passes.Backward(attack_precision="float32" if name.startswith("trades") else None)
    losses = {}
    for kind in ("float32", "mixed_float16"):
        model = network()
        half.compute_in(model, kind)
        method = make(name, attack_of(random_start=False), backward=backward)
        loop = loop_of(method, model, size=8, rate=0.05, weight_decay=0.1)
        optimizer = precision.scaled(loop.state.optimizer, kind)
        if kind != "float32":
            optimizer.build(model.trainable_variables)
            optimizer.dynamic_scale.assign(2.0**10)  # at which nothing overflows here
            loop = train.Loop(
                **{**vars(loop), "state": train.TrainState(**{**vars(loop.state), "optimizer": optimizer})}
            )
        losses[kind] = [float(loop.step(images, labels)["loss"]) for _ in range(3)]
        assert loop.state.step == 3
    np.testing.assert_allclose(losses["mixed_float16"], losses["float32"], rtol=0.06)


def updating(strategy):
    """Return a weight, its optimizer with a loss scale, and `step(value)`: one replica's gradient is `value` times."""
    with strategy.scope():
        weight = keras.Variable([1.0], name="kernel")
        optimizer = precision.scaled(optim.sgd(lambda step: tf.constant(0.5), momentum=0.0), "mixed_float16")
        optimizer.build([weight])

    def update(value):
        last = tf.distribute.get_replica_context().replica_id_in_sync_group == strategy.num_replicas_in_sync - 1
        scaled = optimizer.scale_loss(tf.constant([1.0])) / strategy.num_replicas_in_sync
        optimizer.apply([tf.where(last, value * scaled, scaled)], [weight])

    return weight, optimizer, tf.function(lambda value: strategy.run(update, args=(value,)))


def test_a_step_that_overflows_changes_nothing_and_counts(two_replicas):
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        weight, optimizer, step = updating(strategy)
        for value, expected in ((1.0, 0.5), (float("inf"), 0.5), (1.0, 0.0)):
            step(tf.constant(value))
            np.testing.assert_allclose(weight.numpy(), [expected], atol=1e-6)
        assert optimizer.iterations.numpy() == 3 and optimizer.dynamic_scale.numpy() == 2.0**14


def test_signs_of_tiny_float16_gradients_do_not_vanish_in_training_attacks():
    """A model so sure of its images that the gradients to its float16 logits are less than float16 can hold."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(8), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    images = tf.random.stateless_uniform([8, 4, 4, 3], [0, 1], 0.2, 0.8)
    logits = model(images).numpy()
    labels, top = tf.constant(logits.argmax(-1), tf.int32), np.sort(logits, -1)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 18 / np.median(top[:, -1] - top[:, -2]))
    moved = {}
    for kind in ("float32", "mixed_float16"):
        half.compute_in(model, kind)
        method = methods.sat(attack_of(steps=1, random_start=False))
        moved[kind] = method.perturb(model, images, labels, tf.constant(0), tf.constant([0, 1])) - images
        assert passes.OWN.view(model, "update") is model
    same = np.sign(moved["mixed_float16"]) == np.sign(moved["float32"])
    assert same.mean() > 0.95 and (moved["mixed_float16"].numpy() != 0).mean() > 0.95


# Several processes. Each imports TensorFlow, so there are few of these.

RUN = {
    "model": "resnet2-w8",
    "dataset": "synthetic",
    "image_size": 8,
    "epochs": 1,
    "batch_size": 16,
    "validation": 41,
    "eval_attacks": "clean,apgd-3",
    "validation_attack": "pgd-1",
    "eval_images": 11,
    "eval_batch_size": 8,
    "steps_per_call": 1,
    "synchronized_norm": "true",
}


EVALUATION = {"eval_attacks": ("clean", "pgd-2", "autoattack"), "eval_images": 20, "eval_checks": 0}
PROGRAM = f"""
import sys
from sat_tf import cli, experiment
train = experiment.train
def both(recipe, model_dir, **options):
    train(recipe, model_dir, **options)
    experiment.evaluate({EVALUATION}, model_dir=model_dir)  # as --mode=eval does, in the same processes
experiment.train = both
sys.exit(cli.main(["main.py", *sys.argv[1:]]))
"""


def started(model_dir, *flags):
    """Start a training by the command line, and an evaluation, in a process of one thread; what it says in a file."""
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    with open(f"{model_dir}-{len(flags)}-{flags[-1][-1:]}.txt", "w", encoding="utf-8") as file:
        settings = [word for name, value in RUN.items() for word in ("--set", f"{name}={value}")]
        command = [sys.executable, "-c", PROGRAM, *settings, f"--model_dir={model_dir}", *flags]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)


def losses_of(model_dir):
    """Return the loss of every step that a run wrote down."""
    found = {}
    for file in sorted(pathlib.Path(model_dir, "tensorboard").glob("events*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "train/loss":
                    found[event.step] = float(tf.make_ndarray(value.tensor))
    return [found[step] for step in sorted(found)]


def test_two_processes_train_and_evaluate_as_one(tmp_path):
    workers = ",".join(addresses(2))
    processes = [
        started(tmp_path / "two", "--strategy=multiworker", f"--workers={workers}", f"--worker_index={index}")
        for index in range(2)
    ]
    try:
        assert [process.wait(300) for process in processes] == [0, 0], (tmp_path / "two-3-0.txt").read_text()[-2000:]
        processes.append(started(tmp_path / "one", "--strategy=one"))
        assert processes[-1].wait(300) == 0
    finally:
        for process in processes:
            process.kill()
    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert len(one) == len(two) == 22
    np.testing.assert_allclose(two, one, atol=1e-5)
    for folder, count in ((".", 11), ("evaluations/001", 20)):
        reports = [json.loads((tmp_path / name / folder / "report.json").read_text()) for name in ("one", "two")]
        rows = [[(row["attack"], row["correct"], row["count"]) for row in each["evaluations"]] for each in reports]
        assert rows[0] == rows[1] and {row[2] for row in rows[0]} == {count}
        assert reports[1]["machine"]["hosts"] == "2" and reports[1]["machine"]["replicas"] == "2"
        tables = [(tmp_path / name / folder / "images.csv").read_text().splitlines() for name in ("one", "two")]
        fooled = [[line.split(",")[:5] for line in table] for table in tables]
        assert fooled[0] == fooled[1] and len(fooled[0]) == 1 + count * (len(rows[0]) - 1)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["one", "two"]


# The command line.

WRONG = [
    (["--strategy=multiworkers"], "Did you mean multiworker?"),
    (["--strategy=multiworker"], "Expected --workers=host:port,host:port and --worker_index=i"),
    (["--workers=a:1,b:1"], "Expected --workers with --worker_index"),
    (["--workers=a:1,b:1", "--worker_index=2"], "worker index from 0 to 1"),
    (["--workers=a:1,b:1", "--worker_index=-1"], "a whole number of at least 0"),
    (["--workers=a:1,b:1,c:1", "--worker_index=1"], "multiple of the 3 workers. Received: batch_size=128"),
    (["--workers=", "--worker_index=0"], "one worker or more"),
    (["--strategy=one", "--tpu=local"], "--tpu with --strategy=tpu"),
    (["--precision=bfloat16"], "Did you mean mixed_bfloat16?"),
    (["--jit_compile=true"], "one of auto, on, off"),
    (["--mode=export", "--workers=a:1", "--worker_index=0"], "Expected --workers with --mode=train or eval"),
]


@pytest.mark.parametrize("flags,says", WRONG, ids=lambda value: "".join(value)[:40])
def test_wrong_commands_are_one_line_before_any_work(flags, says, tmp_path, monkeypatch, capsys):
    for name in ("TF_CONFIG", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["main.py", *flags]) == 2
    line = capsys.readouterr().err.strip()
    assert says in line and "\n" not in line and "Received" in line
    assert list(tmp_path.iterdir()) == []


def test_workers_that_do_not_come_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(channel, "PATIENCE", 0.5)
    monkeypatch.chdir(tmp_path)
    workers = f"--workers={','.join(addresses(2))}"
    assert cli.main(["main.py", workers, "--worker_index=0"]) == 1
    assert "no word of worker 1 (localhost:" in capsys.readouterr().err
    assert cli.main(["main.py", workers, "--worker_index=1"]) == 1
    assert "Expected an answer of worker 0 (localhost:" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
