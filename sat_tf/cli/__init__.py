"""The command line, the same by `sat-tf`, `python -m sat_tf` and `python main.py`: flags to a recipe to experiment."""

import os
import pathlib
import shlex
import sys

import sat_tf
from sat_tf import interruption
from sat_tf.cli import help, jobs, parsing

STATUSES = {ValueError: 2, KeyboardInterrupt: 4}  # of what ends a command; 1 of all else
PROGRAMS = {"main.py": "python main.py", "__main__.py": "python -m sat_tf"}


def main(argv: list[str] | None = None) -> int:
    """Do what a command line says, and turn a user's mistake or a failure into one line on stderr.

    Args:
      argv: the program's name and its flags; None for those of this process.

    Returns:
      The exit status. 1: something failed; 2: the command is wrong; 3: an evaluation ended, and a check says that its
      number can't be trusted; 4: stopped on demand, by Ctrl-C or SIGTERM, and the same command goes on.
    """
    argv = sys.argv if argv is None else argv
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes; its errors come as exceptions
    try:
        with interruption.terminating_as_ctrl_c():
            status = _answer(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (ValueError, OSError, ArithmeticError, MemoryError, KeyboardInterrupt) as error:
        if "--traceback" in argv:
            raise
        print(str(error) or "Stopped.", file=sys.stderr)
        return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 1)
    return status


def _answer(argv):
    """Print what is asked for, or do the job; return the exit status."""
    given = parsing.parse(argv)
    program = PROGRAMS.get(pathlib.PurePath(argv[0]).name, "sat-tf")
    if given.version:
        print(f"sat-tf {sat_tf.__version__}")
    elif given.list is not None:
        print(help.listing(given.list))
    elif given.help:
        print(help.usage(program, parsing.job_of(given) if _names_a_job(given) else None))
    else:
        return jobs.run(given, shlex.join([*program.split(), *argv[1:]]))
    return 0


def _names_a_job(given):
    return any(given[name].present for name in ("mode", "plan", "experiment"))
