// Groups and hubs as the vendor's clients know them (docs/protocols/gexbot.md, "Hubs and groups").
const GEX = ['gex_full', 'gex_zero', 'gex_one'];
const GREEKS = ['delta', 'gamma', 'vanna', 'charm'];
const CATEGORIES = {
  classic: GEX,
  state: [...GEX, ...['zero', 'one'].flatMap((expiry) => GREEKS.map((greek) => `${greek}_${expiry}`))],
  orderflow: ['orderflow'],
};

// The type URL of each kind of payload, and the field of its record that holds the spot price.
export const KINDS = {
  gex: { typeUrl: 'proto.gex', spot: 5 },
  greek: { typeUrl: 'proto.greek', spot: 3 },
  orderflow: { typeUrl: 'proto.orderflow', spot: 3 },
  spot: { typeUrl: 'proto.spot', spot: 3 },
};

// What GROUPS asks for: package/category, package/* or spot, as [{ package, category }]; spot has no package.
export function series(text) {
  return text.split(',').filter(Boolean).flatMap((word) => {
    if (word === 'spot') return [{}];
    const [name, category] = word.split('/');
    if (!CATEGORIES[name] || !category) throw new Error(`GROUPS: ${word} is not like classic/gex_full, state/* or spot`);
    return (category === '*' ? CATEGORIES[name] : [category]).map((one) => ({ package: name, category: one }));
  });
}

function hubOf({ package: name, category }) {
  if (name !== 'state') return name;
  if (category.startsWith('gex_')) return 'state_gex';
  const expiry = /_(zero|one)$/.exec(category);
  return expiry ? `state_greeks_${expiry[1]}` : 'state_greeks';
}

function kindOf({ package: name, category }) {
  if (!name) return 'spot';
  if (name === 'orderflow') return 'orderflow';
  return name === 'classic' || category.startsWith('gex_') ? 'gex' : 'greek';
}

// The groups of all tickers, unprefixed, by hub: { hub: [{ name, ticker, kind }] }. With a spot group among them
// the hubs are v2 hubs, and a ticker's spot group is on each.
export function byHub(wanted, tickers) {
  const hasSpot = wanted.some((one) => !one.package);
  const hubs = {};
  for (const one of wanted.filter((other) => other.package)) {
    const hub = `${hasSpot ? 'v2_' : ''}${hubOf(one)}`;
    const groups = tickers.map((ticker) => ({ name: `${ticker}_${one.package}_${one.category}`, ticker, kind: kindOf(one) }));
    (hubs[hub] = hubs[hub] || []).push(...groups);
  }
  if (hasSpot) {
    const spots = tickers.map((ticker) => ({ name: `${ticker}_spot`, ticker, kind: 'spot' }));
    Object.values(hubs).forEach((groups) => groups.push(...spots));
  }
  return hubs;
}
