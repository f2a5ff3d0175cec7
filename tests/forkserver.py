"""Snakemake's many short jobs without their start-up: one process imports the libraries, and every job is a fork of it.

As a script: what a rule calls in place of Python, which hands its arguments and output to the server and waits for the end."""

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


@contextmanager
def running(folder):
    """While it lasts a server listens; what is yielded is what jobs take for Python, a file in `folder`."""
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
                work(connection)
            connection.close()


def work(connection):
    """Runs one script as Python would, with the caller's output; answers 0 or 1."""
    request, outputs, *_ = socket.recv_fds(connection, 1 << 20, 2)
    script, *words = json.loads(request)["argv"]
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, source in enumerate(outputs, start=1):
        os.dup2(source, target)
    os.chdir(json.loads(request)["folder"])
    os.environ.update(json.loads(request)["environment"])
    os.environ.pop("TERMINAL", None)  # a descriptor of the caller, which is not passed
    sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))  # which torch reads when it is imported
    sys.argv, sys.path[0], code = [script, *words], str(Path(script).parent), 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = int(end.code is not None and end.code != 0)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(code).encode())
    os._exit(code)


def call(path, argv):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        told = {"argv": argv, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(connection, [json.dumps(told).encode()], [1, 2])
        return int(connection.recv(1) or b"1")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[1], sys.argv[2:]))
