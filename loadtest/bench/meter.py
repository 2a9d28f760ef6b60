"""CPU time and memory of a process over time, from outside and in nanoseconds.

`/proc/PID/stat` counts in steps of 10 ms; the CPU clock of another process, which Linux numbers by its id,
counts in nanoseconds and forgets no thread that has ended. The clock of another process's thread may not
be read; its `schedstat` may.
"""

import os
import threading
import time
from bisect import bisect_left

SAMPLE_S = 0.01
MEMORY_EVERY = 50


def process_clock(pid):
    """The id of a process's CPU clock (CPUCLOCK_SCHED of the whole thread group)."""
    return (~pid << 3) | 2


def thread_cpu_ns(pid, tid):
    """CPU time of a thread of another process."""
    with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0])


def resident_bytes(pid):
    """Resident memory, exact: `statm` and `stat` lag behind by up to a batch per processor."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))


def peak_resident_bytes(pid):
    """The most resident memory there was so far."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def cpu_s(pid):
    """CPU seconds of a process so far."""
    return time.clock_gettime_ns(process_clock(pid)) / 1e9


def machine_busy_s():
    """Time all processors have worked so far."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _wait, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Sampler(threading.Thread):
    """Calls `sample` at an interval while a block runs, until it returns False."""

    def __init__(self, interval_s):
        super().__init__(daemon=True)
        self._interval_s, self._done = interval_s, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self.join()

    def sample(self):
        """One sample."""
        raise NotImplementedError

    def run(self):
        """Samples until the block ends or there is nothing more to sample."""
        while not self._done.wait(self._interval_s):
            if self.sample() is False:
                return


class Meter(Sampler):
    """Samples a server until it is stopped; answers for any span in between."""

    def __init__(self, pid, tid=None, with_memory=False):
        super().__init__(SAMPLE_S)
        self._pid, self._tid, self._with_memory = pid, tid, with_memory
        self._clock = process_clock(pid)
        self._times, self._samples = [], []
        self._memory, self._machine = [], []

    def sample(self):
        """False when the process has ended."""
        try:
            cpu_ns = time.clock_gettime_ns(self._clock)
            self._samples.append((cpu_ns, thread_cpu_ns(self._pid, self._tid) if self._tid else cpu_ns))
            self._times.append(time.monotonic_ns())
            if len(self._times) % MEMORY_EVERY == 1:
                self._machine.append((self._times[-1], machine_busy_s()))
                if self._with_memory:
                    self._memory.append((self._times[-1], resident_bytes(self._pid)))
        except OSError:
            return False
        return True

    def _cpu_ns_at(self, at_ns, which):
        place = min(max(bisect_left(self._times, at_ns), 1), len(self._times) - 1)
        before, after = self._times[place - 1], self._times[place]
        low, high = self._samples[place - 1][which], self._samples[place][which]
        share = min(max((at_ns - before) / (after - before), 0.0), 1.0)
        return low + (high - low) * share

    def cpu_s(self, from_ns, until_ns):
        """CPU seconds of the process between two moments; from its first sample on if the first is 0."""
        return (self._cpu_ns_at(until_ns, 0) - self._cpu_ns_at(from_ns, 0)) / 1e9

    def thread_cpu_s(self, from_ns, until_ns):
        """CPU seconds of the thread between two moments; of the process if no thread was named."""
        return (self._cpu_ns_at(until_ns, 1) - self._cpu_ns_at(from_ns, 1)) / 1e9

    def machine_busy(self, from_ns, until_ns):
        """Processors busy on average between two moments, whoever used them."""
        inside = [(at, busy) for at, busy in self._machine if from_ns <= at <= until_ns]
        if len(inside) < 2:
            return None
        (begin, least), (end, most) = inside[0], inside[-1]
        return (most - least) / ((end - begin) / 1e9)

    def resident_bytes(self, until_ns):
        """Resident memory at the last sample before a moment."""
        return max((at, size) for at, size in self._memory if at <= until_ns)[1]
