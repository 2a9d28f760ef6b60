"""Waiting for something that another thread or process does."""

import time


def wait_until(condition, what, seconds=30):
    """Returns the first true value of `condition()`. The deadline is only there to end a test that has failed."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.005)
    return value
