// Reads a JSON list of upstream messages on stdin, writes the list of their texts on stdout, each text made
// by the serializer of @azure/web-pubsub-client. Used by tests/fixtures/golden/make_golden.py.

import { readFileSync } from "node:fs";
import { WebPubSubJsonProtocol } from "@azure/web-pubsub-client";

const protocol = WebPubSubJsonProtocol();

/** Binary data cannot stand in JSON, so it comes as `{"base64": …}`. */
function withBinaryData(message) {
  const base64 = message.data?.base64;
  if (base64 === undefined) {
    return message;
  }
  return { ...message, data: new Uint8Array(Buffer.from(base64, "base64")).buffer };
}

const messages = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(messages.map((message) => protocol.writeMessage(withBinaryData(message)))));
