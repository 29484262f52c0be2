"""The real command line: instant answers, one line for every mistake, the documented commands, Ctrl-C."""

import functools
import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import forks
import pytest

import sat_tf
from sat_tf import cli, hparams
from sat_tf.cli import flags, help, jobs, parsing

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    "--model=resnet8-w8",
    "--dataset=synthetic",
    "--epochs=1",
    "--set",
    "validation=40",
    "--set",
    "validation_attack=pgd-1",
    "--eval_attacks=clean,pgd-2",
]
NOISE = ("oneDNN", "cuda", "retracing", "Sharding")  # of TensorFlow's log


def run(*flags, cwd, **kwargs):
    """Run main.py in a process of its own; return its exit status, stdout and stderr."""
    done = subprocess.run([sys.executable, ROOT / "main.py", *flags], cwd=cwd, capture_output=True, text=True, **kwargs)
    return done.returncode, done.stdout, done.stderr


def assert_one_line(status, err, wanted_status, says):
    assert status == wanted_status, err
    assert len(err.strip().splitlines()) == 1, err
    assert says in err and "Traceback" not in err


@pytest.fixture(scope="module")
def instant(tmp_path_factory):
    """Return an environment in which what takes seconds to import can't be imported."""
    folder = tmp_path_factory.mktemp("instant")
    for name in ("tensorflow", "keras", "numpy", "matplotlib"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """Return `run` in processes that are forked from one which has imported TensorFlow, and done nothing with it."""
    return functools.partial(forks.run, ROOT / "main.py", folder=tmp_path_factory.mktemp("warm"))


@pytest.fixture
def answer(capsys, monkeypatch, tmp_path):
    """Return a function from flags to exit status, stdout and stderr, in this process; TensorFlow is out of reach."""

    def unreachable():
        raise AssertionError("it got as far as importing TensorFlow")

    monkeypatch.setattr(jobs, "quiet_start", unreachable)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        status = cli.main(["sat-tf", *words])
        return (status, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    "flag,says",
    [
        ("--help", "--eval_attacks"),
        ("-h", "main.py"),
        ("--list", "smoothrelu"),
        ("--list=attacks", "pgd-k"),
        ("--version", f"sat-tf {sat_tf.__version__}"),
    ],
)
def test_help_list_and_version_answer_at_once(flag, says, tmp_path, instant):
    status, out, err = run(flag, cwd=tmp_path, env=instant)
    assert (status, err) == (0, "") and says in out


def test_three_names_of_one_program(tmp_path):
    program = pathlib.Path(sys.executable).with_name("sat-tf")
    assert program.exists(), "install the checkout: pip install -e ."
    answers = {}
    for name, start in {"python main.py": [sys.executable, ROOT / "main.py"], "sat-tf": [program]}.items():
        done = subprocess.run([*start, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True)
        answers[name] = done.stdout
    module = subprocess.run([sys.executable, "-m", "sat_tf", "--help"], capture_output=True, text=True, cwd=ROOT)
    answers["python -m sat_tf"] = module.stdout
    for name, text in answers.items():
        assert f"usage: {name} " in text and f"  {name} --model=resnet20 --act=swish" in text
        assert text.partition(help.END)[0].replace(name, "sat-tf") == answers["sat-tf"].partition(help.END)[0]


def test_help_is_grouped_by_job_and_names_every_flag_once(answer):
    status, out, _ = answer("--help")
    titles = [group.title for group in help.GROUPS.values()]
    places = [out.index(f"\n{title}:") for title in titles]
    assert status == 0 and places == sorted(places) and len(places) == 9
    shown = re.findall(r"^  --(\w+) ", out, re.MULTILINE)
    assert sorted(shown) == sorted(flags.FLAGS)
    assert set(help.GROUPS) == {flag.group for flag in flags.FLAGS.values()}
    assert set(jobs.JOBS) | {"experiment"} == set(flags.JOBS)


@pytest.mark.parametrize("job", flags.JOBS)
def test_help_of_a_job_shows_what_it_takes_and_only_that(job, answer):
    asked = {"experiment": "--experiment=table1", "plan": "--plan"}.get(job, f"--mode={job}")
    status, out, _ = answer(asked, "--help")
    shown = re.findall(r"^  --(\w+) ", out, re.MULTILINE)
    assert status == 0 and sorted(shown) == sorted(name for name, flag in flags.FLAGS.items() if job in flag.jobs)


@pytest.mark.parametrize("job", flags.JOBS)
def test_a_job_refuses_what_its_help_does_not_show(job, answer):
    """Or compares it with the checkpoint, where it repeats how that was trained."""
    start = {"experiment": "--experiment=table1", "plan": "--plan"}.get(job, f"--mode={job}")
    for name, flag in flags.FLAGS.items():
        field = parsing.EVALUATION_NAMES.get(flag.field, flag.field)
        compared = job in flags.OPENING and field and field not in hparams.EVALUATION_FIELDS
        if job in flag.jobs or compared or name in ("mode", "plan", "experiment"):
            continue
        status, _, err = answer(start, f"--{name}" if flag.default is False else f"--{name}=1/2")
        assert status == 2 and (f"--{name}" in err or flag.read), err


@pytest.mark.parametrize("wanted", ["attacks", "attack", "Attacks"])
def test_one_table_is_listed(wanted, answer):
    _, everything, _ = answer("--list")
    for words in (["--list", wanted], [f"--list={wanted}"]):
        status, out, _ = answer(*words)
        assert status == 0 and out.startswith("attacks:\n") and "  pgd-k " in out and "  square " in out
        assert "autoattack" in out and "resnet20" not in out and out.strip() in everything
    assert answer("--list", "data_sets")[1] == answer("--list", "datasets")[1] == answer("--list=data set")[1]
    for title in help.sections():
        assert (
            answer("--list", title)[1].startswith(title.split()[-1] + ":")
            or f"{title}:\n" in answer("--list", title)[1]
        )
    status, _, err = answer("--list=attcks")
    assert status == 2 and "Did you mean attacks?" in err
    assert answer("--list", "--version")[0] == 0


@pytest.mark.parametrize(
    "words,says",
    [
        (["--model=resnet51"], "Did you mean resnet50"),
        (["--act=swich"], "Did you mean swish"),
        (["--dataset=cifar"], "Did you mean cifar10"),
        (["--set", "epoch=3"], "Did you mean epochs"),
        (["--epsilon=8"], "write 8/255"),
        (["--epochs=-1"], "epochs=-1"),
        (["--batch_size=0"], "batch_size=0"),
        (["--modle=x"], "Did you mean"),
        (["train"], "Received: train"),
        (["--mode=trian"], "train|eval|verify"),
        (["--set", "epochs"], "field=value"),
        (["--recipe=fasion"], "Did you mean fashion"),
        (["--mode=compare"], "--runs=DIR,DIR"),
        (["--runs=a,b"], "--mode=compare"),
        (["--checkpoint=x"], "--mode=eval"),
        (["--plan", "--mode=eval"], "--mode=train"),
        (["--images_per_second=3"], "--plan"),
        (["--mode=eval", "--set", "epoch=3"], "Did you mean epochs"),
        (["--mode=eval", "--eval_weights=ema"], "one of raw"),
        (["--eval_attacks=pgd"], "pgd-k"),
        (["--mode=verify"], "--adversarial=FILE"),
        (["--mode=merge"], "--parts"),
        (["--parts=a"], "--mode=merge"),
        (["--mode=eval", "--shard=5/4"], "1/4"),
        (["--subset=x"], "--mode=eval"),
        (["--mode=eval", "--norm=l3"], "linf"),
        (["--mode=eval", "--eval_attacks=autoatack"], "Did you mean autoattack"),
        (["--set", "validation_attack=square"], "an attack for training"),
        (["--seed=1.5"], "whole number"),
        (["--learning_rate=0.1"], "is a field of the recipe: --set learning_rate=0.1"),
        (["--momentum", "0.8"], "is a field of the recipe: --set momentum=0.8"),
        (["--held_out=5"], "Did you mean --set validation=5"),
        (["--lr=0.1"], "Did you mean --set learning_rate=0.1"),
        (["--eps=8/255"], "Did you mean --epsilon=8/255"),
        (["--eval-attacks=clean"], "Did you mean --eval_attacks=clean"),
        (["--modle=resnet20"], "Did you mean --model=resnet20"),
        (["--evaluate"], "Did you mean --mode=eval"),
        (["--mode=evaluate"], "Did you mean eval"),
        (["--mode=test"], "Did you mean eval"),
        (["--experiment=table1", "--seeds=0"], "at least 1"),
        (["--scale=medium"], "paper|small|long"),
        (["--force=perhaps"], "--force=perhaps"),
        (["--images_per_second=x"], "a number"),
        (["--experiment=table9"], "table1"),
        (["--experiment=table1", "--model_dir=x"], "--mode=train"),
        (["--experiment=figure2", "--seeds=3"], "--results_dir only"),
        (["--mode=download", "--checkpoint=x"], "released:NAME"),
        (["--mode=export", "--format=tflite"], "litert"),
        (["--mode=eval", "--recipe=fashion"], "--mode=train"),
    ],
)
def test_usage_errors_are_one_line_at_once(words, says, tmp_path, instant):
    status, out, err = run(*words, cwd=tmp_path, env=instant)
    assert_one_line(status, err, 2, says)
    assert out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["active_set", "noactive_set", "no_force", "no_random_start", "no_nesterov"])
def test_no_suggestion_is_the_opposite(name, answer):
    """What begins with no is answered by what switches off, or by nothing."""
    _, _, err = answer(f"--{name}")
    meant = re.findall(r"Did you mean (.*)\?", err)
    off = name.startswith("no")
    for words in meant:
        assert (words.startswith("--no") or words.endswith("=false")) == off, err


def wrong_commands():
    """Yield command lines of which each has a mistake: names, values, flags that do not go together, words."""
    values = ["", "x", "-1", "1e999", "nan", "8", "1/0", "=", "a=b", "--", "\N{SNOWMAN}", "0/0/0", ",", ":", "x" * 999]
    numbers = ["epochs", "batch_size", "attack_steps", "seed", "restarts", "epsilon", "step_size"]
    wrong = [value for value in values if value != "8"]
    yield from (
        [f"--{name}={value}"] for name, value in itertools.product(numbers, wrong) if (name, value) != ("step_size", "")
    )
    names = ["model", "act", "method", "dataset", "recipe", "eval_attacks", "norm", "mode", "scale", "attack_backward"]
    named = [value for value in values if value]
    yield from (
        [f"--{name}={value}"]
        for name, value in itertools.product(names, named)
        if (name, value) != ("eval_attacks", ",")
    )
    yield from (
        [f"--{name[:place]}{letter}{name[place + 1 :]}=1"]
        for name in flags.FLAGS
        for place in (1, -2)
        for letter in "qx"
        if name[place] != letter
    )
    yield from (
        [f"--mode={job}", f"--{name}=1/2"] for job in ("merge", "download") for name in ("model", "act", "radii")
    )
    yield from (
        [word] for word in ("train", "-", "--", "-x", "--=", "---", "--set", "--set=", "--set==", "--flagfile=none")
    )
    yield from (["--set", f"{field}={value}"] for field in ("learning_rate", "nosuch", "") for value in ("x", "", "-1"))


def test_hundreds_of_wrong_command_lines_are_one_line_each(answer):
    commands = [words for words in wrong_commands() if words != ["--"] and words != ["--="]]
    assert len(commands) >= 300
    for words in commands:
        status, out, err = answer(*words)
        assert status == 2 and out == "", (words, err)
        assert len(err.strip().splitlines()) == 1 and "Traceback" not in err, (words, err)


@pytest.mark.parametrize(
    "words,wanted,says",
    [
        (["--mode=eval", "--model_dir=none"], 1, "looked for none/state.json, none/checkpoints/best and none/best"),
        (["--mode=export", "--model_dir=empty"], 1, "Train first, or name another --model_dir or --checkpoint."),
        (["--mode=convert"], 1, "looked for runs/resnet20-swish-sat-fashion_mnist_12k-seed0/state.json"),
        (["--dataset=folder", "--data_dir=none"], 1, "There is no folder none: data_dir must be one that holds"),
        (["--plan", "--dataset=folder", "--data_dir=file"], 1, "There is no folder file"),
        (["--extra_data=file"], 2, "--set extra_share=0.7, with --extra_data=file"),
        (["--set", "extra_share=0.5"], 2, "Expected --extra_data=FILE.npz"),
        (["--method=p-sat", "--set", "lambda_end=0.2"], 2, "a schedule that reaches 1 within the 7 epochs"),
        (
            ["--checkpoint_dir=released"],
            2,
            "with --init=released:NAME, whose files lie there. Received: --checkpoint_dir",
        ),
    ],
)
def test_what_is_not_there_is_said_at_once(words, wanted, says, answer, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    status, out, err = answer(*words)
    assert_one_line(status, err, wanted, says)
    assert out == "" and sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    "words",
    [
        ["--dataset=folder", "--data_dir=~"],
        ["--mode=eval", "--model_dir=weights.ckpt"],
        ["--mode=eval", "--model_dir=weights.ckpt.index"],
        ["--mode=eval", "--model_dir=none.pth"],
    ],
)
def test_what_may_be_there_is_looked_at_later(words, answer, tmp_path):
    (tmp_path / "weights.ckpt.index").write_text("")
    with pytest.raises(AssertionError, match="it got as far as importing TensorFlow"):
        answer(*words)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'main.py'))} --list | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "models:\n" and done.stderr == ""


def test_failures_are_one_line(tmp_path, warm):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    cases = [
        (["--dataset=folder", "--data_dir=none"], 1, "none"),
        (["--dataset=folder", "--data_dir=empty"], None, "empty"),
        (["--dataset=cifar10", "--data_dir=empty"], 1, "cifar10"),
        (["--dataset=synthetic", "--model_dir=file/run"], 1, "model_dir=file/run"),
        (["--dataset=synthetic", "--batch_size=5000"], 2, "batch_size=5000"),
        (["--mode=eval", "--model_dir=none"], 1, "looked for"),
    ]
    for words, wanted, says in cases:
        status, _, err = warm(*words, cwd=tmp_path)
        assert_one_line(status, err, wanted or status, says)
        assert status in (1, 2)


def test_train_interrupt_resume_eval_export(tmp_path, warm):
    """A first epoch is stopped by Ctrl-C; the same command goes on, says so, and its last lines name every result."""
    flags = [*TINY, "--model_dir=run", "--set", "steps_per_call=1", "--epochs=3"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "main.py", *flags],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    seen = ""
    while "training:" not in seen:  # from here on Ctrl-C is a request to stop
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 4 and "Traceback" not in err
    assert "Stopped at step" in err.strip().splitlines()[-1] and "same command" in err

    assert not any(noise in err for noise in NOISE)

    status, out, err = warm(*flags, cwd=tmp_path)
    assert status == 0, err
    assert "Going on from step" in err
    lines = out.strip().splitlines()
    assert lines[0].startswith("clean accuracy: ") and lines[1].startswith("PGD-2 accuracy (epsilon 8/255")
    for line, name in zip(lines[2:], ("report", "per image", "figures", "checkpoint", "TensorBoard logs"), strict=True):
        assert line.startswith(f"{name}: ") and (tmp_path / line.partition(": ")[2]).exists()
    assert not any(noise in err for noise in NOISE)

    evaluate = ["--mode=eval", "--model_dir=run", "--eval_attacks=clean,fgsm", "--epsilon=4/255"]
    evaluate += ["--set", "eval_checks=0"]
    status, out, err = warm(*evaluate, cwd=tmp_path)
    assert status == 0 and "FGSM accuracy (epsilon 4/255" in out, err
    status, out, err = warm("--mode=export", "--model_dir=run", cwd=tmp_path)
    assert status == 0 and "saved_model: run/export/step-" in out, err
    assert_one_line(*warm("--mode=export", "--model_dir=run", cwd=tmp_path)[::2], 1, "exists")
    assert_one_line(*warm(*flags, "--act=relu", cwd=tmp_path)[::2], 2, "act: swish there, relu here")
    assert_one_line(*warm("--mode=eval", "--model_dir=run", "--act=relu", cwd=tmp_path)[::2], 2, "relu here")


def test_averaged_weights_from_the_command_line(tmp_path, warm):
    """Evaluation and export take what the run keeps, without its recipe being repeated."""
    flags = [*TINY, "--model_dir=run", "--set", "average_decay=0.9", "--set", "policy=randaugment:10"]
    flags += ["--set", "eval_checks=0"]
    status, _, err = warm(*flags, cwd=tmp_path)
    assert status == 0, err
    for mode, more in (("eval", ["--set", "eval_checks=0"]), ("export", [])):
        status, out, err = warm(f"--mode={mode}", "--model_dir=run", "--eval_weights=averaged", *more, cwd=tmp_path)
        assert status == 0, err
    assert "weights: averaged (decay 0.9)" in out
    status, out, err = warm("--plan", *TINY, "--images_per_second=100", cwd=tmp_path)
    assert status == 0 and "accelerator-minutes:" in out and sorted(p.name for p in tmp_path.iterdir()) == ["run"], err


def documented_commands():
    """Return the flags of every command in the README, the documentation and the help text."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages] + [help.usage("sat-tf")]
    found = re.findall(
        r"(?:python main\.py|python -m sat_tf|sat-tf)((?: --?[\w=./,:*'-]+(?: \w+=[^\s`]+)?)+)", "\n".join(texts)
    )
    return sorted({command.strip() for command in found})


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_are_right(command, tmp_path, monkeypatch):
    """Every command that README, documentation or help shows passes the checks and makes a recipe."""
    monkeypatch.chdir(tmp_path)
    for folder, recipe in {"DIR": hparams.choose({}), "RUN": hparams.get("resnet50")}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    given = parsing.parse(["sat-tf", *shlex.split(command)])
    if given.help or given.version or given.list is not None:
        return
    cli.checks.check(given)
    changes = parsing.changes_of(given)
    recipe = hparams.choose(changes, given.recipe) if given.mode == "train" else hparams.read(changes)
    assert recipe or not changes


def test_folders_of_runs_that_start_elsewhere(tmp_path):
    tuned, own = hparams.choose({"init": "released:efficientnet-lite0"}), hparams.choose({"model": "a/my.keras"})
    assert jobs.default_model_dir(tuned).as_posix() == "runs/efficientnet-lite0-finetuned-swish-sat-folder-seed0"
    assert jobs.default_model_dir(own).as_posix() == "runs/my-own-sat-folder-seed0"


def test_a_network_that_is_opened_without_a_run(tmp_path):
    """A file always; what a function builds only where no run of it is."""
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    for model, folder, opened in [
        ("my.keras", "run", True),
        ("keras:MobileNetV2", "run", True),
        ("my.py:build", "none", True),
        ("my.py:build", "run", False),
        ("resnet20", "none", False),
    ]:
        assert jobs.network_to_open({"model": model}, tmp_path / folder) == (model if opened else None)


@pytest.mark.parametrize(
    "words,says",
    [
        (
            ["--init=nowhere"],
            "Expected a run's folder, released:NAME, FILE.keras or keras:NAME. Received: init=nowhere",
        ),
        (["--init=none.keras"], "There is no file none.keras."),
        (["--model=my.py"], "Expected FILE.py:FUNCTION, the function that builds the network."),
        (["--freeze=backbone"], "Expected weights to keep, by --init, with --freeze=backbone."),
        (["--mode=eval", "--model=my.keras", "--act=swish"], "Expected no --act with such a model."),
        (["--pretrained=imagenet"], "Did you mean --init=imagenet?"),
    ],
)
def test_weights_and_networks_that_can_not_be_are_refused_at_once(answer, words, says):
    status, _, err = answer(*words)
    assert status in (1, 2) and says in err and err.count("\n") == 1
