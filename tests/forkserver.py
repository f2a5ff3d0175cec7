"""Many short processes without their start-up: one process imports the libraries, and each is a fork of it: Snakemake, the jobs
of its rules, scripts.

As a script: what is called in place of Python, which hands its arguments and output to the server and waits for the end."""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = ("torch", "diffusers.models.autoencoders.autoencoder_kl", "torch_fidelity", "seaborn", "scipy.stats", "torchvision")
LIBRARIES += ("snakemake.cli", "snakemake.report", "pulp", "jsonschema", "snakemake_executor_plugin_slurm")


@contextmanager
def running(folder):
    """While it lasts a server listens; what is yielded stands for Python, a file in `folder`."""
    path, client = folder / ".forks", folder / ".forked-python"
    client.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{Path(__file__).resolve()}" "{path}" "$@"\n')
    client.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, "--serve", path], stdout=subprocess.PIPE)
    try:
        server.stdout.readline()  # it listens
        yield client
    finally:
        server.terminate()
        server.wait()


def serve(path):
    for name in LIBRARIES:
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print(flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                answer(connection)
            connection.close()


def answer(connection):
    """Answers with the exit code of a process that does what is asked, -11 if signal 11 ended it."""
    request, outputs, *_ = socket.recv_fds(connection, 1 << 20, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (process := os.fork()) == 0:
        connection.close()
        work(request, outputs)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    connection.sendall(str(code).encode())
    os._exit(0)


def work(request, outputs):
    """Runs `script words` or `-c code words` as Python would, with the caller's output."""
    script, *words = json.loads(request)["argv"]
    text, code = words.pop(0) if script == "-c" else None, 0
    for target, source in enumerate(outputs, start=1):
        os.dup2(source, target)
    os.chdir(json.loads(request)["folder"])
    os.environ.clear()
    os.environ.update(json.loads(request)["environment"])
    os.environ.pop("TERMINAL", None)  # a descriptor of the caller, which is not passed
    sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))  # which torch reads when it is imported
    sys.argv, sys.path[0] = [script, *words], "" if text else str(Path(script).parent)
    try:
        if text:
            exec(text, {"__name__": "__main__"})
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()  # folders of Snakemake's that go with its process
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def call(path, argv):
    """The exit code of what the server at `path` runs; ends as that does where a signal ends it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        told = {"argv": argv, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(connection, [json.dumps(told).encode()], [1, 2])
        code = int(connection.recv(8) or b"1")
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[1], sys.argv[2:]))
