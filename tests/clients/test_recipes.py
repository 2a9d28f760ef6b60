"""What Azure's client for Python and GexBot's client do on bad days: the recipes of docs/faults.md, and its table.

Each recipe is played to three clients at once. The test asserts what the table says; a client that does something
else now makes it fail, with the word that belongs into the table.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from azure.messaging.webpubsubclient import WebPubSubClient, WebPubSubClientCredential
from azure.messaging.webpubsubclient.models import CallbackType, WebPubSubProtocolType

from support.orderflow import Dataset, group_of
from support.recipes import BESIDE, WATCHED, recipes, run, told

# Exceptions in threads of the SDK are among what is watched.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

AT_ONCE = 4


class SdkClient:
    """An application on the SDK: asks for a URL whenever the SDK wants one, and joins its groups once."""

    protocol = WebPubSubProtocolType.JSON

    def __init__(self, watched, server):
        self.watched, self.server = watched, server
        credential = WebPubSubClientCredential(self.url)
        self.client = WebPubSubClient(credential, protocol_type=self.protocol, start_timeout=5, ack_timeout=5)
        self.client.subscribe(CallbackType.CONNECTED, self.on_connected)
        self.client.subscribe(CallbackType.STOPPED, self.on_stopped)
        self.client.subscribe(CallbackType.GROUP_MESSAGE, lambda event: watched.handed(event.group, event.data))
        threading.Thread(target=self.open, daemon=True).start()

    def url(self):
        return self.server.websocket_url(key=self.watched.key)

    def on_connected(self, _event):
        self.watched.connections += 1

    def on_stopped(self):
        self.watched.has_stopped = True

    def open(self):
        try:
            self.client.open()
        except Exception as error:
            # The SDK can miss its own wake-up, and says so although it is connected.
            if not self.watched.connections:
                self.watched.failure = error
                return
        self.opened()

    def opened(self):
        try:
            for ticker in (WATCHED, BESIDE):
                self.client.join_group(group_of(ticker))
            self.watched.has_started = True
        except Exception as error:
            self.watched.failure = error

    def close(self):
        self.client.close()


class ReliableSdkClient(SdkClient):
    protocol = WebPubSubProtocolType.JSON_RELIABLE


class Gexbot(SdkClient):
    """GexBot's client: one negotiation, a URL for good, and the groups joined in the connected handler."""

    protocol = WebPubSubProtocolType.JSON_RELIABLE

    def __init__(self, watched, server):
        self.watched, self.server = watched, server
        try:
            headers = {"Authorization": f"Bearer {watched.key}", "User-Agent": "ExampleClient/1.0"}
            reply = requests.get(f"{server.url}/v2/negotiate", headers=headers, timeout=10)
            reply.raise_for_status()
        except requests.RequestException as error:
            watched.failure, self.client = error, None
            return
        self.client = WebPubSubClient(reply.json()["websocket_urls"]["orderflow"], start_timeout=5, ack_timeout=5)
        self.client.subscribe(CallbackType.CONNECTED, self.on_connected)
        self.client.subscribe(CallbackType.STOPPED, self.on_stopped)
        self.client.subscribe(CallbackType.GROUP_MESSAGE, lambda event: watched.handed(event.group, event.data))
        threading.Thread(target=self.open, daemon=True).start()

    def opened(self):
        """The groups are joined elsewhere."""

    def on_connected(self, event):
        super().on_connected(event)
        for ticker in (WATCHED, BESIDE):
            try:
                self.client.join_group(group_of(ticker))
            except Exception:  # it says so in its log, and goes on
                pass
        self.watched.has_started = True

    def close(self):
        if self.client:
            self.client.close()


CLIENTS = {"Python SDK": SdkClient, "Python SDK, reliable": ReliableSdkClient, "GexBot's client": Gexbot}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    dataset = Dataset(tmp_path_factory.mktemp("recipes"), {WATCHED: 4000, BESIDE: 4000})
    directories = {name: tmp_path_factory.mktemp(name) for name in recipes()}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {name: pool.submit(run, name, dataset, directories[name], CLIENTS) for name in recipes()}
        return {name: result.result() for name, result in runs.items()}


@pytest.mark.parametrize("name", recipes())
def test_a_client_does_what_the_table_says(seen, name):
    expected = told()[name]
    assert seen[name] == {client: expected[client] for client in CLIENTS}
