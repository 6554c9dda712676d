import os
import signal
import subprocess
import sys
import time

import pytest

from zeroshift.core.interrupts import interrupts, raises_interrupt

PROGRAM = """
import signal, time
from zeroshift.core.interrupts import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have made it ignore both
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with interrupts(restore=False):
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        try:
            print("interrupted", flush=True)
            time.sleep(60)
        finally:
            print("unreachable", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_the_process_without_a_traceback(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "interrupted\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "Stopped.")


def _send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


def test_handlers_return_and_ignored_signals_stay_ignored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts():
            assert raises_interrupt(signal.SIGTERM)
            assert not raises_interrupt(signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                _send(signal.SIGTERM)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, hangup)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
