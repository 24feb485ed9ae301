"""Fresh Pythons: what is imported first is imported once for all of them."""

import os
import pickle
import subprocess
import sys
from typing import NamedTuple

# Reads (code, environments), and answers with (returncode, stdout, stderr) of a child for each environment.
CHILDREN = """
import os, pickle, sys, tempfile, traceback
import scipy.linalg, scipy.sparse.linalg, scipy.special, scipy.stats
import sklearn.base, sklearn.linear_model, sklearn.utils.validation

code, environments = pickle.load(sys.stdin.buffer)
found = []
for environment in environments:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.environ.update(environment)
            status = 1
            try:
                assert "expunge" not in sys.modules
                exec(code, {"__name__": "__main__"})
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        found.append((status, out.read().decode(), err.read().decode()))
sys.stdout.buffer.write(pickle.dumps(found))
"""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def each_start(code, *environments, without=(), **always):
    """What `code` does in a process that has not imported expunge, for each of these environments.

    Of the environment here it has all but the names in `without`.
    """
    kept = {name: value for name, value in os.environ.items() if name not in without} | always
    if not hasattr(os, "fork"):
        return [alone(code, kept | environment) for environment in environments]
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN],
        env=kept,
        input=pickle.dumps((code, environments)),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [Done(*found) for found in pickle.loads(done.stdout)]


def alone(code, environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)
