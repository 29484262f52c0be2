"""A killed evaluation goes on where its state was saved last, and ends as one that was never killed."""

import os
import signal

import forks
import numpy as np
import pytest
import small_attacks
from small_attacks import COUNT, EPSILON, assert_same, examples, model

from sat_tf import attacks, evaluate
from sat_tf.evaluate import active, attacker
from sat_tf.evaluate.store import Store


class Killed(Exception):
    pass


class Killing(Store):
    """A store whose n-th save ends the run, after it or before."""

    def __init__(self, folder, number, before=False, end=None):
        super().__init__(folder)
        self.number, self.before, self.end, self.saves = number, before, end, 0

    def save(self, arrays, work):
        self.saves += 1
        if self.saves == self.number and self.before:
            raise Killed
        super().save(arrays, work)
        if self.saves == self.number:
            if self.end:
                self.end()
            raise Killed


def always_saving():
    """Let the state be saved after every turn, and turns be short."""
    attacker.EVERY, attacker.SHARE, active.LONGEST = -1.0, 1e9, 5
    attacks.ATTACKS["short"] = attacks.Attack(small_attacks.short_plan)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(attacker, "EVERY", -1.0)
    monkeypatch.setattr(attacker, "SHARE", 1e9)
    monkeypatch.setattr(active, "LONGEST", 5)
    monkeypatch.setitem(attacks.ATTACKS, "short", attacks.Attack(small_attacks.short_plan))


def fresh():
    return evaluate.Attacker(model, batch_size=8, seed=3)


@pytest.fixture(scope="module")
def shared():
    """Return one attacker, which saves the time of compiling; nothing of a run stays in it."""
    return fresh()


@pytest.fixture
def uninterrupted(shared):
    return attack(shared)


def attack(one, store=None, **kwargs):
    return one.attack(examples(), "short", epsilon=EPSILON, store=store, **kwargs)


@pytest.mark.parametrize("number,before", [(1, False), (2, False), (5, False), (2, True), (4, True)])
def test_killed_again_and_again(shared, uninterrupted, tmp_path, number, before):
    for times in range(1, 1000):  # noqa: B007
        store = Killing(tmp_path, number, before)
        try:
            result = attack(shared, store)
            break
        except Killed:
            continue
    assert times > 30 / number
    assert_same(result, uninterrupted)


def test_resumed_by_another_process_s_attacker(shared, uninterrupted, tmp_path):
    for number in (3, 12):
        with pytest.raises(Killed):
            attack(shared, Killing(tmp_path / str(number), number))
        told = []
        assert_same(attack(fresh(), Store(tmp_path / str(number)), progress=told.append), uninterrupted)
        assert sum(told) == pytest.approx(COUNT) and told[0] > 0


def kill_in_the_middle(folder):
    always_saving()
    attack(fresh(), Killing(folder, 8, end=lambda: os.kill(os.getpid(), signal.SIGKILL)))


def test_killed_for_real(uninterrupted, tmp_path):
    assert forks.call(kill_in_the_middle, tmp_path) == -signal.SIGKILL
    store = Store(tmp_path)
    seconds = float(store.load()["seconds"])
    result = attack(fresh(), store)
    assert_same(result, uninterrupted, exact=False)
    assert result.seconds > seconds > 0


def test_a_finished_run_is_read_and_not_run_again(shared, uninterrupted, tmp_path):
    first = attack(shared, Store(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adversarial.npy", "state.npz"]
    second_store, told = Killing(tmp_path, 1), []
    second = attack(shared, second_store, progress=told.append)
    for result in (first, second):
        assert_same(result, uninterrupted)
    assert sum(told) == COUNT and second_store.saves == 0


def test_a_curve_of_radii_is_resumed(shared, tmp_path):
    before = shared.attack(examples(), "short", epsilon=0.02)
    whole = attack(shared, before=before)
    with pytest.raises(Killed):
        attack(shared, Killing(tmp_path, 4), before=before)
    assert_same(attack(shared, Store(tmp_path), before=before), whole)


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "not a zip": lambda content: b"x" * 100,
    "a bit": lambda content: content[:300] + bytes([content[300] ^ 255]) + content[301:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_a_sentence(shared, tmp_path, damage):
    with pytest.raises(Killed):
        attack(shared, Killing(tmp_path, 1))
    file = tmp_path / "state.npz"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(OSError, match=r"state.npz is damaged: .* Remove .* to begin this attack again\."):
        attack(shared, Store(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "other images"])
def test_damaged_adversarial_images_are_a_sentence(shared, uninterrupted, tmp_path, damage):
    with pytest.raises(Killed):
        attack(shared, Killing(tmp_path, 3))
    file = tmp_path / "adversarial.npy"
    if damage == "missing":
        file.unlink()
    elif damage == "other images":
        np.save(file, np.zeros([2, 6, 6, 3], np.float32))
    else:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(OSError, match=r"adversarial.npy .* Remove .* to begin this attack again\."):
        attack(shared, Store(tmp_path))
    (tmp_path / "state.npz").unlink()  # nothing was saved: what lies there does not matter
    assert_same(attack(shared, Store(tmp_path)), uninterrupted)
