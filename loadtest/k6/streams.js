// The JSON streams (GET /ws): every VU is one client that walks through the whole protocol and checks each
// message it gets, key by key and against what was published. Runs as it is:
//
//   k6 run -e BASE_URL=http://127.0.0.1:8080 -e TOKEN=$(flowcast token --sub k6) \
//     -e PUBLISH_TOKEN=$(flowcast token --sub k6 --role publisher) loadtest/k6/streams.js
//
// A client first listens to what it is subscribed to unasked, then asks wrongly (each error is checked), then
// subscribes to TOPIC and all trading streams. VU 1 publishes over POST /api/publish: RATE numbered messages a
// second to TOPIC, and one signal, trade and price of the symbol K6 whose numbers everybody knows. The numbers
// tell losses, repetitions and order, and the time in them the latency (Date.now() of one host). Without
// PUBLISH_TOKEN nothing is published and only what the server sends by itself is checked. With RESUMES=n every
// client disconnects n times while VU 1 publishes, and asks for what it missed: nothing may be lost or come twice.
import http from 'k6/http';
import { check, fail } from 'k6';
import exec from 'k6/execution';
import { WebSocket } from 'k6/experimental/websockets';
import { Counter, Trend } from 'k6/metrics';

import { TRADING, faults } from './lib/streammessages.js';

const BASE_URL = (__ENV.BASE_URL || 'http://127.0.0.1:8080').replace(/\/$/, '');
const SOCKET_URL = `${BASE_URL.replace(/^http/, 'ws')}/ws`;
const VUS = Number(__ENV.VUS || 50);
const DURATION_S = seconds(__ENV.DURATION || '20s');
const TOKEN = __ENV.TOKEN || '';
const PUBLISH_TOKEN = __ENV.PUBLISH_TOKEN || '';
const TOPIC = __ENV.TOPIC || 'lines';
const RATE = Number(__ENV.RATE || 10);
const RESUMES = Number(__ENV.RESUMES || 0);
const P99_MS = Number(__ENV.P99_MS || 250);

// Connections and closing, on top of DURATION.
const OVERHEAD_S = 20;
// Between a VU's start and the first publication, and between the last and the end.
const LEAD_S = 4;
const TRAIL_S = 3;
// A price of a symbol nobody else has. 0.5 of 149.75 is 0.33 %.
const PRICE = { symbol: 'K6', price: 150.25, prev_close: 149.75, open: 150, high: 151, low: 149.5, volume: 1000000 };
const TOLD_PRICE = {
  price: 150.25, change: 0.5, change_pct: 0.33, volume: 1000000, high: 151, low: 149.5, open: 150, close: 150.25,
};
const SIGNAL = { signal_type: 'BUY', symbol: 'K6', price: 150.25, quantity: 10, confidence: 0.85 };
const TRADE = { symbol: 'K6', side: 'SELL', quantity: 10, price: 150.25 };
const KINDS = ['pong', 'subscribed', 'error', 'price_update', 'signal', 'trade_executed', 'portfolio_update']
  .concat(PUBLISH_TOKEN ? ['message'] : []);

const connectionFailures = new Counter('connection_failures');
const badMessages = new Counter('bad_messages');
const wrongAnswers = new Counter('wrong_answers');
const orderFaults = new Counter('order_faults');
const missingMessages = new Counter('missing_messages');
const missingKinds = new Counter('missing_kinds');
const publishFailures = new Counter('publish_failures');
const messages = new Counter('messages');
const latency = new Trend('delivery_latency', true);

export const options = {
  scenarios: {
    streams: {
      executor: 'per-vu-iterations',
      vus: VUS,
      iterations: 1,
      maxDuration: `${DURATION_S + OVERHEAD_S}s`,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    iterations: [`count==${VUS}`],
    connection_failures: ['count==0'],
    bad_messages: ['count==0'],
    wrong_answers: ['count==0'],
    order_faults: ['count==0'],
    missing_messages: ['count==0'],
    missing_kinds: ['count==0'],
    publish_failures: ['count==0'],
    ...Object.fromEntries(KINDS.map((kind) => [`messages{kind:${kind}}`, ['count>0']])),
    ...(PUBLISH_TOKEN ? { delivery_latency: [`p(99)<${P99_MS}`] } : {}),
  },
};

function seconds(text) {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) || fail(`DURATION is ${text}, not like 30s`);
  return Number(amount) * { ms: 0.001, s: 1, m: 60, h: 3600 }[unit];
}

function publish(items, token = PUBLISH_TOKEN) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  return http.post(`${BASE_URL}/api/publish`, JSON.stringify(items), { headers, tags: { name: 'publish' } });
}

// What HTTP refuses, once.
export function setup() {
  if (DURATION_S < LEAD_S + TRAIL_S + 3) fail(`DURATION must be at least ${LEAD_S + TRAIL_S + 3}s`);
  const status = http.get(`${BASE_URL}/websocket/status`);
  if (status.status !== 200) fail(`GET /websocket/status: HTTP ${status.status}`);
  if (!PUBLISH_TOKEN) return;
  const signal = { channel: 'signals', data: SIGNAL };
  const reason = (answer) => typeof answer.json('error') === 'string';
  check(publish(signal, ''), { 'publishing without a token is 401': (a) => a.status === 401 && reason(a) });
  check(publish(signal, TOKEN), { 'publishing as a reader is 403': (a) => a.status === 403 && reason(a) });
  const bad = publish([signal, { channel: 'signals', data: { symbol: 'K6' } }]);
  check(bad, {
    'a message out of shape is 422': (answer) => answer.status === 422 && reason(answer),
    'and the others are accepted': (answer) => answer.json('accepted') === 1 && answer.json('refused') === 1,
  });
}

export default function () {
  const id = exec.vu.idInTest;
  const state = {
    kinds: new Set(), asked: [], stage: 'unasked', topic: null, position: null, isDone: false, hasOpened: false,
  };
  const token = TOKEN && `token=${TOKEN}&`;
  const url = `${SOCKET_URL}?${token}client_id=k6-${id}`;
  let socket;
  const say = (message) => socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  const later = [];
  const at = (second, step) => later.push(setTimeout(step, second * 1000));

  const connect = (whenOpen) => {
    socket = new WebSocket(url);
    listen(state, socket, later, id, () => socket, whenOpen);
  };
  const comeBack = () => {
    const left = socket;
    state.asked = [];
    connect(() => resume(state, say));
    left.close();
  };
  connect(() => {
    state.hasOpened = true;
    at(0, () => ask(state, say, { type: 'ping' }, (answer) => answer.type === 'pong'));
    at(0.2, () => askWrongly(state, say));
    at(1, () => subscribe(state, say));
    if (id === 1 && PUBLISH_TOKEN) at(LEAD_S, () => keepPublishing(later));
    // Apart from one another, and done a while before the end.
    const stay = (DURATION_S - LEAD_S - TRAIL_S - 1) / (RESUMES + 1);
    for (let n = 1; n <= RESUMES; n += 1) at(LEAD_S + stay * (n - 1 + Math.random()), comeBack);
    at(DURATION_S, () => {
      state.isDone = true;
      finish(state);
      socket.close();
    });
  });
}

// Only the newest socket of a client is heard.
function listen(state, socket, later, id, newest, whenOpen) {
  socket.addEventListener('open', whenOpen);
  socket.addEventListener('message', ({ data }) => socket === newest() && onMessage(state, data));
  socket.addEventListener('error', ({ error }) => {
    if (state.isDone || socket !== newest()) return;
    connectionFailures.add(1);
    console.error(`client ${id}: ${error}`);
    if (!state.hasOpened) later.forEach(clearTimeout);
  });
  socket.addEventListener('close', () => {
    if (socket !== newest()) return;
    if (!state.isDone) connectionFailures.add(1);
    later.forEach(clearTimeout);
  });
}

// Answers come in the order of the questions; `isRight` judges the next pong, error or subscribed.
function ask(state, say, message, isRight) {
  state.asked.push({ message, isRight });
  say(message);
}

function askWrongly(state, say) {
  const isError = (code) => (answer) => answer.type === 'error' && answer.code === code;
  ask(state, say, 'no JSON', isError('invalid_message'));
  ask(state, say, { type: 'dance' }, isError('unknown_type'));
  // Refused whole: the known channel beside the unknown one changes nothing.
  ask(state, say, { type: 'subscribe', channels: [TOPIC, 'no such channel'] }, isError('unknown_channel'));
  ask(state, say, { type: 'subscribe', channel: TOPIC, symbols: ['AAPL'] }, isError('invalid_message'));
}

function subscribe(state, say) {
  const isExactly = (...channels) => (answer) => answer.type === 'subscribed'
    && JSON.stringify([...answer.channels].sort()) === JSON.stringify([...channels].sort());
  ask(state, say, { type: 'subscribe', channels: [TOPIC] }, (answer) => {
    state.stage = 'topic';
    return isExactly(TOPIC)(answer);
  });
  ask(state, say, { type: 'subscribe', channel: 'signals', symbols: ['K6'] }, (answer) => (
    isExactly(TOPIC, 'signals')(answer) && JSON.stringify(answer.symbols) === '{"signals":["K6"]}'
  ));
  ask(state, say, { type: 'unsubscribe', channel: 'signals', symbols: ['K6'] }, isExactly(TOPIC));
  ask(state, say, { type: 'subscribe', channels: TRADING }, (answer) => {
    state.stage = 'all';
    return isExactly(TOPIC, ...TRADING)(answer);
  });
}

// A new connection goes on where the last one was, and says so before anything else.
function resume(state, say) {
  const { position } = state;
  const since = position && { since: position };
  ask(state, say, { type: 'subscribe', channels: [TOPIC], ...since }, (answer) => answer.type === 'subscribed'
    && (!position || answer.positions[TOPIC].recovered === true));
  ask(state, say, { type: 'subscribe', channels: TRADING }, (answer) => answer.type === 'subscribed');
}

function onMessage(state, data) {
  const now = Date.now();
  let message;
  try {
    message = JSON.parse(data);
  } catch (error) {
    badMessages.add(1);
    console.error(`no JSON: ${error}`);
    return;
  }
  const found = faults(message);
  if (found.length > 0) {
    badMessages.add(1);
    console.error(`${found.join('; ')} in ${data}`);
    return;
  }
  state.kinds.add(message.type);
  messages.add(1, { kind: message.type });
  if (['pong', 'subscribed', 'error'].includes(message.type)) {
    onAnswer(state, message);
  } else if (message.type === 'message') {
    onTopic(state, message, now);
  } else {
    onTrading(state, message, data);
  }
}

function onAnswer(state, answer) {
  const { message, isRight } = state.asked.shift() || { message: 'nothing', isRight: () => false };
  if (!check(answer, { 'the answer is the right one': isRight })) {
    wrongAnswers.add(1);
    console.error(`${JSON.stringify(message)} was answered with ${JSON.stringify(answer)}`);
  }
}

function onTopic(state, { channel, payload, epoch, seq }, now) {
  if (state.stage === 'unasked' || channel !== TOPIC) {
    badMessages.add(1);
    console.error(`a message of ${channel}, which was not subscribed to`);
    return;
  }
  if (epoch) state.position = { epoch, seq };
  if (!payload || payload.by !== 'k6') return;
  if (state.topic !== null && payload.seq !== state.topic + 1) {
    orderFaults.add(1);
    console.error(`number ${payload.seq} after ${state.topic}`);
  }
  state.topic = payload.seq;
  state.last = payload.last;
  latency.add(now - payload.sent_ms);
}

// What VU 1 published must come as it was published.
function onTrading(state, message, data) {
  const told = (known) => Object.keys(known).every((key) => message[key] === known[key]);
  const rules = {
    price_update: () => !('K6' in message.symbols)
      || Object.keys(TOLD_PRICE).every((key) => message.symbols.K6[key] === TOLD_PRICE[key]),
    signal: () => message.symbol !== 'K6' || told(SIGNAL),
    trade_executed: () => message.symbol !== 'K6' || told(TRADE),
    portfolio_update: () => true,
  };
  const isSubscribed = state.stage !== 'topic' || message.symbol === 'K6';
  if (!isSubscribed || !rules[message.type]()) {
    badMessages.add(1);
    console.error(`${isSubscribed ? 'not as published' : 'not subscribed to'}: ${data}`);
    return;
  }
  const isOurs = message.symbol === 'K6' || (message.symbols && 'K6' in message.symbols);
  if (isOurs && state.stage === 'all') state.kinds.add(`own ${message.type}`);
}

function keepPublishing(later) {
  const last = Math.max(Math.floor((DURATION_S - LEAD_S - TRAIL_S) * RATE), 1);
  const accepted = (items) => {
    const answer = publish(items);
    if (!check(answer, { 'everything is accepted': (a) => a.status === 200 && a.json('accepted') === items.length })) {
      publishFailures.add(1);
      console.error(`publishing: HTTP ${answer.status} ${answer.body}`);
    }
  };
  accepted([
    { channel: 'price_updates', data: PRICE },
    { channel: 'signals', data: SIGNAL },
    { channel: 'trades', data: TRADE },
  ]);
  let seq = 0;
  const timer = setInterval(() => {
    seq += 1;
    accepted([{ channel: TOPIC, data: { by: 'k6', seq, last, sent_ms: Date.now() } }]);
    if (seq === last) clearInterval(timer);
  }, 1000 / RATE);
  later.push(timer);
}

// From its first number on a client must have received all; and each kind at least once.
function finish(state) {
  if (PUBLISH_TOKEN) missingMessages.add(state.topic === null ? 1 : state.last - state.topic);
  const wanted = PUBLISH_TOKEN ? [...KINDS, 'own price_update', 'own signal', 'own trade_executed'] : KINDS;
  const missing = wanted.filter((kind) => !state.kinds.has(kind));
  missingKinds.add(missing.length);
  if (missing.length > 0) console.error(`never received: ${missing.join(', ')}`);
  if (state.asked.length > 0) {
    wrongAnswers.add(state.asked.length);
    console.error(`never answered: ${JSON.stringify(state.asked[0].message)}`);
  }
}
