"""The set of files that the market's bench replays: made, measured, dropped from the page cache, removed."""

import contextlib
import os
import shutil
import subprocess
import time

import servers

SAMPLE_RECORDS = 600
SPARE = 0.2
GB = 1e9


class NoRoom(Exception):
    """The disk is too small for the set."""


def generate(out, tickers, records):
    """Writes a set; returns its bytes."""
    command = [servers.FLOWCAST, "generate", "--out", out, "--tickers", ",".join(tickers), "--records", str(records)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sum(path.stat().st_size for path in files_of(out))


def files_of(data):
    """The files of records in a set, in order."""
    return sorted(path for path in data.glob("*/*/*/*.jsonl"))


def needed_bytes(sample_bytes, records):
    """The bytes of a set, told from one of the same tickers with few records.

    >>> needed_bytes(1_000_000, 23_400)
    39000000
    """
    return sample_bytes * records // SAMPLE_RECORDS


def check_room(work, needed):
    """Refuses a set for which the disk has no room, with some to spare."""
    free, wanted = shutil.disk_usage(work).free, needed * (1 + SPARE)
    told = f"the set takes {needed / GB:.1f} GB; {work} has {free / GB:.1f} GB free"
    if free < wanted:
        raise NoRoom(f"{told}, and {wanted / GB:.1f} GB are needed, to leave some: choose fewer --records or "
                     "--tickers, or another disk with --work")  # fmt: skip
    print(told, flush=True)


@contextlib.contextmanager
def market_set(work, tickers, records, keep):
    """The set for a block; removed afterwards, whatever happened, unless it is to be kept."""
    data = work / f"market-{len(tickers)}x{records}"
    part = data.with_suffix(".part")
    try:
        if not data.exists():
            shutil.rmtree(part, ignore_errors=True)
            needed = needed_bytes(generate(part, tickers, SAMPLE_RECORDS), records)
            shutil.rmtree(part)
            check_room(work, needed)
            begin = time.monotonic()
            size = generate(part, tickers, records)
            part.rename(data)
            print(f"generated {size / GB:.2f} GB in {time.monotonic() - begin:.0f} s", flush=True)
        yield data
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if keep:
            print(f"kept: {data}")
        else:
            shutil.rmtree(data, ignore_errors=True)


def drop_from_cache(files):
    """Drops the pages of files from the page cache; returns the bytes that stay nevertheless."""
    for path in files:
        file = os.open(path, os.O_RDONLY)
        try:
            # A page that is not yet on the disk would stay.
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", *map(str, files)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sum(map(int, told.split()))
