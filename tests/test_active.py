"""Attacks from a queue: the same result whatever the batch and the replicas, every image once, few traces."""

import functools

import numpy as np
import pytest
import small_attacks
import tensorflow as tf
from small_attacks import CLASSES, COUNT, EPSILON, assert_same, examples, model

from sat_tf import attacks, evaluate
from sat_tf.evaluate import active, attacker, results, work


@pytest.fixture(autouse=True)
def short_plan(monkeypatch):
    monkeypatch.setitem(attacks.ATTACKS, "short", attacks.Attack(small_attacks.short_plan))


@functools.cache
def attacker_of(size, strategy=None):
    return evaluate.Attacker(model, batch_size=size, strategy=strategy, seed=3)


def attacked(size=16, name="short", strategy=None, epsilon=EPSILON, chosen=slice(None), **kwargs):
    return attacker_of(size, strategy).attack(examples().take(chosen), name, epsilon=epsilon, **kwargs)


def test_the_result_depends_neither_on_batch_nor_on_replicas(two_replicas):
    first = attacked(16)
    counts = [first.left(stage) for stage in first.stages]
    assert 0 < counts[2] < counts[1] < counts[0] < COUNT - 7, counts  # something for everyone
    for size, strategy in ((7, None), (100, None), (16, two_replicas)):
        assert_same(first, attacked(size, strategy=strategy), exact=False)


def test_a_image_s_result_depends_on_its_id_and_not_on_its_place():
    first, chosen = attacked(16), np.random.default_rng(2).permutation(COUNT)[:20]
    some = attacked(16, chosen=chosen)
    for name in ("ids", "stage", "run", "step"):
        np.testing.assert_array_equal(getattr(some, name), getattr(first, name)[chosen])
    np.testing.assert_allclose(some.adversarial, first.adversarial[chosen], atol=1e-6)


def test_another_seed_is_another_run():
    other = evaluate.Attacker(model, batch_size=16, seed=4)
    first, second = (one.attack(examples(), "noise", epsilon=EPSILON, steps=2) for one in (attacker_of(16), other))
    assert (first.margin != second.margin)[
        first.stage != results.MISCLASSIFIED
    ].mean() > 0.5  # others met no smaller one


def test_misclassified_images_are_not_attacked_and_the_report_is_consistent():
    result, images = attacked(16), examples().images
    misclassified = np.arange(COUNT) % 6 == 0
    np.testing.assert_array_equal(result.stage == results.MISCLASSIFIED, misclassified)
    np.testing.assert_array_equal(result.predictions != result.labels, misclassified)
    fooled = result.stage >= 0
    for name in ("run", "step"):
        assert (getattr(result, name)[fooled] >= 0).all() and (getattr(result, name)[~fooled] == -1).all()
    assert not result.adversarial[~fooled].any() and not result.distance[~fooled].any()
    np.testing.assert_array_equal(result.margin[misclassified], result.clean_margin[misclassified])
    assert (result.margin <= result.clean_margin).all()
    np.testing.assert_array_equal(result.margin < 0, fooled | misclassified)
    exact = np.abs(result.adversarial.astype(np.float64) - images).max((1, 2, 3))
    np.testing.assert_array_equal(result.distance[fooled], exact[fooled])
    assert 0 < exact[fooled].max() <= EPSILON
    left = model(result.attacked(images)).numpy().argmax(-1) == result.labels
    np.testing.assert_array_equal(left, result.robust)
    assert result.robust_accuracy == left.mean() and result.clean_accuracy == (~misclassified).mean()


@pytest.mark.parametrize("size, side_by_side", [(8, True), (64, True), (64, False)])
def test_every_image_ends_once_a_run(size, side_by_side):
    (stage,) = attacks.plan_of("pgd-3", attacks.Terms(classes=CLASSES, restarts=3))
    running = active.ActiveSet(model, stage, "linf", size, side_by_side=side_by_side)
    chosen = attacker._Chosen(examples(), attacker_of(16).logits(examples().images), stage, 0, 0)
    places, seen, busiest = [place for place in range(COUNT) if place % 6], [], []

    def report(left, ended):
        seen.extend(ended)
        busiest.append(left.busy)
        pairs = [*left.queue, *left._working(), *left.held]
        finished = {end.place for end in seen if end.fooled or end.run == 2}
        assert len(set(pairs)) == len(pairs)  # nothing is twice there, nothing lost
        assert sorted({place for place, _ in pairs} | finished) == places
        assert not {place for place, _ in pairs} & finished
        assert side_by_side or len(pairs) == len({place for place, _ in pairs})

    running.run(chosen, 0.015, 0.005, work.Work((place, 0) for place in places), report)
    runs = {place: [end for end in seen if end.place == place] for place in places}
    for ends in runs.values():
        assert [end.run for end in ends] == list(range(len(ends)))
        assert not any(end.fooled for end in ends[:-1]) and (ends[-1].fooled or len(ends) == 3)
        assert all((end.adversarial is None) != end.fooled for end in ends)
        assert all(end.step == 3 or end.fooled for end in ends) and all(0 <= end.step <= 3 for end in ends)
    assert {len(ends) for ends in runs.values()} >= {1, 3}
    assert len(seen) == sum(map(len, runs.values())) and max(busiest) <= size


def test_targets_are_the_most_likely_other_classes_and_seeds_differ():
    logits = np.random.default_rng(0).normal(size=[COUNT, CLASSES]).astype(np.float32)
    (stage,) = attacks.plan_of("tpgd-3", attacks.Terms(classes=CLASSES))
    assert stage.runs == CLASSES - 1 and stage.facts["targets"] == CLASSES - 1
    chosen = attacker._Chosen(examples(), logits, stage, 0, 0)
    for row, label, targets in zip(logits, examples().labels, chosen.targets, strict=True):
        assert targets.tolist() == [k for k in np.argsort(-row) if k != label]
    pairs = np.concatenate(
        [attacker._Chosen(examples(), logits, stage, 0, seed).seeds.reshape(-1, 2) for seed in (0, 1)]
    )
    assert len(np.unique(pairs, axis=0)) == len(pairs) == 2 * COUNT * (CLASSES - 1)
    (stage,) = attacks.plan_of("apgd-t", attacks.Terms(classes=CLASSES))
    seeds = np.concatenate(
        [
            attacker._Chosen(examples(), logits, stage, number, seed).seeds.ravel()
            for number in (0, 1)
            for seed in (0, 1)
        ]
    )
    assert len(np.unique(seeds)) == seeds.size == 4 * COUNT * stage.runs


def test_one_trace_a_size_and_none_for_another_radius():
    one = attacker_of(16, None)
    attacked(16)
    before = {stage: kept.traces for stage, kept in one._actives.items()}
    assert all(0 < kept.traces <= len(kept.sizes) for kept in one._actives.values())
    for epsilon, step_size in ((0.01, None), (0.03, 0.01)):
        attacked(16, epsilon=epsilon, step_size=step_size)
    assert all(kept.traces <= len(kept.sizes) for kept in one._actives.values())
    assert sum(kept.traces for kept in one._actives.values()) <= sum(before.values()) + 3  # sizes not met before


def test_a_larger_ball_breaks_what_a_smaller_one_breaks():
    before, robust = None, []
    for epsilon in (0.0, 0.01, 0.02, 0.04):
        result = attacked(16, epsilon=epsilon, before=before)
        if before is not None:
            held = before.stage >= 0
            np.testing.assert_array_equal(result.stage[held], before.stage[held])
            np.testing.assert_array_equal(result.adversarial[held], before.adversarial[held])
            assert not (result.robust & ~before.robust).any() and (result.margin <= before.margin).all()
            assert result.distance.max() <= epsilon
        robust.append(result.robust_accuracy)
        before = result
    assert robust[0] == before.clean_accuracy and robust == sorted(robust, reverse=True) and robust[-1] < robust[1]


@pytest.mark.parametrize("size", [7, 16, 100])
def test_progress_adds_up(size):
    told = []
    attacked(size, progress=told.append)
    assert sum(told) == pytest.approx(COUNT, abs=1e-9) and len(told) > 5 and max(told) < COUNT


def test_the_final_iterate_and_the_worst_differ_in_one_program():
    one = evaluate.Attacker(model, batch_size=7, seed=3)
    worst, final = (
        one.attack(examples(), "pgd-4", epsilon=0.03, step_size=0.03, final=final) for final in (False, True)
    )
    fooled = final.stage >= 0
    assert (final.step[fooled] == 4).all() and (worst.step[worst.stage >= 0] < 4).any()
    assert (worst.stage[fooled] >= 0).all()
    longer = one.attack(examples(), "pgd-9", epsilon=0.03, step_size=0.03, final=True)
    assert longer.marks == (1, 2, 5, 9) and longer.wrong.shape == (COUNT, 4) and final.wrong.shape == (COUNT, 3)
    np.testing.assert_array_equal(longer.wrong[:, :2], final.wrong[:, :2])
    assert (longer.step[longer.stage >= 0] == 9).all()
    assert len(one._actives) == 3 and [len(turns) for turns in one._programs.values()] == [len(one._programs["pgd"])]
    assert sum(kept.traces for kept in one._actives.values()) == len(one._programs["pgd"])


def test_what_a_result_says():
    stage, step = np.array([-2, -1, 0, 1, 1, 0]), np.array([-1, -1, 3, 0, 7, 10])
    zeros = np.zeros(6)
    result = evaluate.Result(
        attack="a",
        norm="linf",
        epsilon=0.1,
        step_size=0.1,
        stages=("one", "two"),
        facts={},
        ids=np.arange(6),
        labels=np.arange(6),
        predictions=np.array([9, 1, 2, 3, 4, 5]),
        clean_margin=zeros,
        stage=stage,
        run=step,
        step=step,
        margin=zeros,
        distance=zeros,
        adversarial=np.ones([6, 2, 2, 3], np.float32),
        marks=(0, 3, 9, 10),
        wrong=np.zeros([6, 4], bool),
        slots=np.arange(6),
    )
    assert result.fooled_by.tolist() == ["clean", "", "one", "two", "two", "one"]
    assert (result.left("one"), result.left("two")) == (3, 1)
    assert result.robust_accuracy == 1 / 6 and result.clean_accuracy == 5 / 6
    assert result.by_step == {0: 4 / 6, 3: 3 / 6, 9: 2 / 6, 10: 1 / 6}
    assert result.attacked(np.zeros([6, 2, 2, 3]))[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 1, 1]
    row = result.table()[3]
    assert row == {
        "id": 3,
        "label": 3,
        "clean_prediction": 3,
        "fooled_by": "two",
        "run": 0,
        "step": 0,
        "margin": 0.0,
        "clean_margin": 0.0,
        "distance": 0.0,
    }


def test_by_step_of_a_run_never_rises():
    result = attacked(16, name="pgd-8", step_size=0.01)
    shares = list(result.by_step.values())
    assert list(result.by_step) == [1, 2, 5, 8] and shares == sorted(shares, reverse=True)
    assert shares[-1] == result.robust_accuracy <= shares[0]


@pytest.mark.parametrize("classes", [2, 3, 4, 12])
def test_losses_and_targets_by_the_number_of_classes(classes):
    stages = attacks.plan_of("autoattack", attacks.Terms(classes=classes))
    assert [stage.name for stage in stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    runs = min(9, classes - 1)
    assert [stage.runs for stage in stages] == [1, runs if classes > 3 else 1, runs, 1]
    logits = np.random.default_rng(0).normal(size=[6, classes])
    labels, targets = np.arange(6) % classes, (np.arange(6) + 1) % classes
    rows = np.arange(6)
    top = -np.sort(-logits)
    others = logits.copy()
    others[rows, labels] = -np.inf
    margin = others.max(1) - logits[rows, labels]
    towards = logits[rows, targets] - logits[rows, labels]
    wanted = {2: lambda: margin, 3: lambda: margin / (top[:, 0] - top[:, 2])}.get(
        classes, lambda: towards / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2)
    )()
    arguments = tf.constant(logits, tf.float32), tf.constant(labels, tf.int32), tf.constant(targets, tf.int32)
    for stage, expected in ((stages[1], wanted), (stages[2], towards), (stages[3], margin)):
        np.testing.assert_allclose(stage.loss(*arguments), expected, rtol=1e-4)
    words = {2: "margin, for 2 classes", 3: "untargeted dlr, for 3 classes"}
    assert stages[1].facts["loss"] == words.get(classes, "targeted dlr")


@pytest.mark.parametrize("classes,norm", [(2, "linf"), (2, "l2"), (3, "l2"), (4, "linf")])
def test_attacks_on_few_classes_find_the_distance_of_a_linear_model(classes, norm):
    rng = np.random.default_rng(classes)
    weights = rng.normal(size=[108, classes])
    linear = lambda x: tf.reshape(x - 0.5, [-1, 108]) @ tf.constant(weights, tf.float32)  # noqa: E731
    images = rng.uniform(0.4, 0.6, [24, 6, 6, 3]).astype(np.float32)
    logits = linear(images).numpy()
    labels = logits.argmax(-1).astype(np.int32)
    pairs = weights[:, :, None] - weights[:, None]
    dual = np.abs(pairs).sum(0) if norm == "linf" else np.sqrt((pairs**2).sum(0))
    gaps = logits[np.arange(24), labels][:, None] - logits
    distance = np.where(gaps > 0, gaps / np.maximum(dual[labels], 1e-9), np.inf).min(1)
    order = np.sort(distance)
    epsilon = (order[11] + order[12]) / 2
    clear = np.abs(distance / epsilon - 1) > 0.02
    given = evaluate.Examples(images=images, labels=labels, ids=np.arange(24))
    one = evaluate.Attacker(linear, norm=norm, batch_size=24)
    for name in ("apgd-t", "fab-t"):
        result = one.attack(given, name, epsilon=epsilon)
        missed = (result.robust != (distance > epsilon))[clear]
        assert missed.sum() <= (name == "apgd-t" and classes == 3)  # the untargeted ratio has maxima that break nothing
        assert result.robust[clear & (distance > epsilon)].all()


@pytest.mark.parametrize("name", ["pgd", "pgd-0", "pgd-x", "nothing", "square-10", "", "-5"])
def test_unknown_attacks(name):
    with pytest.raises(ValueError, match=r"Expected an attack of .* Received: attack="):
        attacks.plan_of(name, attacks.Terms(classes=10))


def test_other_mistakes():
    with pytest.raises(ValueError, match="Expected a norm of linf, l2"):
        evaluate.Attacker(model, norm="l1")
    with pytest.raises(ValueError, match="two classes or more"):
        evaluate.Attacker(lambda x: tf.zeros([len(x), 1])).logits(np.zeros([2, 6, 6, 3]))
    with pytest.raises(ValueError, match="with n labels and n ids"):
        evaluate.Examples(images=np.zeros([2, 6, 6, 3]), labels=np.zeros(2), ids=np.zeros(3))


@pytest.mark.parametrize("most", (1, 2, 3, 4, 7, 100, 257))
def test_a_batch_fits_what_there_is_to_do(most):
    sizes = active.ladder(most)
    assert sizes == sorted(set(sizes)) and sizes[-1] == most and sizes[0] >= min(4, most)
    for count in range(5, most):  # at most two places in seven are free, but for rounding
        assert next(size for size in sizes if size >= count) <= 1.42 * count + 1


def test_a_batch_begins_as_large_as_its_work():
    one = evaluate.Attacker(model, batch_size=100, seed=3, side_by_side=False)
    one.attack(examples(), "short", epsilon=EPSILON)
    turns = [pair for kept in one._actives.values() for pair in kept._turns.items()]
    used = {size for size, turn in turns if turn.experimental_get_tracing_count()}
    assert used and max(used) <= 1.42 * COUNT + 1 < 100
