// The two protobuf subprotocols as protocol objects for the `protocol` option of Azure's WebPubSubClient, made
// from proto/webpubsub.proto. The SDK has none of its own; Azure's add-on is not on the registry.

import { fileURLToPath } from "node:url";
import protobuf from "protobufjs";

const root = new protobuf.Root().loadSync(fileURLToPath(new URL("../../../proto/webpubsub.proto", import.meta.url)), {
  keepCase: true,
});
const UpstreamMessage = root.lookupType("webpubsub.UpstreamMessage");
const DownstreamMessage = root.lookupType("webpubsub.DownstreamMessage");

export function protobufProtocol() {
  return protocolNamed("protobuf.webpubsub.azure.v1", false);
}

export function protobufReliableProtocol() {
  return protocolNamed("protobuf.reliable.webpubsub.azure.v1", true);
}

function protocolNamed(name, isReliableSubProtocol) {
  return { name, isReliableSubProtocol, parseMessages, writeMessage };
}

function writeMessage(message) {
  const members = upstreamMembers(message);
  const problem = UpstreamMessage.verify(members);
  if (problem) {
    throw new TypeError(problem);
  }
  return UpstreamMessage.encode(UpstreamMessage.fromObject(members)).finish();
}

function upstreamMembers(message) {
  switch (message.kind) {
    case "joinGroup":
      return { join_group: { group: message.group, ack_id: message.ackId } };
    case "leaveGroup":
      return { leave_group: { group: message.group, ack_id: message.ackId } };
    case "sendToGroup":
      return {
        send_to_group: {
          group: message.group,
          ack_id: message.ackId,
          no_echo: message.noEcho,
          data: upstreamData(message.data, message.dataType),
        },
      };
    case "sendEvent":
      return {
        event: { event: message.event, ack_id: message.ackId, data: upstreamData(message.data, message.dataType) },
      };
    case "sequenceAck":
      return { sequence_ack: { sequence_id: message.sequenceId } };
    case "ping":
      return { ping: {} };
    default:
      throw new TypeError(`the protobuf subprotocols have no ${message.kind}`);
  }
}

function upstreamData(data, dataType) {
  switch (dataType) {
    case "text":
      return { text_data: data };
    case "json":
      return { json_data: JSON.stringify(data) };
    case "binary":
      return { binary_data: new Uint8Array(data) };
    case "protobuf":
      return { protobuf_data: data };
    default:
      throw new TypeError(`unknown data type ${dataType}`);
  }
}

function parseMessages(input) {
  if (!(input instanceof ArrayBuffer)) {
    throw new TypeError("the protobuf subprotocols carry binary frames only");
  }
  // Numbers, not `Long`: the SDK compares sequence ids and ack ids as numbers.
  const message = DownstreamMessage.toObject(DownstreamMessage.decode(new Uint8Array(input)), { longs: Number });
  const { ack, data, system, pong } = message;
  if (ack) {
    return { kind: "ack", ackId: ack.ack_id, success: ack.success ?? false, error: ack.error };
  }
  if (system?.connected) {
    const { connection_id: connectionId, user_id: userId, reconnection_token: reconnectionToken } = system.connected;
    return { kind: "connected", connectionId, userId, reconnectionToken };
  }
  if (system?.disconnected) {
    return { kind: "disconnected", message: system.disconnected.reason };
  }
  if (data) {
    const kind = { group: "groupData", server: "serverData" }[data.from];
    return { kind, group: data.group, sequenceId: data.sequence_id, ...downstreamData(data.data) };
  }
  if (pong) {
    return { kind: "pong" };
  }
  throw new TypeError("a downstream message that is none of the known ones");
}

function downstreamData(data) {
  if (data.text_data !== undefined) {
    return { dataType: "text", data: data.text_data };
  }
  if (data.json_data !== undefined) {
    return { dataType: "json", data: JSON.parse(data.json_data) };
  }
  if (data.binary_data !== undefined) {
    return { dataType: "binary", data: data.binary_data };
  }
  return { dataType: "protobuf", data: data.protobuf_data };
}
