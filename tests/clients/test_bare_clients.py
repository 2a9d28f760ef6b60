"""`curl` and a bare WebSocket client (websocket-client), which know nothing of Azure's SDKs."""

import json
import re
import struct
import subprocess

import pytest
import websocket

from support.orderflow import DownstreamMessage, UpstreamMessage, assert_consecutive, decoded, group_of

JSON_WIRES = ["json.webpubsub.azure.v1", "json.reliable.webpubsub.azure.v1"]
PROTOBUF_WIRES = ["protobuf.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1"]
GENERATIONS = {"/negotiate": "/ws/orderflow", "/v2/negotiate": "/client/hubs/orderflow"}


def curl(*arguments):
    """(status, headers, body) of a request."""
    marker = "\ncurl-status:"
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "30",
        "--write-out",
        marker + "%{http_code}",
    ]
    output = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=True, text=True).stdout
    output, _, status = output.rpartition(marker)
    head, _, body = output.replace("\r\n", "\n").partition("\n\n")
    headers = dict(line.lower().split(": ", 1) for line in head.split("\n")[1:])
    return int(status), headers, body


def negotiated(server, path="/negotiate"):
    _, _, body = curl(f"{server.url}{path}?key=curl-key")
    return json.loads(body)["websocket_urls"]["orderflow"]


class Socket:
    """A bare WebSocket connection. Leaving it as a context manager closes it."""

    def __init__(self, url, subprotocols=None, **options):
        self.socket = websocket.create_connection(url, timeout=30, subprotocols=subprotocols, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, message):
        """A protobuf message or a string."""
        if isinstance(message, str):
            self.socket.send(message)
        else:
            self.socket.send_binary(message.SerializeToString())

    def receive(self):
        """The next message: a dict on the JSON wires, a protobuf message on the others."""
        opcode, payload = self.socket.recv_data()
        match opcode:
            case websocket.ABNF.OPCODE_TEXT:
                return json.loads(payload)
            case websocket.ABNF.OPCODE_BINARY:
                return DownstreamMessage.FromString(payload)
        raise AssertionError(f"opcode {opcode}, payload {payload!r}")

    def close_code(self):
        """The code of the server's close frame, which must come before 100 other messages have."""
        for _ in range(100):
            opcode, payload = self.socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return struct.unpack("!H", payload[:2])[0]
        raise AssertionError("the connection goes on as if nothing had happened")


def join(group, ack_id=None):
    return UpstreamMessage(join_group={"group": group, "ack_id": ack_id})


@pytest.mark.parametrize("path", GENERATIONS)
@pytest.mark.parametrize("credential", ["?key=my-key", "Authorization: Basic my-key", "Authorization: Bearer my-key"])
def test_curl_negotiates_with_every_kind_of_credential(server, path, credential):
    if credential.startswith("?"):
        status, headers, body = curl(f"{server.url}{path}{credential}")
    else:
        status, headers, body = curl("--header", credential, f"{server.url}{path}")
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    reply = json.loads(body)
    assert set(reply) == {"websocket_urls", "prefix"} and reply["prefix"] == "blue"
    assert list(reply["websocket_urls"]) == ["orderflow"]
    url = reply["websocket_urls"]["orderflow"]
    uuid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    start = f"ws://127.0.0.1:{server.port}{GENERATIONS[path]}?access_token=my-key"
    assert url.startswith(start) and re.fullmatch(f"(:|%3A){uuid}", url.removeprefix(start))


def test_the_negotiated_url_follows_the_host_of_the_request(server):
    _, _, body = curl("--header", "Host: hub.example:9000", f"{server.url}/negotiate?key=k")
    assert json.loads(body)["websocket_urls"]["orderflow"].startswith("ws://hub.example:9000/ws/orderflow?")


@pytest.mark.parametrize(("path", "expected"), [("/negotiate", 400), ("/v2/negotiate", 401)])
def test_negotiating_without_a_key_is_a_json_error(server, path, expected):
    status, headers, body = curl(server.url + path)
    assert status == expected
    assert headers["content-type"].startswith("application/json")
    assert list(json.loads(body)) == ["error"]
    if path == "/negotiate":
        assert json.loads(body)["error"] == "missing key parameter"


@pytest.mark.parametrize("path", GENERATIONS)
def test_a_web_page_of_any_origin_may_negotiate(server, path):
    _, headers, _ = curl("--header", "Origin: https://page.example", f"{server.url}{path}?key=k")
    assert headers["access-control-allow-origin"] in ("*", "https://page.example")


def test_tickers_are_listed_by_kind(server):
    status, _, body = curl(f"{server.url}/tickers")
    assert status == 200
    tickers = json.loads(body)
    assert set(tickers) == {"stocks", "indexes", "futures"}
    assert tickers["futures"] == ["ES_SPX"]
    assert sorted(tickers["stocks"] + tickers["indexes"]) == ["SPX", "SPY"]


def test_without_a_subprotocol_ws_orderflow_speaks_protobuf_and_connected_comes_first(server, dataset):
    with Socket(negotiated(server)) as client:
        assert client.socket.getsubprotocol() is None
        connected = client.receive().system.connected
        assert connected.connection_id and connected.user_id == "curl-key"
        assert connected.reconnection_token == ""

        client.send(join(group_of("SPX"), ack_id=7))
        messages = [client.receive() for _ in range(21)]
        acks = [message.ack for message in messages if message.HasField("ack")]
        assert [(ack.ack_id, ack.success, ack.HasField("error")) for ack in acks] == [(7, True, False)]
        rows = []
        for message in messages:
            if message.HasField("data"):
                assert (getattr(message.data, "from"), message.data.group) == ("group", group_of("SPX"))
                assert not message.data.HasField("sequence_id")
                record = decoded(message.data.data.protobuf_data.SerializeToString())
                rows.append(dataset.row_of("SPX", record, "2025-11"))
        assert len(rows) == 20
        assert_consecutive(rows, len(dataset.lines["SPX"]))


def test_without_a_subprotocol_client_hubs_is_refused_with_the_reason(server):
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        Socket(negotiated(server, "/v2/negotiate"))
    assert refusal.value.status_code == 400
    assert b"subprotocol" in refusal.value.resp_body


@pytest.mark.parametrize("path", GENERATIONS.values())
@pytest.mark.parametrize("wire", JSON_WIRES + PROTOBUF_WIRES)
def test_every_subprotocol_is_served_at_either_address_and_answers_a_ping(server, path, wire):
    url = f"ws://127.0.0.1:{server.port}{path}?access_token=any"
    with Socket(url, subprotocols=["unknown.example", wire]) as client:
        assert client.socket.getsubprotocol() == wire
        if wire in JSON_WIRES:
            assert client.receive()["event"] == "connected"
            client.send('{"type":"ping"}')
            assert client.receive() == {"type": "pong"}
        else:
            assert client.receive().system.HasField("connected")
            client.send(UpstreamMessage(ping={}))
            assert client.receive().WhichOneof("message") == "pong"


@pytest.mark.parametrize("path", GENERATIONS.values())
def test_the_first_supported_subprotocol_of_the_clients_list_is_taken(server, path):
    url = f"ws://127.0.0.1:{server.port}{path}?access_token=any"
    with Socket(url, subprotocols=[PROTOBUF_WIRES[1], JSON_WIRES[0]]) as client:
        assert client.socket.getsubprotocol() == PROTOBUF_WIRES[1]


@pytest.mark.parametrize("path", GENERATIONS.values())
def test_a_connection_without_a_token_is_refused_before_the_upgrade(server, path):
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        Socket(f"ws://127.0.0.1:{server.port}{path}", subprotocols=JSON_WIRES)
    assert refusal.value.status_code == 401
    assert b"missing access_token" in refusal.value.resp_body


@pytest.mark.parametrize("path", GENERATIONS.values())
def test_a_bearer_header_serves_as_the_token(server, path):
    url = f"ws://127.0.0.1:{server.port}{path}"
    with Socket(url, subprotocols=JSON_WIRES, header=["Authorization: Bearer my-key:0123"]) as client:
        assert client.receive()["userId"] == "my-key"


@pytest.mark.parametrize("path", GENERATIONS.values())
@pytest.mark.parametrize("wire", [JSON_WIRES[1], PROTOBUF_WIRES[1]])
def test_a_recovery_that_cannot_be_served_is_closed_with_1008_or_refused_with_404(server, path, wire):
    session = "awps_connection_id=11111111-2222-3333-4444-555555555555&awps_reconnection_token=unknown"
    for query in [session, f"access_token=any&{session}"]:
        url = f"ws://127.0.0.1:{server.port}{path}?{query}"
        with Socket(url, subprotocols=[wire]) as client:
            assert client.socket.subprotocol == wire
            assert client.close_code() == 1008
        # Azure's SDK for Python cannot be told by a close code.
        agent = "User-Agent: azsdk-python-webpubsub-client/1.1.0 Python/3.11.2 (Linux)"
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            Socket(url, subprotocols=[wire], header=[agent])
        assert refusal.value.status_code == 404


def test_requests_without_an_ack_id_are_carried_out_and_not_answered(server):
    with Socket(negotiated(server), subprotocols=[JSON_WIRES[0]]) as client:
        client.receive()
        client.send(json.dumps({"type": "joinGroup", "group": group_of("SPX")}))
        assert [client.receive()["type"] for _ in range(3)] == ["message"] * 3


def test_an_ack_id_that_succeeded_before_is_answered_as_a_duplicate(server):
    with Socket(negotiated(server), subprotocols=[JSON_WIRES[0]]) as client:
        client.receive()
        request = json.dumps({"type": "joinGroup", "group": group_of("NDX"), "ackId": 1})
        client.send(request)
        assert client.receive() == {"type": "ack", "ackId": 1, "success": True}
        client.send(request)
        ack = client.receive()
        assert (ack["ackId"], ack["success"], ack["error"]["name"]) == (1, False, "Duplicate")


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "{}",
        "[]",
        "\u0000",
        '["joinGroup","blue_SPX_orderflow_orderflow",null,null,1,null]',
        '{"type":"unknown"}',
        '{"type":"joinGroup","ackId":1}',
        '{"type":"joinGroup","group":7}',
        '{"type":"joinGroup","group":""}',
        '{"type":"joinGroup","group":" \\t"}',
    ],
)
@pytest.mark.parametrize("wire", JSON_WIRES)
def test_a_text_that_is_no_message_closes_the_connection_with_1007(server, wire, text):
    with Socket(negotiated(server), subprotocols=[wire]) as client:
        client.receive()
        client.send(text)
        assert client.close_code() == 1007


@pytest.mark.parametrize("payload", [b"", b"\xff\xff\xff", b"\x32\x7f", b"\x32\x04\x0a\x02\xff\xfe"])
@pytest.mark.parametrize("wire", PROTOBUF_WIRES)
def test_bytes_that_are_no_message_close_the_connection_with_1007(server, wire, payload):
    with Socket(negotiated(server), subprotocols=[wire]) as client:
        client.receive()
        client.socket.send_binary(payload)
        assert client.close_code() == 1007


@pytest.mark.parametrize("wire", JSON_WIRES + PROTOBUF_WIRES)
def test_a_frame_of_the_wrong_type_closes_the_connection_with_1003(server, wire):
    with Socket(negotiated(server), subprotocols=[wire]) as client:
        client.receive()
        if wire in JSON_WIRES:
            client.socket.send_binary(join(group_of("SPX")).SerializeToString())
        else:
            client.send('{"type":"ping"}')
        assert client.close_code() == 1003


@pytest.mark.parametrize("wire", JSON_WIRES + PROTOBUF_WIRES)
def test_a_message_over_the_limit_closes_the_connection_with_1009(server, wire):
    with Socket(negotiated(server), subprotocols=[wire]) as client:
        client.receive()
        name = "x" * (600 * 1024)
        client.send(json.dumps({"type": "joinGroup", "group": name}) if wire in JSON_WIRES else join(name))
        assert client.close_code() == 1009
