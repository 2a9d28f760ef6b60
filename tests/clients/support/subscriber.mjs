// Azure's client for JavaScript as the tests use it.

import { WebPubSubClient, WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } from "@azure/web-pubsub-client";
import { protobufProtocol, protobufReliableProtocol } from "./protobuf_protocol.mjs";
import { waitUntil } from "./waiting.mjs";

export const PROTOCOLS = [
  WebPubSubJsonProtocol,
  WebPubSubJsonReliableProtocol,
  protobufProtocol,
  protobufReliableProtocol,
];

/** The same protocol, with every downstream message kept in `messages`, in the order of the wire. */
function tapped(protocol, messages) {
  return {
    name: protocol.name,
    isReliableSubProtocol: protocol.isReliableSubProtocol,
    writeMessage: (message) => protocol.writeMessage(message),
    parseMessages: (input) => {
      const message = protocol.parseMessages(input);
      messages.push(message);
      return message;
    },
  };
}

/** An SDK client that keeps everything it is told. */
class Subscriber {
  onTheWire = [];
  received = [];
  connected = [];
  disconnected = [];

  static async start(url, protocol, options = {}) {
    const subscriber = new Subscriber();
    subscriber.client = new WebPubSubClient(url, { ...options, protocol: tapped(protocol, subscriber.onTheWire) });
    subscriber.client.on("connected", (event) => subscriber.connected.push(event));
    subscriber.client.on("disconnected", (event) => subscriber.disconnected.push(event));
    subscriber.client.on("group-message", (event) => subscriber.received.push(event.message));
    await subscriber.client.start();
    await waitUntil(() => subscriber.connected.length > 0, "the connected event");
    return subscriber;
  }

  messages(group) {
    return this.received.filter((message) => message.group === group);
  }

  async waitFor(count, group) {
    await waitUntil(() => this.messages(group).length >= count, `${count} records of ${group}`);
  }

  async waitForMore(count, group) {
    await this.waitFor(this.messages(group).length + count, group);
  }
}

/** Runs `body` with a subscriber and stops its client whatever happens. */
export async function withSubscriber(url, protocol, options, body) {
  const subscriber = await Subscriber.start(url, protocol, options);
  try {
    await body(subscriber);
  } finally {
    subscriber.client.stop();
  }
}
