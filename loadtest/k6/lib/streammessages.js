// What the server says on the JSON streams (GET /ws), checked key by key. `faults(message)` is the list of what
// is wrong with it, empty for a good one. Absent values are left out, never null; unknown keys are fine.

export const TRADING = ['price_updates', 'signals', 'trades', 'portfolio'];
export const ERROR_CODES = [
  'invalid_message', 'unknown_type', 'unknown_channel', 'forbidden_channel', 'limit_exceeded', 'too_large',
];

const RFC3339_UTC = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isName = (value) => typeof value === 'string' && value !== '';
const isNumber = (value) => Number.isFinite(value);
const isOneOf = (...values) => (value) => values.includes(value);
const isTime = (value) => RFC3339_UTC.test(value) && !Number.isNaN(Date.parse(value));

// `required` and `optional` map keys to tests.
function wrong(object, required, optional = {}) {
  if (!isObject(object)) return [`expected an object, got ${JSON.stringify(object)}`];
  const bad = (key, test) => !test(object[key]) && `${key} is ${JSON.stringify(object[key])}`;
  return [
    ...Object.keys(required).map((key) => bad(key, required[key])),
    ...Object.keys(optional).map((key) => key in object && bad(key, optional[key])),
  ].filter(Boolean);
}

const near = (one, other, tolerance) => Math.abs(one - other) <= tolerance;

function price(symbol, state) {
  const optional = {};
  for (const key of ['change', 'change_pct', 'volume', 'high', 'low', 'open', 'close']) optional[key] = isNumber;
  const found = wrong(state, { price: isNumber }, optional);
  if (found.length > 0) return found;
  const rules = {
    'price over high': !('high' in state) || state.price <= state.high,
    'price under low': !('low' in state) || state.price >= state.low,
    'close is not the price': !('close' in state) || state.close === state.price,
    'percentage without change': !('change_pct' in state) || 'change' in state,
    // Two decimals, of the reference that price and change imply.
    'percentage is of another change': !('change_pct' in state) || state.price === state.change
      || near(state.change_pct, (100 * state.change) / (state.price - state.change), 0.0051),
  };
  return Object.keys(rules).filter((rule) => !rules[rule]).map((rule) => `${symbol}: ${rule}`);
}

function position(symbol, held) {
  const optional = {};
  for (const key of ['average_price', 'market_price', 'unrealized_pnl', 'unrealized_pnl_pct']) optional[key] = isNumber;
  return wrong(held, { symbol: (name) => name === symbol, quantity: isNumber }, optional);
}

const each = (map, test) => Object.keys(map).flatMap((key) => test(key, map[key]));

const shapes = {
  pong: () => [],
  subscribed: (message) => wrong(
    message, { channels: (list) => Array.isArray(list) && list.every(isName) }, { symbols: isObject },
  ),
  error: (message) => wrong(message, { error: isName, code: isOneOf(...ERROR_CODES), timestamp: isTime }),
  message: (message) => [
    ...wrong(message, { channel: isName, timestamp: isTime }, { key: (key) => typeof key === 'string' }),
    ...('payload' in message ? [] : ['no payload']),
    ...(TRADING.includes(message.channel) ? [`a topic named ${message.channel}`] : []),
  ],
  price_update: (message) => {
    const found = wrong(message, { symbols: isObject, timestamp: isTime });
    if (found.length > 0) return found;
    return Object.keys(message.symbols).length === 0 ? ['no symbols'] : each(message.symbols, price);
  },
  signal: (message) => wrong(
    message,
    { signal_type: isOneOf('BUY', 'SELL', 'HOLD'), symbol: isName, timestamp: isTime },
    { price: isNumber, quantity: isNumber, confidence: (share) => share >= 0 && share <= 1 },
  ),
  trade_executed: (message) => wrong(
    message,
    { side: isOneOf('BUY', 'SELL'), symbol: isName, quantity: isNumber, price: isNumber, timestamp: isTime },
  ),
  portfolio_update: (message) => {
    const found = wrong(message, { channel: isOneOf('portfolio'), timestamp: isTime, data: isObject });
    if (found.length > 0) return found;
    const { data } = message;
    const more = wrong(data, { positions: isObject }, { total_pnl: isNumber, position_count: Number.isInteger });
    if (more.length > 0) return more;
    const count = Object.keys(data.positions).length;
    const isCounted = !('position_count' in data) || data.position_count === count;
    return [...each(data.positions, position), ...(isCounted ? [] : [`${count} positions, not ${data.position_count}`])];
  },
};

export const KINDS = Object.keys(shapes);

export function faults(message) {
  if (!isObject(message) || !isName(message.type)) return ['no object with a type'];
  const shape = shapes[message.type];
  return shape ? shape(message) : [`unknown type ${message.type}`];
}
