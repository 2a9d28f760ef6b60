// The Azure Web PubSub subprotocols as a client speaks them, JSON and protobuf, and the payload inside.
import encoding from 'k6/encoding';

import { decompress } from '../vendor/fzstd.js';
import { field, fields, text } from './protobuf.js';

export const SUBPROTOCOLS = {
  json: 'json.webpubsub.azure.v1',
  'json.reliable': 'json.reliable.webpubsub.azure.v1',
  protobuf: 'protobuf.webpubsub.azure.v1',
  'protobuf.reliable': 'protobuf.reliable.webpubsub.azure.v1',
};

export const isReliable = (protocol) => protocol.endsWith('.reliable');
const isProtobuf = (protocol) => protocol.startsWith('protobuf');

export function joinGroup(protocol, group, ackId) {
  if (!isProtobuf(protocol)) return JSON.stringify({ type: 'joinGroup', group, ackId });
  const join = [...field(1, group), ...field(2, ackId)];
  return new Uint8Array(field(6, join)).buffer;
}

export function sequenceAck(protocol, sequenceId) {
  if (!isProtobuf(protocol)) return JSON.stringify({ type: 'sequenceAck', sequenceId });
  return new Uint8Array(field(8, field(1, sequenceId))).buffer;
}

// One message as { kind: 'connected' | 'ack' | 'data' | 'other', … }; a data message keeps its payload
// encoded in `any` (see readRecord), because only a share of them is looked into.
export function readMessage(protocol, data) {
  return isProtobuf(protocol) ? readProtobuf(new Uint8Array(data)) : readJson(JSON.parse(data));
}

function readJson(message) {
  if (message.type === 'message') {
    return { kind: 'data', from: message.from, group: message.group, sequenceId: message.sequenceId, base64: message.data };
  }
  if (message.type === 'ack') {
    return { kind: 'ack', ackId: message.ackId, success: message.success, error: message.error };
  }
  return { kind: message.event === 'connected' ? 'connected' : 'other' };
}

function readProtobuf(bytes) {
  const { 1: ack, 2: data, 3: system } = fields(bytes);
  if (data) {
    const message = fields(data[0]);
    const content = fields(message[3][0]);
    return {
      kind: 'data',
      from: text(message[1][0]),
      group: text(message[2][0]),
      sequenceId: message[4] && message[4][0],
      any: content[3][0],
    };
  }
  if (ack) {
    const message = fields(ack[0]);
    const error = message[3] && fields(message[3][0]);
    return {
      kind: 'ack',
      ackId: message[1][0],
      success: Boolean(message[2] && message[2][0]),
      error: error && { name: text(error[1][0]), message: text(error[2][0]) },
    };
  }
  return { kind: system && fields(system[0])[1] ? 'connected' : 'other' };
}

// The record in a data message, as far as all kinds have the same: { typeUrl, timestamp, ticker, spot }. The whole
// record is walked; `spotField` is where its kind has the price.
export function readRecord(message, spotField) {
  const any = fields(message.any || new Uint8Array(encoding.b64decode(message.base64)));
  const record = fields(decompress(any[2][0]));
  return {
    typeUrl: text(any[1][0]),
    timestamp: record[1] ? record[1][0] : 0,
    ticker: record[2] ? text(record[2][0]) : '',
    spot: record[spotField] ? record[spotField][0] : 0,
  };
}
