// GexBot's hubs over Azure Web PubSub subprotocols: many clients per VU, each joins the groups of all
// tickers (their orderflow, unless GROUPS says more) and receives for DURATION. A client has one socket per
// hub. Runs as it is:
//
//   k6 run -e BASE_URL=http://127.0.0.1:8080 -e VUS=4 -e CONNECTIONS_PER_VU=50 -e DURATION=30s orderflow.js
//   k6 run -e GROUPS='classic/gex_full,state/*,spot' -e TICKERS=SPX orderflow.js
//
// These wires carry no publish time. The tick schedule is learnt from the server's tick ledger
// (GET /ticks), and a frame's latency is counted from the scheduled time of its tick: the first frame
// of a group belongs to the latest tick due, each further frame to the next one, so a server that
// falls behind cannot hide it. Without a ledger (the real service) there is no schedule: connections,
// acks, order and contents are still checked, latency and completeness are not.
import http from 'k6/http';
import { check, fail } from 'k6';
import { WebSocket } from 'k6/experimental/websockets';
import { Counter, Trend } from 'k6/metrics';

import { KINDS, byHub, series } from './lib/groups.js';
import { SUBPROTOCOLS, isReliable, joinGroup, readMessage, readRecord, sequenceAck } from './lib/webpubsub.js';

const BASE_URL = (__ENV.BASE_URL || 'http://127.0.0.1:8080').replace(/\/$/, '');
const VUS = Number(__ENV.VUS || 2);
const CONNECTIONS_PER_VU = Number(__ENV.CONNECTIONS_PER_VU || 20);
const DURATION_S = seconds(__ENV.DURATION || '10s');
const TICKERS = (__ENV.TICKERS || '').split(',').filter(Boolean);
const SERIES = series(__ENV.GROUPS || 'orderflow/orderflow');
// POST lets the server join; spot groups cannot be had otherwise.
const IS_POST = (__ENV.NEGOTIATE || '') === 'post' || SERIES.some((one) => !one.package);
const PROTOCOLS = (__ENV.PROTOCOLS || 'json.reliable,protobuf,json,protobuf.reliable').split(',');
const API = __ENV.API || 'v2';
const KEY = __ENV.KEY || 'k6';
const SAMPLE = Number(__ENV.SAMPLE || 0.05);
const P99_MS = Number(__ENV.P99_MS || 250);

// Connections, joins and closing, on top of the time measured.
const OVERHEAD_S = 20;
// Between two connections of a VU.
const STAGGER_MS = 5;
// How long what was due at the end may take.
const LATE_MS = 2000;

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

// The answer to negotiate, or null. A client that POSTs needs a key of its own: a POST ends the sockets of the one
// before it.
function negotiate(hubs, number) {
  const url = `${BASE_URL}${API === 'v1' ? '/negotiate' : '/v2/negotiate'}`;
  const key = IS_POST ? `${KEY}-${__VU}-${number}` : KEY;
  const headers = { authorization: `${API === 'v1' ? 'Basic' : 'Bearer'} ${key}`, 'content-type': 'application/json' };
  const params = { headers, tags: { name: 'negotiate' } };
  const names = Object.values(hubs).flatMap((groups) => groups.map(({ name }) => name));
  const body = JSON.stringify({ groups: [...new Set(names)] });
  const response = IS_POST ? http.post(url, body, params) : http.get(url, params);
  if (!check(response, { 'negotiate answers 200': (answer) => answer.status === 200 })) {
    console.error(`negotiate: HTTP ${response.status} ${response.body}`);
    return null;
  }
  const answer = response.json();
  const hasHubs = Object.keys(hubs).every((hub) => answer.websocket_urls[hub]);
  return check(hasHubs, { 'negotiate names the hubs': (ok) => ok }) ? answer : null;
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
  const hubs = byHub(SERIES, tickers);
  for (let number = 0; number < CONNECTIONS_PER_VU; number += 1) {
    const protocol = PROTOCOLS[((__VU - 1) * CONNECTIONS_PER_VU + number) % PROTOCOLS.length];
    setTimeout(() => start(vu, hubs, protocol, number), number * STAGGER_MS);
  }
}

// One client: a socket per hub.
function start(vu, hubs, protocol, number) {
  const grant = negotiate(hubs, number);
  if (!grant) {
    connectionFailures.add(Object.keys(hubs).length);
    return;
  }
  for (const [hub, groups] of Object.entries(hubs)) {
    // What the server joins has the server's prefix, which POST does not tell.
    const named = groups.map((group) => ({ ...group, name: IS_POST ? group.name : `${grant.prefix}_${group.name}` }));
    connect(vu, grant.websocket_urls[hub], protocol, named);
  }
}

function connect(vu, url, protocol, groups) {
  const socket = new WebSocket(url, SUBPROTOCOLS[protocol], { tags: { protocol } });
  socket.binaryType = 'arraybuffer';
  const wanted = Object.fromEntries(groups.map((group) => [group.name, group]));
  const state = { protocol, wanted, vu, unacked: new Set(), lastSequence: 0, perGroup: {}, isDone: false };
  const setupTimer = setTimeout(() => {
    joinFailures.add(state.unacked.size);
    if (!state.isConnected || state.unacked.size === groups.length) connectionFailures.add(1);
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
      state.isConnected = true;
      if (IS_POST) {
        clearTimeout(setupTimer);
        return;
      }
      groups.forEach(({ name }, index) => {
        state.unacked.add(index + 1);
        socket.send(joinGroup(protocol, name, index + 1));
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
    finish(state, dueFrames(state), Date.now() + LATE_MS, socket);
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
  const name = IS_POST ? message.group.slice(message.group.indexOf('_') + 1) : message.group;
  const group = state.wanted[name];
  if (!group) {
    badRecords.add(1);
    console.error(`a message in ${message.group}, which was not joined`);
    return;
  }
  if (isReliable(state.protocol)) {
    if (!(message.sequenceId > state.lastSequence)) orderFaults.add(1);
    state.lastSequence = message.sequenceId;
  }
  if (!state.perGroup[name] || Math.random() < SAMPLE) checkRecord(message, group);
  time(state, name, now);
}

function checkRecord(message, group) {
  recordsChecked.add(1);
  const kind = KINDS[group.kind];
  try {
    const record = readRecord(message, kind.spot);
    const isGood = check({ message, record }, {
      'data comes from a group': ({ message: { from } }) => from === 'group',
      'payload is of its group\'s kind': ({ record: { typeUrl } }) => typeUrl.includes(kind.typeUrl),
      'record is of its group': ({ record: { ticker } }) => ticker === group.ticker,
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

// How many frames of each group are due by now: every tick from its first frame on, but the last one.
function dueFrames(state) {
  if (!state.vu.schedule) return {};
  const { base, interval } = state.vu.schedule;
  const now = Date.now();
  return Object.fromEntries(Object.keys(state.wanted).map((group) => {
    const known = state.perGroup[group];
    return [group, known ? Math.floor((now - base) / interval) - Math.round((known.firstDue - base) / interval) : 1];
  }));
}

// All that was due must come; on a busy machine some of it is still on its way.
function finish(state, due, until, socket) {
  const missing = Object.entries(due).reduce((sum, [group, frames]) => {
    const known = state.perGroup[group];
    return sum + Math.max(frames - (known ? known.frames : 0), 0);
  }, 0);
  if (missing > 0 && Date.now() < until) {
    setTimeout(() => finish(state, due, until, socket), 50);
    return;
  }
  missingMessages.add(missing);
  socket.close();
}
