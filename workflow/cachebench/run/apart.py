"""A process of its own for what a plug-in does: one that dies, or never ends, is a reason in its rows and takes nothing along.

It is a fork, so that a job loads torch once for all of them. Neither torch's threads nor CUDA outlive a fork: a job that forks
imports torch, and leaves it to the forks to compute. No torch here."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time

from cachebench.plugin.loader import FAILURES, reason

FORK = multiprocessing.get_context("fork")
STOPPED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # by which somebody ends a job; no plug-in's doing


class Lost(Exception):
    """There is no answer, for this reason of one line."""


class Apart:
    """A process in which `work` answers, until the block ends. All its answers together may take so many `minutes` (None: any
    time)."""

    def __init__(self, work, minutes=None):
        self.minutes, self.left, self.lost = minutes, 60 * minutes if minutes else None, ""
        self.pipe, far = FORK.Pipe()
        self.process = FORK.Process(target=serve, args=(work, far))
        self.process.start()
        far.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()

    def ask(self, *words):
        """What work(*words) returns there. Lost where it raises, after which it may be asked again, and where the process dies
        or takes too long, which is for good. KeyboardInterrupt if somebody stopped it."""
        if not self.lost:
            answer, why = self.told(words)
        if self.lost or why:
            raise Lost(self.lost or why)
        return answer

    def told(self, words):
        """What `serve` sends, or (None, why it never will)."""
        began = time.monotonic()
        try:
            self.pipe.send(words)
            if self.pipe.poll(self.left):
                return self.pipe.recv()
            self.lost = ended(128 + signal.SIGALRM, self.minutes)
            self.process.kill()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            if -code in STOPPED:
                raise KeyboardInterrupt from None
            self.lost = ended(128 - code if code < 0 else code)
        finally:
            self.left = self.left and max(self.left - (time.monotonic() - began), 0.001)
        return None, self.lost


def serve(work, pipe):
    """Answers until nobody asks: (what work returns, "") or (None, why it did not). A job that is killed takes this along."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of linux/prctl.h
    while True:
        try:
            words = pipe.recv()
        except EOFError:
            return
        try:
            answer = work(*words), ""
        except FAILURES as error:
            answer = None, reason(error)
        pipe.send(answer)


def ended(code, minutes=None):
    """Why a process with this exit code, as a shell has it, wrote nothing: one line, with the log to look at."""
    log = f"; its log: {os.environ['LOG']}" if "LOG" in os.environ else ""
    if code - 128 == signal.SIGALRM:
        return f"the job ran longer than limits.minutes allows, which is {minutes:g}{log}"
    how = f"signal {code - 128}{'; out of memory?' * (code == 137)}" if code > 128 else f"exit code {code}"
    return f"the job died ({how}){log}"


def stay_alive(died, minutes):
    """For a job that runs a plug-in in its own process, at its start: ends it, whatever it does then, after so many `minutes`
    (None: never). RuntimeError with the reason where it `died` before with this code: it is called again to write that down."""
    if died:
        raise RuntimeError(ended(int(died), minutes))
    if minutes:
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
