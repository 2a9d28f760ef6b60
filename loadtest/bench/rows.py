"""The rows of the goal table (benches/GOALS.md): what is run, on which servers, and what counts."""

import http.client
import json
import time
from dataclasses import replace
from urllib.parse import urlsplit

import servers
from cases import CHANNELS, STREAMS, TICKERS_16, TICKERS_40, Case, Goal
from meter import cpu_s, peak_resident_bytes, resident_bytes
from recorder import group
from peers import CHANNEL, Producer, available, item, over_http, to_flowcast
from servers import running
from swarm import Load, run

DEMAND = 50_000
PEER_DEMAND = 25_000
"""Half of that: not every peer can send 50,000 frames a second from one core."""
# The producer and the driver share the core with the swarm, and wake when it does.
BUSY, PEER_STARVED, WARM_UP_S = 0.9, 0.3, 1
QUIET = "1h"
WARM_UP, SETTLE_S = 500, 3
STALL_S = 20
SEND_BUFFER_BYTES, CLIENT_BUFFER_BYTES, CLIENT_FRAMES, WRITE_TIMEOUT_S = 2 * 131_072, 2 * 32_768, 256, 10
LADDER = (0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
LADDER_S, LADDER_MET = 6, 0.9
TAIL_S = 6
"""What a p99 over ticks takes at least: 60 of them."""
NOW_AND_THEN, SELDOM = 2, 4


def outcome(result, **more):
    """What a run of the swarm contributes."""
    return result.figures() | more, result.invalid, result.command


def wanted(settings, wire, connections, tickers, ticks_per_s, **more):
    """Clients that want every tick of some tickers; on the JSON streams of as many channels, to which the
    swarm publishes as often and as much."""
    each = len(tickers)
    load = Load(connections, wire, ",".join(map(group, tickers)), settings.seconds, connections * each * ticks_per_s,
                groups_each=each)  # fmt: skip
    if wire == STREAMS:
        more |= {"ledger": "off"}
        bytes_each = settings.payload_bytes(tickers)
        load = replace(load, groups=",".join(CHANNELS[:each]), publish_rate=ticks_per_s, publish_bytes=bytes_each)
    return replace(load, **more)


def ours(settings, wire, data, interval):
    """flowcast's command for such clients."""
    if wire != STREAMS:
        return servers.flowcast(data, interval, program=settings.program)
    streams = ["--replay-trading", "false", "--kafka-topics", ",".join(CHANNELS)]
    return servers.flowcast(data, QUIET, *streams, program=settings.program)


def the_floor(settings, wire, interval, tickers=("SPX",), mode="send"):
    """The floor's command for them. On the JSON streams it sends what the swarm posts, as flowcast does."""
    return servers.floor(None if wire == STREAMS else settings.recording(wire, tickers), wire, interval, mode)


def loaded(command, load):
    """A contender: a server under a load."""

    def measure():
        with running(command(), built=True) as server:
            return outcome(run(server, load))

    return measure


def one_group(settings, connections, wire):
    """W1, and W2 where the table asks for it: one group, 50,000 frames/s."""
    interval = f"{1000 * connections // DEMAND}ms"
    is_w2 = connections == 5000
    # With a ledger both servers also write it: 10 ticks/s, to tell latency from the scheduled tick.
    more = {"ledger": "require", "seconds": max(TAIL_S, settings.seconds)} if is_w2 else {}
    load = wanted(settings, wire, connections, ["SPX"], DEMAND // connections, **more)
    contenders = {
        "flowcast": loaded(lambda: ours(settings, wire, settings.one(), interval), load),
        "floor": loaded(lambda: the_floor(settings, wire, interval), load),
        "floor, io_uring": loaded(lambda: the_floor(settings, wire, interval, mode="io-uring"), load),
    }
    goals = [
        Goal("W1", "frames_per_cpu_s", 0.95, None, against=("floor",)),
        Goal("W1", "frames_per_cpu_s", None, 0.97, against=("floor", "floor, io_uring")),
    ]
    if is_w2:
        goals.append(Goal("W2", "tick_p99_ms", 1.10, 1.00, at_least=False, against=("floor",)))
    return Case(f"one group, N={connections}, {wire}", tuple(goals), contenders)


def idle(settings, wire):
    """W3: what a connection costs that was greeted, has joined a group, and hears nothing."""
    load = wanted(settings, wire, 10_000, ["SPX"], 0, seconds=settings.idle_s, ramp=2000)

    def measured(command, load):
        def measure():
            with running(command(), built=True) as server:
                # What starting left behind is given back when clients come and go; it is none of theirs.
                run(server, replace(load, connections=WARM_UP, seconds=1))
                before = settled_bytes(server)
                result = run(server, load, with_memory=True)
            each = (result.meter.resident_bytes(result.window[1]) - before) / load.connections
            return {"bytes_per_connection": each}, result.invalid, result.command

        return measure

    contenders = {"flowcast": measured(lambda: ours(settings, wire, settings.one(), QUIET), load)}
    goal = Goal("W3", "bytes_per_connection", 457, None if wire == STREAMS else 256, at_least=False)
    return Case(f"idle, N=10000, {wire}", (goal,), contenders)


def settled_bytes(server):
    """Resident memory once it has not moved for a while."""
    sizes = [resident_bytes(server.pid)]
    while len(sizes) < SETTLE_S or (sizes[-1] != sizes[-SETTLE_S] and len(sizes) < 4 * SETTLE_S):
        time.sleep(1)
        sizes.append(resident_bytes(server.pid))
    return sizes[-1]


def sixteen_groups(settings, wire):
    """W4: sixteen groups on each connection, all due at once."""
    interval, load = "50ms", wanted(settings, wire, 1000, TICKERS_16, 20)
    contenders = {
        "flowcast": loaded(lambda: ours(settings, wire, settings.sixteen(), interval), load),
        "floor": loaded(lambda: the_floor(settings, wire, interval, TICKERS_16, "joined"), load),
    }
    goal = Goal("W4", "frames_per_cpu_s", 0.90, 1.05, against=("floor",))
    return Case(f"16 groups joined, N=1000, {wire}", (goal,), contenders)


def demand(settings, connections, wire):
    """W5: the most frames a second of which none is lost, on a ladder of demands.

    Clock and shard share the one core, so near its limit the clock gives up beats: what counts is what
    was published and arrived, all of it. The ladder ends where a frame is lost, or a tenth of the
    demand is not met.
    """

    def measure():
        best, command, ended = {"frames_per_s": 0.0, "fairness": 0.0}, [], "the ladder ended"
        for millions in LADDER:
            interval = f"{int(connections / millions)}us"
            # With the ledger the generator knows what must come and compares bytes; without, it decodes
            # every frame, and is at its limit first.
            load = Load(connections, wire, group("SPX"), LADDER_S, millions * 1e6, ledger="require", at_limit=True)
            with running(servers.flowcast(settings.one(), interval, program=settings.program)) as server:
                result = run(server, load)
                lost, missed = server.metric("shard_overruns_total"), server.metric("ticks_missed_total")
            figures = result.figures()
            arrived, busy = figures["frames_per_s"], f"generator {result.summary['busy']:.0%} busy"
            ended = f"at {millions} M: {arrived / 1e6:.2f} M arrived, {missed:.0f} beats given up, {busy}"
            if result.invalid or lost:
                ended = "; ".join([ended, *result.invalid, f"{lost:.0f} publications overrun"])
                break
            if arrived > best["frames_per_s"]:
                best, command = figures, result.command
            if arrived < LADDER_MET * millions * 1e6:
                break
        return best | {"ended": ended}, [], command

    stretch = 2e6 if connections == 1000 else None
    goals = Goal("W5", "frames_per_s", 1e6, stretch), Goal("W5", "fairness", 0.98, None)
    return Case(f"demand, N={connections}, {wire}", goals, {"flowcast": measure}, every=SELDOM)


def stalled(settings, wire):
    """W6: one client in twenty never reads; what does that cost the others?"""
    connections, interval = 500, "5ms"

    def measured(share):
        load = Load(connections, wire, group("SPX"), STALL_S, 100_000 * (1 - share / 100), stalled=share)

        def measure():
            with running(servers.flowcast(settings.one(), interval, program=settings.program)) as server:
                result = run(server, load)
            figures, doubts, command = outcome(result)
            if share:
                rate = figures["bytes_per_frame"] * 1000 / servers.milliseconds(interval)
                buffers = SEND_BUFFER_BYTES + CLIENT_BUFFER_BYTES + CLIENT_FRAMES * figures["bytes_per_frame"]
                shed = result.summary["shed"]
                figures["shed_to_bound"] = shed["max_us"] / 1e6 / (buffers / rate + WRITE_TIMEOUT_S)
                if shed["count"] < connections * share / 100:
                    doubts = [*doubts, f"only {shed['count']} stalled clients were dropped"]
            return figures, doubts, command

        return measure

    goals = (
        Goal("W6", "frames_per_cpu_s", 0.95, None, contender="flowcast, 5 % stalled", against=("flowcast",)),
        Goal("W6", "shed_to_bound", 1.0, None, at_least=False, contender="flowcast, 5 % stalled"),
    )
    contenders = {"flowcast": measured(0), "flowcast, 5 % stalled": measured(5)}
    return Case(f"stalled, N={connections}, {wire}", goals, contenders, every=NOW_AND_THEN)


def accept(settings, wire):
    """W7: negotiate, upgrade and join per CPU second of the server."""
    # The swarm keeps four HTTP connections; the others of one per hundred negotiations are ours.
    load = Load(10_000, wire, group("SPX"), 1, ramp=100_000)
    others = load.connections // 100 - 4

    def measure():
        with running(servers.flowcast(settings.one(), QUIET, program=settings.program)) as server:
            begin = cpu_s(server.pid)
            kept = [negotiated(server) for _ in range(others)]
            used = cpu_s(server.pid) - begin
            result = run(server, load)
            used += result.meter.cpu_s(0, result.window[1])
            for connection in kept:
                connection.close()
        return {"clients_per_cpu_s": load.connections / used}, result.invalid, result.command

    goal = Goal("W7", "clients_per_cpu_s", 15_000, 25_000)
    return Case(f"accept, N={load.connections}, {wire}", (goal,), {"flowcast": measure})


def negotiated(server):
    """A kept-alive HTTP connection on which a client has negotiated."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    connection.request("GET", "/v2/negotiate", headers={"Authorization": "Bearer bench"})
    connection.getresponse().read()
    return connection


def start_up(settings):
    """W8: from JSONL lines to frames, and from the start to serving; one core."""

    def measure():
        data = settings.data("forty", TICKERS_40, 23_400)
        figures = {}
        command = servers.flowcast(data, "1s", program=settings.program)
        begin = time.monotonic()
        with running(command, log_level="info") as server:
            figures["start_ms"] = (time.monotonic() - begin) * 1000
            server.await_words('"loaded"')
            log, resident, peak = server.text(), resident_bytes(server.pid), peak_resident_bytes(server.pid)
            told = next((json.loads(line) for line in log.splitlines() if '"loaded"' in line), None)
            if told:
                told = told.get("fields", told)
                figures["records_per_s"] = float(told["records_per_second"])
                figures["resident_to_frames"] = resident / float(told["bytes"])
                figures["peak_to_frames"] = peak / float(told["bytes"])
        doubts = [] if "records_per_s" in figures else ["no line 'loaded' in the log"]
        return figures, doubts, command

    goals = (
        Goal("W8", "records_per_s", 150_000, 300_000),
        Goal("W8", "start_ms", None, 100, at_least=False),
        Goal("W8", "resident_to_frames", 1.2, None, at_least=False),
    )
    return Case("start-up, 40 tickers, 936,000 records", goals, {"flowcast": measure}, every=SELDOM)


def beside_peers(settings, connections):
    """The same load for flowcast, the floor and every peer that can run here: one channel, messages as long as the
    hub's in JSON, published by the driver. What arrives at the clients is told as it is, lost or late."""
    each_s = PEER_DEMAND // connections
    load = Load(connections, STREAMS, CHANNEL, settings.seconds, PEER_DEMAND, at_limit=True, external=True)
    size = settings.payload_bytes()

    def measured(start, publisher, dialect=None, path=""):
        def measure():
            command, url = start()
            with running(command, url=url) as server, Producer(publisher(server), each_s, size) as producer:
                time.sleep(WARM_UP_S)
                before = resident_bytes(server.pid)
                result = run(server, replace(load, dialect=dialect, path=path), with_memory=True)
            grown = result.meter.resident_bytes(result.window[1]) - before
            figures = result.figures() | {
                "loaded_bytes_per_connection": grown / connections,
                "lost": sum(result.facts["fault_counts"].values()),
                "clients_dropped": sum(result.facts["drops"].values()) + sum(result.facts["failures"].values()),
            }
            return figures, generator_doubts(result, producer), result.command

        return measure

    contenders = {
        "flowcast": measured(lambda: (ours(settings, STREAMS, settings.one(), QUIET), None), to_flowcast),
        "floor": measured(lambda: (the_floor(settings, STREAMS, QUIET), None), lambda server: over_http(server, item)),
    } | {peer.name: measured(peer.start, peer.publisher, peer.dialect, peer.path) for peer in available()}
    goal = Goal("peers", "frames_per_cpu_s", None, None)
    return Case(f"peers, N={connections}", (goal,), contenders)


def generator_doubts(result, producer):
    """What is wrong with a run that is not the server's fault."""
    summary = result.summary
    reasons = [f"the producer ended: {producer.error}"] if producer.error else []
    if summary["starved"] > PEER_STARVED:
        reasons.append(f"the generator waited for a processor {summary['starved']:.0%} of the time")
    if summary["busy"] > BUSY:
        reasons.append(f"the generator was busy {summary['busy']:.0%} of the time")
    return reasons


def all_cases(settings, number):
    """The cases of a round. Rows about one server alone take the wires in turn."""

    def turn(every=1, wires=settings.wires):
        return wires[number // every % len(wires)]

    hub = [wire for wire in settings.wires if wire != STREAMS] or ["json"]

    yield from (one_group(settings, count, wire) for count in (1000, 5000, 10_000) for wire in settings.wires)
    yield idle(settings, turn())
    yield from (sixteen_groups(settings, wire) for wire in settings.wires)
    # Nothing but the hub: the streams' messages come from the swarm, which has the other core already.
    yield from (demand(settings, count, turn(SELDOM, hub)) for count in (1000, 5000))
    yield stalled(settings, turn(NOW_AND_THEN, hub))
    yield accept(settings, turn(1, hub))
    yield start_up(settings)
    if settings.peers:
        yield from (beside_peers(settings, count) for count in (1000, 5000))
