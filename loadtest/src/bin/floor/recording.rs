//! What a server sent to one client, cut into ticks that can be sent again.
//!
//! Only data frames count. The first frame of a tick is where a group comes again; a tick that lacks a
//! group (the client joined in its middle) is left out. On the reliable wires each frame's sequence id
//! is written anew before it is sent: it always has the same length.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use swarm::clock::unix_ns;
use swarm::wire::downstream::{Data, Message, Reader};
use swarm::wire::form::Protocol;
use swarm::wire::frame::parse_header;

/// The frames that leave together, side by side.
#[derive(Debug, Default)]
pub struct TickFrames {
    /// All frames, ready to send.
    pub bytes: Vec<u8>,
    /// Where each of them ends.
    pub ends: Vec<usize>,
    /// What they are, in order, for the ledger. Nobody asks for what was posted.
    pub records: Vec<Record>,
}

/// What a frame says.
#[derive(Debug)]
pub struct Record {
    /// Its group.
    pub group: String,
    /// xxh3-64 of its payload.
    pub hash: u64,
    /// The record's own time.
    pub timestamp: i64,
    /// Where its sequence id stands in the bytes of its tick.
    sequence_at: Option<usize>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Recording {
    ticks: Vec<TickFrames>,
    protocol: Protocol,
    last_id: u64,
}

impl Recording {
    /// Reads a recording of a client that spoke `protocol`.
    pub fn read(path: &Path, protocol: Protocol) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let ticks = cut(&bytes, protocol).with_context(|| format!("{} is no recording", path.display()))?;
        Ok(Self { ticks, protocol, last_id: unix_ns() / 1_000 })
    }

    /// The tick at `ordinal` of the rotation, with fresh sequence ids; also the first of these.
    pub fn tick(&mut self, ordinal: u64) -> (&TickFrames, u64) {
        let first_id = self.last_id + 1;
        let at = (ordinal % self.ticks.len() as u64) as usize;
        let TickFrames { bytes, records, .. } = &mut self.ticks[at];
        for record in records.iter() {
            self.last_id += 1;
            if let Some(at) = record.sequence_at {
                let id = encode_id(self.protocol, self.last_id);
                bytes[at..at + id.len()].copy_from_slice(&id);
            }
        }
        (&self.ticks[at], first_id)
    }
}

fn cut(bytes: &[u8], protocol: Protocol) -> anyhow::Result<Vec<TickFrames>> {
    let mut reader = Reader::new()?;
    let (mut at, mut ticks) = (0, vec![TickFrames::default()]);
    while let Some(header) = parse_header(&bytes[at..])?
        && let Some(frame) = bytes.get(at..at + header.frame_len())
    {
        at += frame.len();
        if header.opcode.is_control() {
            continue;
        }
        let Message::Data(data) = reader.read(protocol, &frame[header.header_len..])? else { continue };
        let tick = ticks.last_mut().context("there is always one")?;
        if tick.records.iter().all(|known| known.group != data.group) {
            tick.push(frame, data, protocol)?;
        } else {
            let mut next = TickFrames::default();
            next.push(frame, data, protocol)?;
            ticks.push(next);
        }
    }
    // The last tick may be cut off.
    ticks.pop();
    let groups: HashSet<&str> = ticks.iter().flat_map(|tick| &tick.records).map(|record| &*record.group).collect();
    let count = groups.len();
    ticks.retain(|tick| tick.records.len() == count);
    ensure!(!ticks.is_empty(), "it holds no whole tick");
    Ok(ticks)
}

impl TickFrames {
    fn push(&mut self, frame: &[u8], data: Data, protocol: Protocol) -> anyhow::Result<()> {
        let sequence_at = match data.sequence_id {
            None => None,
            Some(id) => {
                let id = encode_id(protocol, id);
                // Behind the payload or before it: as digits of a clock it stands nowhere else.
                let Some(place) = frame.windows(id.len()).position(|window| window == id) else {
                    bail!("a frame does not hold its own sequence id");
                };
                Some(self.bytes.len() + place)
            }
        };
        self.bytes.extend_from_slice(frame);
        let Data { group, payload, .. } = data;
        self.ends.push(self.bytes.len());
        self.records.push(Record { group, hash: payload.hash, timestamp: payload.timestamp, sequence_at });
        Ok(())
    }
}

/// A sequence id as it stands in a frame: decimal digits, or a varint.
fn encode_id(protocol: Protocol, mut id: u64) -> Vec<u8> {
    if !protocol.is_protobuf() {
        return id.to_string().into_bytes();
    }
    let mut varint = Vec::with_capacity(10);
    while id >= 0x80 {
        varint.push(id as u8 | 0x80);
        id >>= 7;
    }
    varint.push(id as u8);
    varint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_bytes_of_both_wires() {
        assert_eq!(encode_id(Protocol::JsonReliable, 1_763_715_000_000_001), b"1763715000000001");
        assert_eq!(encode_id(Protocol::ProtobufReliable, 300), [0xac, 0x02]);
        assert_eq!(encode_id(Protocol::ProtobufReliable, unix_ns() / 1_000).len(), 8);
    }

    #[test]
    fn what_holds_no_data_is_no_recording() {
        assert!(cut(&[], Protocol::Json).is_err());
        assert!(cut(&[0x89, 0], Protocol::Json).is_err());
        assert!(cut(&[0x81, 1, b'x'], Protocol::Json).is_err());
    }
}
