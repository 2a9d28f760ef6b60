//! The path of every frame: read, compare with what must come next, move on.

use std::io::ErrorKind;
use std::mem;

use super::Worker;
use super::client::Phase;
use super::ending::Ending;
use crate::clock::now_ns;
use crate::orders::book::FrameKey;
use crate::plan::Class;
use crate::verify::slot::LedgerTimes;
use crate::wire::frame::parse_header;

/// The most read from a socket at once, so that one client with much to read does not hold up others.
pub const READ_BYTES: usize = 64 * 1024;

/// Reads in a row from one socket; a plain socket with more is ready again at the next wait.
const READS_IN_A_ROW: usize = 4;

/// The same where readiness does not show what is left (TLS).
const LAYERED_READS_IN_A_ROW: usize = 4_096;

/// What an idle client may keep allocated for the beginning of a frame.
const INBOX_KEEP_BYTES: usize = 2 * 1024;

impl Worker {
    /// Reads what a client's socket holds, at most `limit` bytes at a time.
    pub(super) fn on_readable(&mut self, index: usize, limit: usize) {
        let mut buffer = mem::take(&mut self.buffer);
        let outcome = self.read(index, &mut buffer, limit);
        self.buffer = buffer;
        if let Err(ending) = outcome {
            self.end(index, &ending);
        }
    }

    fn read(&mut self, index: usize, buffer: &mut [u8], limit: usize) -> Result<(), Ending> {
        let mut rounds = 0;
        loop {
            let client = &mut self.clients.list[index];
            let Some(transport) = client.transport.as_mut() else { return Ok(()) };
            // What is kept is less than one message, so buffer and limit leave room for a read.
            let kept = client.inbox.len();
            buffer[..kept].copy_from_slice(&client.inbox);
            let read = match transport.read(&mut buffer[kept..kept + limit]) {
                Ok(0) => return Err(Ending::lost("closed without a close frame")),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Ending::from_io(&error)),
            };
            let has_layers = transport.has_layers();
            let now = now_ns();
            self.interval.reads += 1;
            self.interval.bytes += read as u64;
            let end = kept + read;
            let used = self.consume(index, &buffer[..end], now)?;
            let inbox = &mut self.clients.list[index].inbox;
            inbox.clear();
            inbox.extend_from_slice(&buffer[used..end]);
            if inbox.capacity() > INBOX_KEEP_BYTES && inbox.len() <= INBOX_KEEP_BYTES {
                inbox.shrink_to(INBOX_KEEP_BYTES);
            }
            rounds += 1;
            let is_enough =
                if has_layers { rounds >= LAYERED_READS_IN_A_ROW } else { read < limit || rounds >= READS_IN_A_ROW };
            if is_enough {
                break;
            }
        }
        self.flush_if_wanted(index);
        Ok(())
    }

    /// Takes the whole frames at the beginning of `bytes`; returns how many bytes that were.
    fn consume(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<usize, Ending> {
        let mut at = 0;
        if self.clients.list[index].phase == Phase::Upgrading {
            match self.check_upgrade(index, bytes, now)? {
                Some(head_len) => at = head_len,
                None => return Ok(0),
            }
        }
        loop {
            if !self.holds(index) {
                at += self.take_run(index, &bytes[at..], now);
            }
            let rest = &bytes[at..];
            let Some(header) = parse_header(rest).map_err(|error| Ending::broken(error.to_string()))? else {
                return Ok(at);
            };
            let Some(frame) = rest.get(..header.frame_len()) else { return Ok(at) };
            if self.holds(index) && header.is_final && !header.opcode.is_control() {
                self.hold(index, header, frame, now)?;
            } else {
                self.on_frame(index, header, frame, now)?;
            }
            at += frame.len();
        }
    }

    /// Whether a client's messages wait for the ledger.
    fn holds(&self, index: usize) -> bool {
        self.plan.expects_faults && self.clients.list[index].class != Class::Stalled
    }

    /// Takes frames as long as each is, byte for byte, the next one of one of the client's groups.
    pub(super) fn take_run(&mut self, index: usize, bytes: &[u8], now: u64) -> usize {
        let Self { clients, verifier, interval, measure, plan, book, channel_offsets, .. } = self;
        let client = &mut clients.list[index];
        let places = client.members.len();
        let (is_reliable, is_measured) = (client.protocol.is_reliable(), client.is_attentive());
        // Frames of one tick share their latency: they are recorded together.
        let (mut due_ns, mut due_frames) = (0, 0);
        let (mut at, mut frames) = (0, 0);
        'frames: while at < bytes.len() {
            let mut place = client.hint;
            for _ in 0..places {
                let member = &mut client.members[place];
                place = if place + 1 == places { 0 } else { place + 1 };
                let log = &mut verifier.logs[member.log as usize];
                let group = log.group;
                let Some((slot, len)) = log.take_next(member, &bytes[at..]) else { continue };
                at += len;
                frames += 1;
                client.hint = place;
                if plan.expects_faults {
                    let offset = channel_offsets[group as usize].unwrap_or_default();
                    let sequence_id = slot.identity.sequence_id.wrapping_add(offset);
                    let key = FrameKey { client: client.number, group, sequence_id };
                    book.arrived(key, now, slot.published_ns());
                }
                if is_measured {
                    slot.last_ns = now;
                    match slot.times {
                        Some(times) if times.opens_epoch => measure.count(&mut client.receipts, times.scheduled_ns),
                        Some(times) if times.scheduled_ns == due_ns => due_frames += 1,
                        Some(times) => {
                            if due_frames > 0 {
                                let latency_ns = now.saturating_sub(due_ns);
                                measure.record(interval, &mut client.receipts, due_ns, latency_ns, due_frames);
                            }
                            (due_ns, due_frames) = (times.scheduled_ns, 1);
                        }
                        None if plan.has_ledger => slot.waiting.push((client.number, now)),
                        None => {}
                    }
                }
                if is_reliable {
                    let (identity, tick) = (slot.identity, slot.times.map(|times| times.tick));
                    if identity.sequence_id <= client.last_sequence {
                        let member_id = client.member_id(0);
                        verifier.blame_order(member_id, group, identity, tick, client.last_sequence, now);
                    }
                    client.last_sequence = client.last_sequence.max(identity.sequence_id);
                }
                continue 'frames;
            }
            break;
        }
        if due_frames > 0 {
            let latency_ns = now.saturating_sub(due_ns);
            measure.record(interval, &mut client.receipts, due_ns, latency_ns, due_frames);
        }
        interval.frames += frames;
        interval.verified += frames;
        verifier.verified += frames;
        at
    }

    /// Records the latencies that became known since the last time.
    pub(super) fn record_timed(&mut self) {
        let Self { clients, verifier, interval, measure, .. } = self;
        for timed in verifier.timed.drain(..) {
            if let Some(index) = clients.index_of(timed.client) {
                let client = &mut clients.list[index];
                let LedgerTimes { scheduled_ns, opens_epoch, .. } = timed.times;
                if opens_epoch {
                    measure.count(&mut client.receipts, scheduled_ns);
                    continue;
                }
                let latency_ns = timed.at_ns.saturating_sub(scheduled_ns);
                measure.record(interval, &mut client.receipts, scheduled_ns, latency_ns, 1);
            }
        }
    }
}
