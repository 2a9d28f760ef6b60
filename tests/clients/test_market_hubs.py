"""Azure's own client for Python on the hubs of GEX, greeks and spot, of both generations.

What it does with the protocol is tested on the orderflow hub (test_python_sdk.py); here every kind of payload goes
through it.
"""

import contextlib

import pytest
from azure.messaging.webpubsubclient.models import SendMessageError, WebPubSubDataType

from support.market import FIXTURES, HUBS, groups_of, spot_group_of, unpacked
from support.orderflow import assert_consecutive
from support.subscriber import WIRES, Subscriber
from support.waiting import wait_until

every_wire = pytest.mark.parametrize("wire", WIRES)


def rows(subscriber, market, group, profile="2026-04"):
    """The lines of the group's file that have arrived, each compared with its record."""
    return [market.row_of(group, message.data, profile) for message in subscriber.messages(group)]


@pytest.mark.parametrize(
    ("wire", "profile", "path"),
    [
        ("json", "2025-11", "/negotiate"),
        ("json", "2026-04", "/v2/negotiate"),
        ("json.reliable", "2026-04", "/v2/negotiate"),
    ],
)
def test_every_hub_serves_its_records_with_every_field_exact(market_server, market, wire, profile, path):
    with contextlib.ExitStack() as connections:
        for hub in HUBS:
            url = market_server.websocket_url(path, hub=hub)
            subscriber = connections.enter_context(Subscriber(url, wire))
            group = groups_of("ES_SPX", hub)[-1]
            subscriber.client.join_group(group)
            for message in subscriber.wait_for(5, group):
                assert message.data_type == WebPubSubDataType.PROTOBUF
                assert (message.sequence_id is not None) == (wire == "json.reliable")
            assert len(set(rows(subscriber, market, group, profile))) >= 5


@every_wire
def test_a_v2_hub_serves_the_spot_price_beside_the_records_with_the_same_timestamps(market_server, market, wire):
    with contextlib.ExitStack() as connections:
        for hub in ("v2_classic", "v2_state_greeks_one"):
            url = market_server.websocket_url(hub=hub)
            subscriber = connections.enter_context(Subscriber(url, wire))
            group, spot = groups_of("ES_SPX", hub)[0], spot_group_of("ES_SPX")
            subscriber.client.join_group(spot)
            subscriber.client.join_group(group)
            subscriber.wait_for(5, group)
            # The spot price of the last record may still be under way.
            subscriber.wait_for_more(2, spot)
            records, spots = rows(subscriber, market, group), rows(subscriber, market, spot)
            assert set(records[:5]) <= set(spots), "each record has its spot price"


@pytest.mark.parametrize("hub", ["classic", "state_greeks"])
def test_a_current_hub_refuses_the_spot_group_and_groups_of_other_hubs(market_server, hub):
    url = f"ws://127.0.0.1:{market_server.port}/client/hubs/{hub}?access_token=my-key"
    with Subscriber(url, "json", message_retry_total=0) as subscriber:
        for group in (spot_group_of("ES_SPX"), "blue_ES_SPX_state_gex_full"):
            with pytest.raises(SendMessageError) as refusal:
                subscriber.client.join_group(group)
            assert refusal.value.error_detail.name == "Forbidden"


@pytest.mark.parametrize(
    ("hub", "group", "payload"),
    [
        ("v2_classic", "blue_SPX_classic_gex_full", "gex_full"),
        ("v2_state_greeks_zero", "blue_SPX_state_gamma_zero", "gamma_zero"),
        ("v2_classic", "blue_SPX_spot", "spot"),
    ],
)
def test_what_arrives_of_the_example_records_are_the_golden_bytes(market_server, hub, group, payload):
    golden = (FIXTURES / f"{payload}.payload.bin").read_bytes()
    type_url = {"gex_full": "proto.gex", "gamma_zero": "proto.greek", "spot": "proto.spot"}[payload]
    with Subscriber(market_server.websocket_url(hub=hub), "json.reliable") as subscriber:
        subscriber.client.join_group(group)
        for message in subscriber.wait_for(2, group):
            assert unpacked(message.data) == (type_url, golden)


def test_a_cut_connection_of_a_classic_hub_is_recovered_with_nothing_lost_and_nothing_twice(
    market_server, market_proxy, market
):
    groups = groups_of("ES_SPX", "v2_classic") + [spot_group_of("ES_SPX")]
    with Subscriber(market_proxy.through(market_server.websocket_url(hub="v2_classic")), "json.reliable") as subscriber:
        for group in groups:
            subscriber.client.join_group(group)
        subscriber.wait_for(3, groups[-1])

        # The network swallows records, the first of them in the middle of a frame, before the cut shows.
        before = len(market_proxy.connections[0].received_messages())
        market_proxy.hold(after_bytes=100)
        wait_until(
            lambda: len(market_proxy.connections[0].received_messages()) > before + 8,
            "records that are lost on the way",
        )
        market_proxy.cut()

        for group in groups:
            subscriber.wait_for_more(6, group)
            # In the SDK's threads the last ones may have overtaken another.
            messages = sorted(subscriber.messages(group), key=lambda message: message.sequence_id)[:-2]
            assert_consecutive([market.row_of(group, message.data) for message in messages], market.records)
        assert len(subscriber.connected) == 1, "recovered, not connected anew"
        assert "awps_reconnection_token=" in market_proxy.connections[1].request_line
