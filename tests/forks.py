"""Programs run in processes that are forked from one which has imported TensorFlow, and done nothing with it."""

import multiprocessing
import os
import pathlib
import runpy
import sys

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["sat_tf.experiment"])


def run(program, *words, cwd, folder):
    """Run a program as Python would, without the seconds that its imports take.

    Args:
        program: path of a file, or name of a module (`python -m`).
        *words: the words behind it.
        cwd: folder to run it in.
        folder: where its stdout and stderr are kept, as files 1 and 2.

    Returns:
        Exit status, stdout, stderr.
    """
    status = call(_be, program, words, cwd, folder)
    return status, *((pathlib.Path(folder) / number).read_text() for number in "12")


def call(function, *arguments):
    """Call a module's function; return the exit status of its process, below zero for what a signal has ended."""
    process = _CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def _be(program, words, cwd, folder):
    for number in (1, 2):
        os.dup2(os.open(os.path.join(folder, str(number)), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [str(program), *map(str, words)]
    os.chdir(cwd)
    if isinstance(program, pathlib.Path):
        sys.path.insert(0, str(program.parent))
        runpy.run_path(str(program), run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
