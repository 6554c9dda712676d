"""Signals during a training step."""

import os
import signal

import pytest

from zeroshift.core.distributed import Distributed
from zeroshift.core.interrupts import interrupt, interrupts, raises_interrupt
from zeroshift.training.step_interrupts import interrupts_at_step_ends


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_after_the_interrupt_raises_no_second_one() -> None:
    """It would leave a traceback, because the program is printing that it has stopped."""

    def step() -> None:
        with interrupts_at_step_ends() as stop_if_requested:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop_if_requested.requested, "the step goes on"
            stop_if_requested(Distributed("cpu"))

    before = signal.getsignal(signal.SIGINT)
    with interrupts():
        with pytest.raises(KeyboardInterrupt):
            step()
        assert not raises_interrupt(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_handlers_return_without_an_interrupt() -> None:
    with interrupts():
        with interrupts_at_step_ends():
            assert not raises_interrupt(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is interrupt
