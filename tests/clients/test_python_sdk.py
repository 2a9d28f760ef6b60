"""Azure's own client for Python (azure-messaging-webpubsubclient 1.1.0) against the real server.

The SDK runs each callback in a thread of its own, so neighbouring records may be handed out in either order. Where
the order on the wire matters, the test reads the proxy's transcript.
"""

import base64
import itertools
import json
import random

import pytest
from azure.messaging.webpubsubclient.models import SendMessageError, WebPubSubDataType

from support.orderflow import assert_consecutive, decoded, group_of, in_cyclic_order
from support.proxy import TcpProxy
from support.server import Server
from support.subscriber import WIRES, Subscriber
from support.waiting import wait_until

PROFILES = {"2025-11": "/negotiate", "2026-04": "/v2/negotiate"}

every_wire = pytest.mark.parametrize("wire", WIRES)
every_profile = pytest.mark.parametrize("profile", PROFILES)


def rows(subscriber, dataset, ticker, profile):
    """The rows of the file that have arrived, each compared with its line, in the order of the wire where
    sequence ids tell it, else in file order."""
    messages = subscriber.messages(group_of(ticker))
    if all(message.sequence_id for message in messages):
        messages.sort(key=lambda message: message.sequence_id)
        return [dataset.row_of(ticker, decoded(message.data), profile) for message in messages]
    arrived = [dataset.row_of(ticker, decoded(message.data), profile) for message in messages]
    return in_cyclic_order(arrived, len(dataset.lines[ticker]))


def json_messages(connection):
    """The transcript's text messages."""
    return [json.loads(payload) for opcode, payload in connection.received_messages() if opcode == 1]


def rows_on_the_wire(messages, dataset, ticker, profile):
    data = [message["data"] for message in messages if message.get("group") == group_of(ticker)]
    return [dataset.row_of(ticker, decoded(base64.b64decode(text, validate=True)), profile) for text in data]


@every_profile
@every_wire
def test_a_subscriber_receives_every_record_of_its_groups_with_every_field_exact(server, dataset, wire, profile):
    with Subscriber(server.websocket_url(PROFILES[profile]), wire) as subscriber:
        for ticker in ("SPX", "ES_SPX"):
            subscriber.client.join_group(group_of(ticker))
        for ticker in ("SPX", "ES_SPX"):
            for message in subscriber.wait_for(20, group_of(ticker)):
                assert message.data_type == WebPubSubDataType.PROTOBUF
                assert (message.sequence_id is not None) == (wire == "json.reliable")
            assert_consecutive(rows(subscriber, dataset, ticker, profile), len(dataset.lines[ticker]))


@every_wire
def test_records_come_in_file_order_and_each_ticker_starts_over_at_its_own_end(server, proxy, dataset, wire):
    with Subscriber(proxy.through(server.websocket_url()), wire) as subscriber:
        subscriber.client.join_group(group_of("SPY"))
        subscriber.client.join_group(group_of("SPX"))
        subscriber.wait_for(25, group_of("SPY"))
        messages = json_messages(proxy.connections[0])
    for ticker in ("SPY", "SPX"):
        assert_consecutive(rows_on_the_wire(messages, dataset, ticker, "2026-04"), len(dataset.lines[ticker]))
    assert len(rows_on_the_wire(messages, dataset, "SPY", "2026-04")) > 3 * len(dataset.lines["SPY"])


def test_sequence_ids_rise_over_all_groups_of_a_reliable_connection(server, proxy):
    with Subscriber(proxy.through(server.websocket_url()), "json.reliable") as subscriber:
        for ticker in ("SPX", "ES_SPX", "SPY"):
            subscriber.client.join_group(group_of(ticker))
        subscriber.wait_for(20, group_of("SPY"))
        ids = [message["sequenceId"] for message in json_messages(proxy.connections[0]) if message["type"] == "message"]
    assert ids[0] > 0
    assert all(earlier < later for earlier, later in itertools.pairwise(ids))


@every_wire
def test_the_first_message_is_connected_with_a_fresh_connection_id_and_the_key_as_user(server, proxy, wire):
    url = proxy.through(server.websocket_url(key="my-key"))
    with Subscriber(url, wire) as first, Subscriber(url, wire) as second:
        ids = {first.connected[0].connection_id, second.connected[0].connection_id}
        assert len(ids) == 2 and all(ids)
        assert [subscriber.connected[0].user_id for subscriber in (first, second)] == ["my-key", "my-key"]
        for connection in proxy.connections:
            connected = json_messages(connection)[0]
            assert (connected["type"], connected["event"]) == ("system", "connected")
            assert bool(connected.get("reconnectionToken")) == (wire == "json.reliable")


@every_wire
def test_nothing_of_a_group_follows_the_ack_of_its_leave(server, proxy, wire):
    with Subscriber(proxy.through(server.websocket_url()), wire) as subscriber:
        subscriber.client.join_group(group_of("SPX"))
        subscriber.client.join_group(group_of("ES_SPX"))
        subscriber.wait_for(5, group_of("SPX"))
        subscriber.client.leave_group(group_of("SPX"), ack_id=1000)
        subscriber.wait_for_more(20, group_of("ES_SPX"))
        messages = json_messages(proxy.connections[0])
    acks = [place for place, message in enumerate(messages) if message.get("ackId") == 1000]
    assert [messages[place]["success"] for place in acks] == [True]
    groups = [message["group"] for message in messages[acks[0] :] if message["type"] == "message"]
    assert set(groups) == {group_of("ES_SPX")} and len(groups) >= 20


@every_wire
def test_a_group_that_was_left_can_be_joined_again(server, dataset, wire):
    with Subscriber(server.websocket_url(), wire) as subscriber:
        subscriber.client.join_group(group_of("SPX"))
        subscriber.wait_for(3, group_of("SPX"))
        subscriber.client.leave_group(group_of("SPX"))
        subscriber.client.join_group(group_of("SPX"))
        subscriber.wait_for_more(10, group_of("SPX"))


@every_wire
def test_a_group_joined_twice_delivers_each_record_once(server, proxy, dataset, wire):
    with Subscriber(proxy.through(server.websocket_url()), wire) as subscriber:
        subscriber.client.join_group(group_of("SPX"))
        subscriber.client.join_group(group_of("SPX"))
        subscriber.wait_for(20, group_of("SPX"))
        messages = json_messages(proxy.connections[0])
    assert_consecutive(rows_on_the_wire(messages, dataset, "SPX", "2026-04"), len(dataset.lines["SPX"]))


@every_wire
def test_leaving_twice_or_without_a_join_succeeds(server, wire):
    with Subscriber(server.websocket_url(), wire, message_retry_total=0) as subscriber:
        subscriber.client.leave_group(group_of("SPX"))
        subscriber.client.join_group(group_of("SPX"))
        subscriber.client.leave_group(group_of("SPX"))
        subscriber.client.leave_group(group_of("SPX"))


@every_wire
def test_a_ticker_that_is_not_loaded_can_be_joined_and_stays_silent(server, wire):
    with Subscriber(server.websocket_url(), wire, message_retry_total=0) as subscriber:
        subscriber.client.join_group(group_of("NQ_NDX"))
        subscriber.client.join_group(group_of("SPX"))
        subscriber.wait_for(20, group_of("SPX"))
        assert subscriber.messages(group_of("NQ_NDX")) == []


@pytest.mark.parametrize(
    ("group", "error"),
    [
        ("nonsense", "BadRequest"),
        ("blue", "BadRequest"),
        ("blue_SPX", "BadRequest"),
        ("SPX_orderflow_orderflow", "BadRequest"),
        ("blue__orderflow_orderflow", "BadRequest"),
        ("blue_SPX_orderflow_", "BadRequest"),
        ("blue_SPX_orderflow_20251128x", "BadRequest"),
        ("red_SPX_orderflow_orderflow", "Forbidden"),
        ("blue_SPX_classic_gex_full", "Forbidden"),
        ("blue_SPX_state_gamma_zero", "Forbidden"),
    ],
)
@every_wire
def test_a_malformed_name_or_another_hubs_group_is_refused_and_the_connection_lives_on(server, wire, group, error):
    with Subscriber(server.websocket_url(), wire, message_retry_total=0) as subscriber:
        with pytest.raises(SendMessageError) as refusal:
            subscriber.client.join_group(group)
        assert refusal.value.error_detail.name == error
        assert refusal.value.error_detail.message
        subscriber.client.join_group(group_of("SPX"))
        subscriber.wait_for(3, group_of("SPX"))
        assert len(subscriber.connected) == 1


@every_wire
def test_the_151st_group_of_a_connection_is_refused_until_another_is_left(server, wire):
    letters = [first + second for first in "ABCDEFGHIJKLM" for second in "ABCDEFGHIJKLM"]
    groups = [group_of(f"T{pair}") for pair in letters[:151]]
    with Subscriber(server.websocket_url(), wire, message_retry_total=0) as subscriber:
        for group in groups[:150]:
            subscriber.client.join_group(group)
        subscriber.client.join_group(groups[0])
        with pytest.raises(SendMessageError) as refusal:
            subscriber.client.join_group(groups[150])
        assert refusal.value.error_detail.name == "Forbidden"
        subscriber.client.leave_group(groups[0])
        subscriber.client.join_group(groups[150])


@every_wire
def test_publishing_and_events_are_refused_with_azures_errors(server, wire):
    with Subscriber(server.websocket_url(), wire, message_retry_total=0) as subscriber:
        subscriber.client.join_group(group_of("SPX"))
        with pytest.raises(SendMessageError) as publishing:
            subscriber.client.send_to_group(group_of("SPX"), "hello", WebPubSubDataType.TEXT)
        with pytest.raises(SendMessageError) as event:
            subscriber.client.send_event("hello", {"a": 1}, WebPubSubDataType.JSON)
        assert publishing.value.error_detail.name == "Forbidden"
        assert event.value.error_detail.name == "InternalServerError"
        messages = subscriber.wait_for(3, group_of("SPX"))
        assert all(message.data_type == WebPubSubDataType.PROTOBUF for message in messages)


@every_profile
@pytest.mark.parametrize("failing_attempts", [0, 1])
def test_a_cut_connection_is_recovered_with_nothing_lost_and_nothing_twice(
    server, proxy, dataset, profile, failing_attempts
):
    with Subscriber(proxy.through(server.websocket_url(PROFILES[profile])), "json.reliable") as subscriber:
        subscriber.client.join_group(group_of("SPX"))
        subscriber.client.join_group(group_of("ES_SPX"))
        subscriber.wait_for(10, group_of("SPX"))

        # The network swallows records, the first of them in the middle of a frame, before the cut shows.
        before = len(json_messages(proxy.connections[0]))
        proxy.hold(after_bytes=100)
        wait_until(lambda: len(json_messages(proxy.connections[0])) > before + 10, "records that are lost on the way")
        proxy.cut(refuse_next=failing_attempts)

        subscriber.wait_for_more(30, group_of("SPX"))
        for ticker in ("SPX", "ES_SPX"):
            assert_consecutive(rows(subscriber, dataset, ticker, profile), len(dataset.lines[ticker]))
        assert len(subscriber.connected) == 1, "recovered, not connected anew"
        assert "awps_reconnection_token=" in proxy.connections[1].request_line
        assert subscriber.disconnected == []


def test_a_connection_that_is_cut_at_any_byte_can_be_recovered_again_and_again(server, proxy, dataset):
    with Subscriber(proxy.through(server.websocket_url()), "json.reliable") as subscriber:
        subscriber.client.join_group(group_of("SPX"))
        bytes_to_cut = random.Random(15)
        for cuts in range(1, 11):
            subscriber.wait_for_more(3, group_of("SPX"))
            connection, allowed = proxy.connections[-1], bytes_to_cut.randrange(1, 2000)
            before = len(connection.downstream)
            proxy.hold(after_bytes=allowed)
            wait_until(lambda: len(connection.downstream) >= before + allowed, "bytes beyond the cut")
            proxy.cut()
            wait_until(lambda: len(proxy.connections) == cuts + 1, "the next attempt of the SDK")
        subscriber.wait_for_more(5, group_of("SPX"))
        assert_consecutive(rows(subscriber, dataset, "SPX", "2026-04"), len(dataset.lines["SPX"]))
        assert len(subscriber.connected) == 1


def test_after_a_restart_which_forgets_its_session_a_client_comes_back_with_its_groups(
    server, dataset, tmp_path
):
    with Server(dataset, tmp_path) as first, TcpProxy(first.port) as proxy:
        with Subscriber(proxy.through(first.websocket_url()), "json.reliable") as subscriber:
            subscriber.client.join_group(group_of("SPX"))
            subscriber.wait_for(5, group_of("SPX"))
            proxy.server_port = server.port
            assert first.stop() == 0
            # It asks for its session for 30 s. Closed with 1008 it would ask for ever, since it loses the code.
            wait_until(lambda: len(subscriber.connected) == 2, "a new connection", seconds=60)
            refused = [connection for connection in proxy.connections if "awps_" in connection.request_line]
            assert all(bytes(connection.downstream).startswith(b"HTTP/1.1 404 ") for connection in refused)
            assert refused
            subscriber.wait_for_more(10, group_of("SPX"))


def test_with_a_session_key_any_node_takes_a_client_back_it_neither_waits_nor_joins_and_nothing_comes_twice(
    dataset, tmp_path_factory
):
    def node():
        key = {"FLOWCAST_SESSION_KEY": "0123456789abcdef0123456789abcdef"}
        return Server(dataset, tmp_path_factory.mktemp("node"), settings=key)

    # The node that has begun last comes first: the sequence ids of the others are behind its own.
    with node() as third, node() as second, node() as first, TcpProxy(first.port) as proxy:
        with Subscriber(proxy.through(first.websocket_url()), "json.reliable") as subscriber:
            joined = [group_of("SPX"), group_of("ES_SPX")]
            for group in joined:
                subscriber.client.join_group(group)
            for group in joined:
                subscriber.wait_for(10, group)
            proxy.server_port = second.port
            assert first.stop() == 0
            for group in joined:
                subscriber.wait_for_more(10, group)
            proxy.server_port = third.port
            proxy.cut(refuse_next=1)
            for group in joined:
                subscriber.wait_for_more(10, group)

            assert (len(subscriber.connected), subscriber.disconnected) == (1, []), "no event"
            recoveries = [connection for connection in proxy.connections if "awps_" in connection.request_line]
            assert len(recoveries) == 2 and len(proxy.connections) == 3, "the first attempt that is let through"
            messages = [message for connection in proxy.connections for message in json_messages(connection)]
            assert sum(message["type"] == "ack" for message in messages) == 2, "joined once"
            connected = [message for message in messages if message.get("event") == "connected"]
            assert len({message["connectionId"] for message in connected}) == 1
            ids = [message["sequenceId"] for message in messages if message["type"] == "message"]
            assert all(earlier < later for earlier, later in itertools.pairwise(ids))


def test_what_was_acknowledged_is_not_sent_again_after_a_recovery(server, proxy):
    with Subscriber(proxy.through(server.websocket_url()), "json.reliable") as subscriber:
        subscriber.client.join_group(group_of("SPX"))
        acknowledged = wait_until(lambda: sequence_acks(proxy.connections[0]), "the SDK's sequence ack")[-1]
        # Ten more records, so that the server has long read the ack when the connection is reset.
        subscriber.wait_for_more(10, group_of("SPX"))
        proxy.cut()
        wait_until(lambda: len(proxy.connections) == 2, "the recovery")
        resent = wait_until(lambda: sequence_ids(proxy.connections[1]), "records after the recovery")
        assert resent[0] > acknowledged


def sequence_ids(connection):
    return [message["sequenceId"] for message in json_messages(connection) if message["type"] == "message"]


def sequence_acks(connection):
    messages = [json.loads(payload) for opcode, payload in connection.sent_messages() if opcode == 1]
    return [message["sequenceId"] for message in messages if message["type"] == "sequenceAck"]


def test_a_plain_client_whose_connection_is_cut_comes_back_with_its_groups_joined_again(server, proxy, dataset):
    with Subscriber(proxy.through(server.websocket_url()), "json") as subscriber:
        subscriber.client.join_group(group_of("SPX"))
        subscriber.wait_for(5, group_of("SPX"))
        proxy.cut()
        wait_until(lambda: len(subscriber.connected) == 2, "a new connection")
        subscriber.wait_for_more(10, group_of("SPX"))
        assert subscriber.connected[0].connection_id != subscriber.connected[1].connection_id


@every_wire
def test_a_server_that_stops_tells_its_clients_so_closes_with_1001_and_exits_with_success(dataset, tmp_path, wire):
    with Server(dataset, tmp_path) as server, TcpProxy(server.port) as proxy:
        with Subscriber(proxy.through(server.websocket_url()), wire, reconnect_retry_total=0) as subscriber:
            subscriber.client.join_group(group_of("SPX"))
            subscriber.wait_for(3, group_of("SPX"))
            assert server.stop() == 0
            *_, disconnected, close = proxy.connections[0].received_messages()
            assert json.loads(disconnected[1])["event"] == "disconnected"
            assert close[0] == 8 and int.from_bytes(close[1][:2], "big") == 1001
            if wire == "json":  # a reliable client would first try to recover for 30 s
                wait_until(lambda: subscriber.disconnected, "the disconnected event")
                assert subscriber.disconnected[0].message == json.loads(disconnected[1])["message"]


def test_the_server_says_one_line_on_stdout(dataset, tmp_path):
    with Server(dataset, tmp_path) as server:
        assert server.stop() == 0
        assert server.output == [f"flowcast listening on {server.url}\n"]
