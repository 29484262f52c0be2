"""Runs side by side: what they find is what runs one after the other find, also stopped and gone on with."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from small_attacks import CLASSES, COUNT, EPSILON, assert_same, examples, model

from sat_tf import attacks, evaluate
from sat_tf.evaluate import active, attacker
from sat_tf.evaluate.work import Ended, Work


def end(place, run, fooled=False):
    """Return a run that has ended, told from others by its step."""
    return Ended(place, run, 10 * place + run, fooled, -1.0, np.full([2, 2, 3], place + run) if fooled else None, None)


def at_work(pairs, queue=()):
    work = Work(queue)
    work.places, work.runs = (np.array(column) for column in zip(*pairs, strict=True))
    work.state = {"fooled": np.zeros(len(pairs), bool)}
    return work


def ended(work, runs, *pairs, fooled=()):
    """End runs that are at work; return what is told of them."""
    for pair in pairs:
        slot = np.flatnonzero((work.places == pair[0]) & (work.runs == pair[1]))
        work.places[slot] = work.runs[slot] = -1
    return [(done.place, done.run) for done in work.settle([end(*pair, pair in fooled) for pair in pairs], runs)]


def test_runs_are_told_in_their_order():
    work = at_work([(7, 0), (7, 1), (7, 2), (3, 0)])
    assert ended(work, 5, (7, 2), (3, 0)) == [(3, 0)] and set(work.held) == {(7, 2)}
    assert list(work.queue) == [(7, 3), (3, 1)] and work.unbegun(5) == {7: 4, 3: 2} and work.left(5) == 2 + 2 + 1 + 3
    assert ended(work, 5, (7, 1)) == []
    assert ended(work, 5, (7, 0)) == [(7, 0), (7, 1), (7, 2)] and not work.held


def test_a_fooled_run_makes_later_ones_needless_and_waits_for_earlier_ones():
    work = at_work([(7, 0), (7, 1), (7, 2), (7, 3), (3, 0)], [(7, 4)])
    assert ended(work, 9, (7, 3)) == []
    assert ended(work, 9, (7, 1), fooled={(7, 1)}) == []
    assert set(work.held) == {(7, 1)} and not work.queue and work.unbegun(9) == {3: 1}
    assert work.places.tolist() == [7, -1, -1, -1, 3] and work.state["fooled"].tolist() == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert ended(work, 9, (7, 0)) == [(7, 0), (7, 1)] and not work.held and not work.queue

    work = at_work([(7, 0), (7, 1), (3, 0)])
    assert ended(work, 9, (7, 1), (7, 0), fooled={(7, 0), (7, 1)}) == [(7, 0)] and not work.held and work.left(9) == 9


def test_held_runs_outlive_a_stop():
    work = at_work([(7, 0), (3, 0), (3, 1)], [(9, 2)])
    work.fresh, work.limit = np.zeros(3, bool), 2
    work.held = {(7, 2): end(7, 2), (7, 3): end(7, 3, True)}
    again = Work.of_arrays({name: np.array(value) for name, value in work.arrays().items()})
    assert (list(again.queue), again.limit, again.unbegun(9)) == ([(9, 2)], 2, work.unbegun(9))
    assert list(again.held) == list(work.held) and again.held[7, 2] == work.held[7, 2]
    for one, other in zip(again.held[7, 3], work.held[7, 3], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(autouse=True)
def one_size_of_batches(monkeypatch):
    """Keep batches from shrinking: each size is one more trace."""
    monkeypatch.setattr(active, "SMALLEST", 10**6)


PLANS = {
    "ratios": {"steps": 8},
    "restarts": {"restarts": 5, "step_size": 0.004},
    "final": {"restarts": 5, "step_size": 0.004, "final": True},
    "targets": {},
}


@functools.cache
def found(name, side_by_side, size=64):
    """Return what an attack finds, and how many gradients of images it takes."""
    one = evaluate.Attacker(model, batch_size=size, seed=3, side_by_side=side_by_side)
    attack = {"restarts": "pgd-3", "final": "pgd-3", "targets": "fab-t", "ratios": "apgd-t"}[name]
    return one.attack(examples(), attack, epsilon=EPSILON, **PLANS[name])


@pytest.mark.parametrize("name", PLANS)
def test_side_by_side_finds_the_same_of_every_image(name, monkeypatch):
    monkeypatch.setattr(attacks.FAB, "steps", 5)
    first, other = found(name, False), found(name, True)
    assert_same(first, other, exact=False)
    last = first.stage == len(first.stages) - 1
    assert len(set(first.run[last].tolist())) > 1 and first.robust.any()  # several runs matter, and none is enough


def turns_of(size, side_by_side, stop=None):
    """Run targets in turns; return what ended, the batch of every turn, and the work at one that is stopped."""
    (stage,) = attacks.plan_of("tpgd-6", attacks.Terms(classes=CLASSES))
    running = active.ActiveSet(model, stage, "linf", size, side_by_side=side_by_side)
    logits = model(examples().images).numpy()
    chosen = attacker._Chosen(examples(), logits, stage, 0, 0)
    seen, batches = [], []

    class Stopped(Exception):
        pass

    def report(work, ends):
        seen.extend(ends)
        batches.append((work.places.tolist(), work.runs.tolist()))
        if len(batches) == stop:
            raise Stopped

    work = Work((place, 0) for place in range(COUNT) if place % 6)
    try:
        running.run(chosen, 0.015, 0.004, work, report)
    except Stopped:
        again = Work.of_arrays({name: np.array(value) for name, value in work.arrays().items()})
        running.run(chosen, 0.015, 0.004, again, report)
    return seen, batches


def test_a_stop_at_any_turn_changes_nothing(monkeypatch):
    monkeypatch.setattr(active, "LONGEST", 1)
    whole, batches = turns_of(24, True)
    assert len(batches) > 12 and any(len(set(places)) < len(places) for places, _ in batches)
    for stop in range(1, len(batches), 5):
        seen, again = turns_of(24, True, stop)
        assert again == batches
        for one, other in zip(seen, whole, strict=True):
            for value, expected in zip(one, other, strict=True):
                np.testing.assert_array_equal(value, expected)


def test_places_are_filled(monkeypatch):
    monkeypatch.setattr(active, "SMALLEST", 4)
    (_, alone), (_, filled) = turns_of(128, False), turns_of(128, True)
    counts = lambda batches: sum(len(places) for places, _ in batches)  # noqa: E731
    assert max(len(places) for places, _ in alone) < 64 < max(len(places) for places, _ in filled) == 128
    assert len(filled) < len(alone) / 2 and counts(filled) < 1.5 * counts(alone)


@pytest.mark.parametrize(
    "runs, size", [(1, 4), (37, 50), (52, 71), (100, 100), (150, 50), (243, 50), (333, 71), (1745, 100), (2000, 100)]
)
def test_batches_leave_few_places_free(runs, size):
    assert active.fitting([4, 5, 7, 9, 13, 18, 25, 36, 50, 71, 100], runs) == size
    assert active.fitting([7], runs) == 7


def attacked_in_turns(monkeypatch, saved):
    """Return what ends of a long PGD, and the sizes of its batches; a smaller one has to save so many evaluations."""
    monkeypatch.setattr(active, "SMALLEST", 4)
    monkeypatch.setattr(active, "SAVED", saved)
    (stage,) = attacks.plan_of("pgd-60", attacks.Terms(classes=CLASSES))
    running = active.ActiveSet(model, stage, "linf", 24)
    chosen = attacker._Chosen(examples(), model(examples().images).numpy(), stage, 0, 0)
    seen, sizes = {}, []

    def report(work, ends):
        seen.update({end.place: end for end in ends})
        sizes.append((len(work.places), work.busy))

    running.run(chosen, 0.008, 0.002, Work((place, 0) for place in range(COUNT) if place % 6), report)
    return seen, sizes


def test_a_batch_shrinks_where_that_saves_more_than_its_trace(monkeypatch):
    (rarely, few), (readily, many) = (attacked_in_turns(monkeypatch, saved) for saved in (10**9, 100))
    used = [list(dict.fromkeys(size for size, _ in sizes)) for sizes in (few, many)]
    assert all(sizes == sorted(sizes, reverse=True) for sizes in used)
    assert all(after <= before // 4 for before, after in itertools.pairwise(used[0]))
    assert any(after > before // 4 for before, after in itertools.pairwise(used[1])) and len(used[1]) <= 4
    assert sum(size for size, _ in many) < sum(size for size, _ in few)
    assert rarely.keys() == readily.keys() and 0 < sum(end.fooled for end in rarely.values()) < len(rarely)
    for place, end in rarely.items():
        assert (end.step, end.fooled) == (readily[place].step, readily[place].fooled)


@pytest.mark.parametrize("count, steps, size", [(17, 60, 24), (17, 400, 17), (24, 400, 24), (90, 400, 24)])
def test_a_long_attack_begins_without_free_places(count, steps, size):
    (stage,) = attacks.plan_of(f"pgd-{steps}", attacks.Terms(classes=CLASSES))
    assert active.ActiveSet(model, stage, "linf", 24)._first(count) == size


def test_a_first_batch_of_several_replicas_is_one_that_they_share(two_replicas):
    (stage,) = attacks.plan_of("square", attacks.Terms(classes=CLASSES))
    assert active.ActiveSet(model, stage, "linf", 24, strategy=two_replicas)._first(13) == 14


@pytest.mark.autograph
def test_a_model_of_python_is_attacked_as_one_of_tensorflow():
    def branching(images):
        return model(images) if tf.reduce_any(images > 2) else model(images) + 1.0  # which AutoGraph alone can trace

    stages = [
        evaluate.Attacker(each, batch_size=64, seed=3).attack(examples(), "pgd-3", epsilon=EPSILON).stage.tolist()
        for each in (branching, model)
    ]
    assert stages[0] == stages[1]
