"""Azure's client for Python as the tests use it."""

import threading

from azure.messaging.webpubsubclient import WebPubSubClient
from azure.messaging.webpubsubclient.models import CallbackType, WebPubSubProtocolType

from support.waiting import wait_until

WIRES = {"json": WebPubSubProtocolType.JSON, "json.reliable": WebPubSubProtocolType.JSON_RELIABLE}

# The SDK can miss the wake-up for an event that comes while it is not yet waiting, and then goes on only when its own
# timeout ends (30 s by default), with the right outcome all the same. Shorter ones keep that from stalling a test.
TIMEOUTS = {"start_timeout": 5, "ack_timeout": 5}


class Subscriber:
    """An SDK client that keeps everything it is told."""

    def __init__(self, url, wire, **options):
        self.client = WebPubSubClient(url, protocol_type=WIRES[wire], **TIMEOUTS, **options)
        self.connected = []
        self.disconnected = []
        self.stopped = threading.Event()
        self._messages = []
        self.client.subscribe(CallbackType.CONNECTED, self.connected.append)
        self.client.subscribe(CallbackType.DISCONNECTED, self.disconnected.append)
        self.client.subscribe(CallbackType.STOPPED, self.stopped.set)
        self.client.subscribe(CallbackType.GROUP_MESSAGE, self._messages.append)

    def __enter__(self):
        self.client.open()
        wait_until(lambda: self.connected, "the connected event")
        return self

    def __exit__(self, *_):
        self.client.close()

    def messages(self, group):
        return [message for message in list(self._messages) if message.group == group]

    def wait_for(self, count, group):
        wait_until(lambda: len(self.messages(group)) >= count, f"{count} records of {group}")
        return self.messages(group)

    def wait_for_more(self, count, group):
        return self.wait_for(len(self.messages(group)) + count, group)
