"""Signals during training."""

import os
import signal
import threading

import pytest

from psanet_tf.training.interruption import StopSignals, TrainingInterrupted


def test_a_signal_before_training_ends_at_once():
    signals = StopSignals()
    with pytest.raises(TrainingInterrupted, match="stopped at once by SIGTERM"), signals.caught():
        signal.raise_signal(signal.SIGTERM)


def test_during_training_the_first_signal_is_noted_and_the_second_ctrl_c_raises(capfd):
    signals = StopSignals()
    with signals.caught():
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert signals.received == signal.SIGTERM
            with pytest.raises(TrainingInterrupted, match="stopped at once by SIGINT"):
                signal.raise_signal(signal.SIGINT)
        with pytest.raises(TrainingInterrupted):
            signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err.count("SIGTERM: saving and stopping after this step") == 1


def test_handlers_are_put_back_and_only_the_main_thread_has_any():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def elsewhere():
        with StopSignals().caught():
            seen.append(signal.getsignal(signal.SIGINT))

    with StopSignals().caught():
        assert signal.getsignal(signal.SIGINT) != before
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before] == [signal.getsignal(signal.SIGINT)]


def test_it_is_no_exception_that_libraries_swallow():
    with pytest.raises(KeyboardInterrupt):
        try:
            raise TrainingInterrupted(signal.SIGINT, "")
        except Exception:
            os._exit(1)
