// Orderflow over Azure Web PubSub subprotocols: many sockets per VU, each joins the groups of all
// tickers and receives for DURATION. Runs as it is:
//
//   k6 run -e BASE_URL=http://127.0.0.1:8080 -e VUS=4 -e CONNECTIONS_PER_VU=50 -e DURATION=30s orderflow.js
//
// The orderflow wire carries no publish time. The tick schedule is learnt from the server's tick ledger
// (GET /ticks), and a frame's latency is counted from the scheduled time of its tick: the first frame
// of a group belongs to the latest tick due, each further frame to the next one, so a server that
// falls behind cannot hide it. Without a ledger (the real service) there is no schedule: connections,
// acks, order and contents are still checked, latency and completeness are not.
import http from 'k6/http';
import { check, fail } from 'k6';
import { WebSocket } from 'k6/experimental/websockets';
import { Counter, Trend } from 'k6/metrics';

import { SUBPROTOCOLS, isReliable, joinGroup, readMessage, readRecord, sequenceAck } from './lib/webpubsub.js';

const BASE_URL = (__ENV.BASE_URL || 'http://127.0.0.1:8080').replace(/\/$/, '');
const VUS = Number(__ENV.VUS || 2);
const CONNECTIONS_PER_VU = Number(__ENV.CONNECTIONS_PER_VU || 20);
const DURATION_S = seconds(__ENV.DURATION || '10s');
const TICKERS = (__ENV.TICKERS || '').split(',').filter(Boolean);
const PROTOCOLS = (__ENV.PROTOCOLS || 'json.reliable,protobuf,json,protobuf.reliable').split(',');
const API = __ENV.API || 'v2';
const KEY = __ENV.KEY || 'k6';
const SAMPLE = Number(__ENV.SAMPLE || 0.05);
const P99_MS = Number(__ENV.P99_MS || 250);

// Connections, joins and closing, on top of the time measured.
const OVERHEAD_S = 20;
// Between two connections of a VU.
const STAGGER_MS = 5;

const connectionFailures = new Counter('connection_failures');
const joinFailures = new Counter('join_failures');
const badRecords = new Counter('bad_records');
const orderFaults = new Counter('order_faults');
const missingMessages = new Counter('missing_messages');
const messages = new Counter('messages');
const recordsChecked = new Counter('records_checked');
const latency = new Trend('delivery_latency', true);

export const options = {
  scenarios: {
    orderflow: {
      executor: 'per-vu-iterations',
      vus: VUS,
      iterations: 1,
      maxDuration: `${DURATION_S + 2 * OVERHEAD_S}s`,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    connection_failures: ['count==0'],
    join_failures: ['count==0'],
    bad_records: ['count==0'],
    order_faults: ['count==0'],
    missing_messages: ['count==0'],
    messages: ['count>0'],
    records_checked: ['count>0'],
    delivery_latency: [`p(99)<${P99_MS}`],
  },
};

function seconds(text) {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) || fail(`DURATION is ${text}, not like 30s`);
  return Number(amount) * { ms: 0.001, s: 1, m: 60, h: 3600 }[unit];
}

function negotiate() {
  const path = API === 'v1' ? '/negotiate' : '/v2/negotiate';
  const authorization = `${API === 'v1' ? 'Basic' : 'Bearer'} ${KEY}`;
  const response = http.get(`${BASE_URL}${path}`, { headers: { authorization }, tags: { name: 'negotiate' } });
  if (!check(response, { 'negotiate answers 200': (answer) => answer.status === 200 })) return null;
  const { websocket_urls: urls, prefix } = response.json();
  return { url: urls.orderflow, prefix };
}

// The tickers to join: given, or all the server has.
export function setup() {
  if (TICKERS.length > 0) return { tickers: TICKERS };
  const response = http.get(`${BASE_URL}/tickers`);
  if (response.status !== 200) fail(`GET /tickers: HTTP ${response.status}; name them with TICKERS`);
  const { stocks = [], indexes = [], futures = [] } = response.json();
  const tickers = [...stocks, ...indexes, ...futures];
  if (tickers.length === 0) fail('the server has no tickers');
  return { tickers };
}

// The tick schedule as { base, interval } in Unix ms; null without a ledger. Asked once per VU, when
// data flows: a server without subscribers publishes nothing and has an empty ledger.
function schedule() {
  const newest = http.get(`${BASE_URL}/ticks?limit=1&after=${2 ** 52}`, { tags: { name: 'ticks' } });
  if (newest.status !== 200) return null;
  const after = Math.max(newest.json('newest') - 2, 0);
  const ticks = http.get(`${BASE_URL}/ticks?limit=2&after=${after}`, { tags: { name: 'ticks' } }).json('ticks');
  if (ticks.length < 2) return undefined;
  const [one, two] = ticks.map((tick) => ({ ordinal: tick.ordinal, due: tick.scheduled_unix_ns / 1e6 }));
  return { base: two.due, interval: (two.due - one.due) / (two.ordinal - one.ordinal) };
}

export default function ({ tickers }) {
  // One schedule for all sockets of the VU; undefined until it could be learnt.
  const vu = { schedule: undefined };
  for (let number = 0; number < CONNECTIONS_PER_VU; number += 1) {
    const protocol = PROTOCOLS[((__VU - 1) * CONNECTIONS_PER_VU + number) % PROTOCOLS.length];
    setTimeout(() => connect(vu, tickers, protocol), number * STAGGER_MS);
  }
}

function connect(vu, tickers, protocol) {
  const grant = negotiate();
  if (!grant) {
    connectionFailures.add(1);
    return;
  }
  const groups = tickers.map((ticker) => `${grant.prefix}_${ticker}_orderflow_orderflow`);
  const socket = new WebSocket(grant.url, SUBPROTOCOLS[protocol], { tags: { protocol } });
  socket.binaryType = 'arraybuffer';
  const state = { protocol, groups, vu, unacked: new Set(), lastSequence: 0, perGroup: {}, isDone: false };
  const setupTimer = setTimeout(() => {
    joinFailures.add(state.unacked.size);
    if (state.unacked.size === groups.length) connectionFailures.add(1);
  }, OVERHEAD_S * 1000);

  socket.addEventListener('message', ({ data }) => {
    let message;
    try {
      message = readMessage(protocol, data);
    } catch (error) {
      badRecords.add(1);
      console.error(`unreadable message on ${protocol}: ${error}`);
      return;
    }
    if (message.kind === 'connected') {
      groups.forEach((group, index) => {
        state.unacked.add(index + 1);
        socket.send(joinGroup(protocol, group, index + 1));
      });
    } else if (message.kind === 'ack') {
      onAck(state, message);
      if (state.unacked.size === 0) clearTimeout(setupTimer);
    } else if (message.kind === 'data') {
      onData(state, message);
    }
  });
  socket.addEventListener('error', ({ error }) => {
    if (state.isDone) return;
    connectionFailures.add(1);
    console.error(`${protocol}: ${error}`);
  });
  socket.addEventListener('close', () => {
    clearTimeout(setupTimer);
    clearInterval(acks);
    if (!state.isDone) connectionFailures.add(1);
  });
  const acks = setInterval(() => {
    if (isReliable(protocol) && state.lastSequence > 0) socket.send(sequenceAck(protocol, state.lastSequence));
  }, 1000);
  setTimeout(() => {
    state.isDone = true;
    finish(state);
    socket.close();
  }, DURATION_S * 1000);
}

function onAck(state, { ackId, success, error }) {
  if (!check(success, { 'join is acknowledged': (ok) => ok === true })) {
    joinFailures.add(1);
    console.error(`join refused: ${JSON.stringify(error)}`);
  }
  state.unacked.delete(ackId);
}

function onData(state, message) {
  const now = Date.now();
  messages.add(1);
  const known = state.perGroup[message.group];
  if (!known && !state.groups.includes(message.group)) {
    badRecords.add(1);
    return;
  }
  if (isReliable(state.protocol)) {
    if (!(message.sequenceId > state.lastSequence)) orderFaults.add(1);
    state.lastSequence = message.sequenceId;
  }
  if (!known || Math.random() < SAMPLE) checkRecord(message, known);
  time(state, message.group, now);
}

function checkRecord(message, known) {
  recordsChecked.add(1);
  try {
    const record = readRecord(message);
    const isGood = check({ message, record }, {
      'data comes from a group': ({ message: { from } }) => from === 'group',
      'payload is proto.orderflow': ({ record: { typeUrl } }) => typeUrl.includes('proto.orderflow'),
      'record is of its group': ({ record: { ticker } }) => message.group.includes(`_${ticker}_orderflow_`),
      'record has a time and a spot': ({ record: { timestamp, spot } }) => timestamp > 1e9 && spot > 0,
    });
    if (!isGood) badRecords.add(1);
  } catch (error) {
    badRecords.add(1);
    console.error(`unreadable record in ${message.group}: ${error}`);
  }
}

// Counts a frame's latency from its tick, once the schedule is known.
function time(state, group, now) {
  const { vu } = state;
  if (vu.schedule === undefined) {
    vu.schedule = schedule();
    return;
  }
  if (vu.schedule === null) return;
  const { base, interval } = vu.schedule;
  let known = state.perGroup[group];
  if (!known) {
    // The latest tick that was due. Clocks of one host agree to the millisecond Date.now() cuts off.
    known = state.perGroup[group] = { firstDue: base + Math.floor((now + 1 - base) / interval) * interval, frames: 0 };
  }
  const due = known.firstDue + known.frames * interval;
  known.frames += 1;
  known.lastDue = base + Math.floor((now + 1 - base) / interval) * interval;
  latency.add(Math.max(now - due, 0), { protocol: state.protocol });
}

// Every tick from a group's first frame to the end must have come. The last one may still be on its way.
function finish(state) {
  if (!state.vu.schedule) return;
  const { base, interval } = state.vu.schedule;
  const now = Date.now();
  for (const group of state.groups) {
    const known = state.perGroup[group];
    const due = known ? Math.floor((now - base) / interval) - Math.round((known.firstDue - base) / interval) : 1;
    missingMessages.add(Math.max(due - (known ? known.frames : 0), 0));
  }
}
