// Just enough protobuf: the fields of one message as { number: [values] }. Varints come as numbers
// (exact up to 2^53, which covers the sequence ids of the wire), the rest as Uint8Array.
export function fields(bytes) {
  const found = {};
  let at = 0;
  const varint = () => {
    let value = 0;
    let factor = 1;
    for (;;) {
      if (at >= bytes.length) throw new Error('a varint ends too soon');
      const byte = bytes[at++];
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 128;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    let value;
    if (tag % 8 === 0) {
      value = varint();
    } else if (tag % 8 === 2) {
      const length = varint();
      if (at + length > bytes.length) throw new Error(`field ${number} ends too soon`);
      value = bytes.subarray(at, at + length);
      at += length;
    } else {
      throw new Error(`field ${number} has the unexpected wire type ${tag % 8}`);
    }
    (found[number] = found[number] || []).push(value);
  }
  return found;
}

export function text(bytes) {
  return String.fromCharCode.apply(null, bytes);
}

// One field, ready to be joined with others: text and bytes are length-delimited, numbers varints.
export function field(number, value) {
  if (typeof value === 'number') return [...varintOf(number * 8), ...varintOf(value)];
  const bytes = typeof value === 'string' ? Array.from(value, (char) => char.charCodeAt(0)) : value;
  return [...varintOf(number * 8 + 2), ...varintOf(bytes.length), ...bytes];
}

function varintOf(value) {
  const bytes = [];
  while (value >= 128) {
    bytes.push((value % 128) | 0x80);
    value = Math.floor(value / 128);
  }
  bytes.push(value);
  return bytes;
}
