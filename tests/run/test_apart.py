"""Processes of their own: what is answered, what is lost, and what is not a plug-in's doing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cachebench.run.apart import Apart, Lost


def work(how, value=None):
    if how == "raises":
        raise ValueError("no luck")
    if how == "leaves":
        os._exit(3)
    if how == "sleeps":
        time.sleep(value)
    if how == "signal":
        if value == signal.SIGHUP:
            signal.signal(value, signal.SIG_DFL)  # below nohup it is ignored
        os.kill(os.getpid(), value)
    return how, os.getpid()


def test_answers_come_from_one_process_that_ends_with_the_block():
    with Apart(work) as process:
        answers = [process.ask("a"), process.ask("b")]
    assert [how for how, _ in answers] == ["a", "b"]
    ((pid,),) = [{pid for _, pid in answers}]
    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_raises_answers_again(monkeypatch):
    with Apart(work) as process:
        with pytest.raises(Lost, match="^ValueError: no luck$"):
            process.ask("raises")
        assert process.ask("a")[0] == "a"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("leaves",), r"^the job died \(exit code 3\); its log: here.log$"),
        (("signal", signal.SIGKILL), r"^the job died \(signal 9; out of memory\?\); its log"),
        (("sleeps", 60), r"^the job ran longer than limits.minutes allows, which is 0.005; its log"),
    ],
)
def test_what_dies_or_never_ends_is_lost_for_good(words, reason, monkeypatch):
    monkeypatch.setenv("LOG", "here.log")
    with Apart(work, minutes=0.005 if words[0] == "sleeps" else 1) as process:
        for _ in range(2):
            with pytest.raises(Lost, match=reason):
                process.ask(*words)


def test_all_answers_together_have_the_minutes():
    with Apart(work, minutes=0.01) as process:
        process.ask("sleeps", 0.3)
        with pytest.raises(Lost, match="longer"):
            process.ask("sleeps", 0.5)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_somebody_stopped_is_not_written_down(how):
    with Apart(work) as process, pytest.raises(KeyboardInterrupt):
        process.ask("signal", how)


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of Linux")
def test_a_job_that_is_killed_leaves_no_process():
    code = "import os, time; from cachebench.run.apart import Apart; "
    code += "Apart(lambda: print(os.getpid(), flush=True) or time.sleep(60)).ask()"
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(job.stdout.readline())
    job.kill()
    job.wait()
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
