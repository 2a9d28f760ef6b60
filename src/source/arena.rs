//! The arena: every record of a ticker in every form, built once and shared by all.
//!
//! ```text
//! Track (ticker) ─▶ Chunk (some hundred records) ─▶ Block per form: one `Bytes`, sliced per record
//! ```
//!
//! One form is the *base*, made from the records while they are read; it is always there. The
//! others are derived from it, chunk by chunk: at start-up those of the first profile, any other
//! when its first client connects ([`prepare`]). A frame of a form that is not there yet is encoded
//! on the spot and counted as late.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memmap2::MmapMut;
use prost::Message;

use crate::engine::frames::{Form, Forms, FrameStore};
use crate::engine::status::Status;
use crate::wire::payload::orderflow::{self, Orderflow};
use crate::wire::payload::{Encoder, EncoderOptions, Profile, decompress};
use crate::wire::webpubsub::{ORDERFLOW_TYPE_URL, PlainForm, Syntax, append_data, payload_of, payload_of_json};

/// How frames are built.
#[derive(Debug, Clone, clap::Args)]
pub struct ArenaOptions {
    /// The profile whose frames are built at start-up; the other's on its first use
    #[arg(long, env = "FLOWCAST_PROFILE", value_enum, default_value_t = Profile::V2026_04)]
    pub profile: Profile,
    /// Speak --profile on every endpoint, whichever generation of client it is for
    #[arg(long, env = "FLOWCAST_PIN_PROFILE", default_value_t = false, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub pin_profile: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub encoder: EncoderOptions,
}

impl ArenaOptions {
    /// The form made from the records themselves. The finer profile, from which the coarser can be
    /// derived, unless the coarser is the only one that will ever be asked for.
    pub fn base(&self) -> PlainForm {
        let profile = if self.pin_profile { self.profile } else { Profile::V2026_04 };
        PlainForm { syntax: Syntax::Protobuf, profile }
    }

    /// What is built before serving begins, the base first.
    pub fn at_start(&self) -> Vec<PlainForm> {
        let mut forms = vec![self.base()];
        forms.extend([Syntax::Protobuf, Syntax::Json].map(|syntax| PlainForm { syntax, profile: self.profile }));
        forms.dedup();
        forms
    }
}

/// Frames of one form, back to back.
#[derive(Debug)]
pub struct Block {
    bytes: Bytes,
    /// Where each frame ends.
    ends: Box<[u32]>,
}

impl Block {
    /// A block of the frames in `bytes`, copied.
    pub fn new(bytes: &[u8], ends: &[u32]) -> Self {
        // Pages of their own: an allocator rounds sizes like these up by an eighth. If the kernel
        // gives no more mappings, the allocator is good enough.
        let bytes = pages(bytes).unwrap_or_else(|_| Bytes::copy_from_slice(bytes));
        Self { bytes, ends: ends.into() }
    }

    fn frame(&self, at: usize) -> Bytes {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        self.bytes.slice(start..self.ends[at] as usize)
    }
}

/// A copy in pages that nobody can write to any more.
fn pages(bytes: &[u8]) -> io::Result<Bytes> {
    let mut pages = MmapMut::map_anon(bytes.len())?;
    pages.copy_from_slice(bytes);
    Ok(Bytes::from_owner(pages.make_read_only()?))
}

/// Some consecutive records.
#[derive(Debug)]
pub struct Chunk {
    timestamps: Box<[i64]>,
    /// By [`PlainForm::index`].
    blocks: [OnceLock<Block>; PlainForm::ALL.len()],
}

impl Chunk {
    /// A chunk with its base form.
    pub fn new(timestamps: &[i64], base: PlainForm, block: Block) -> Self {
        let blocks = [const { OnceLock::new() }; PlainForm::ALL.len()];
        blocks[base.index()].set(block).expect("just made");
        Self { timestamps: timestamps.into(), blocks }
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }
}

/// How often frames were built, per form: the proof that subscribers cost no encoding.
#[derive(Debug)]
pub struct Encodings {
    built: [Arc<AtomicU64>; PlainForm::ALL.len()],
    late: Arc<AtomicU64>,
}

impl Encodings {
    /// Registers the counters.
    pub fn new(status: &Status) -> Self {
        let built = PlainForm::ALL.map(|form| {
            let labels = vec![("syntax", form.syntax_name().to_owned()), ("profile", form.profile.name().to_owned())];
            status.count("frames_built", "Frames built from records, once per record and form", labels)
        });
        let late =
            status.count("frames_built_late", "Frames encoded by a shard because their form was not built yet", vec![]);
        Self { built, late }
    }

    /// Frames built of `form`.
    pub fn built(&self, form: PlainForm) -> u64 {
        self.built[form.index()].load(Ordering::Relaxed)
    }

    /// Counts frames of the base form, which are built while records are read.
    pub fn count(&self, form: PlainForm, frames: usize) {
        self.built[form.index()].fetch_add(frames as u64, Ordering::Relaxed);
    }
}

/// All records of one ticker, in file order.
#[derive(Debug)]
pub struct Track {
    group: String,
    ticker: String,
    base: PlainForm,
    encoder: EncoderOptions,
    chunks: Vec<Chunk>,
    /// Number of the first record of each chunk.
    starts: Vec<u32>,
    encodings: Arc<Encodings>,
}

impl Track {
    /// A track of `chunks`, of which none is empty.
    pub fn new(
        ticker: String,
        group: String,
        options: &ArenaOptions,
        chunks: Vec<Chunk>,
        encodings: Arc<Encodings>,
    ) -> Self {
        let starts = chunks
            .iter()
            .scan(0, |next, chunk| {
                let start = *next;
                *next += chunk.len() as u32;
                Some(start)
            })
            .collect();
        Self { group, ticker, base: options.base(), encoder: options.encoder, chunks, starts, encodings }
    }

    /// The ticker.
    pub fn ticker(&self) -> &str {
        &self.ticker
    }

    /// The group its records are for.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// How many records it has; never 0.
    pub fn records(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// Number of the first record of each chunk.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// Bytes of all frames of `form` that exist.
    pub fn bytes(&self, form: PlainForm) -> u64 {
        let blocks = self.chunks.iter().filter_map(|chunk| chunk.blocks[form.index()].get());
        blocks.map(|block| block.bytes.len() as u64).sum()
    }

    /// Builds `form` of the chunk that holds `record`; nothing if it is there.
    pub fn build(&self, record: u32, form: PlainForm) {
        let chunk = self.locate(record).0;
        chunk.blocks[form.index()].get_or_init(|| {
            let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(chunk.len()));
            for at in 0..chunk.len() {
                self.derive(chunk, at, form, &mut bytes);
                ends.push(u32::try_from(bytes.len()).expect("a chunk's frames are a few hundred KiB"));
            }
            self.encodings.count(form, chunk.len());
            Block::new(&bytes, &ends)
        });
    }

    /// The chunk of a record, and its place in it.
    fn locate(&self, record: u32) -> (&Chunk, usize) {
        let chunk = self.starts.partition_point(|&start| start <= record) - 1;
        (&self.chunks[chunk], (record - self.starts[chunk]) as usize)
    }

    /// Appends a frame of `form`, made from the base.
    fn derive(&self, chunk: &Chunk, at: usize, form: PlainForm, out: &mut Vec<u8>) {
        let base = chunk.blocks[self.base.index()].get().expect("the base is there from the beginning").frame(at);
        let payload = &base[payload_of(&base, &self.group, ORDERFLOW_TYPE_URL)];
        if form.profile == self.base.profile {
            append_data(form.syntax, &self.group, ORDERFLOW_TYPE_URL, payload, out);
        } else {
            with_encoder(self.encoder, |encoder| {
                let payload = encoder.encode(&rescaled(payload, form.profile));
                append_data(form.syntax, &self.group, ORDERFLOW_TYPE_URL, payload, out);
            });
        }
    }
}

/// The record in one of our own payloads, at another profile's scale.
fn rescaled(payload: &[u8], profile: Profile) -> Orderflow {
    const LIMIT: usize = 2 << 20; // a line is at most 1 MiB, and its message is shorter
    let message = decompress(payload, LIMIT).expect("a payload that this process compressed");
    let mut record = Orderflow::decode(message.as_slice()).expect("a message that this process encoded");
    orderflow::rescale(&mut record, profile);
    record
}

/// Runs `encode` with this thread's encoder: its zstd context is far too large to make per frame.
fn with_encoder(options: EncoderOptions, encode: impl FnOnce(&mut Encoder)) {
    thread_local! {
        static ENCODER: RefCell<Option<Encoder>> = const { RefCell::new(None) };
    }
    ENCODER.with_borrow_mut(|encoder| {
        encode(encoder.get_or_insert_with(|| Encoder::new(options).expect("memory for a zstd context")));
    });
}

impl FrameStore for Track {
    fn frame(&self, record: u32, form: Form) -> Bytes {
        let (chunk, at) = self.locate(record);
        if let Some(block) = chunk.blocks[form.index()].get() {
            return block.frame(at);
        }
        self.encodings.late.fetch_add(1, Ordering::Relaxed);
        let mut frame = Vec::new();
        self.derive(chunk, at, PlainForm::ALL[form.index()], &mut frame);
        frame.into()
    }

    fn payload(&self, record: u32, form: Form) -> Option<Bytes> {
        let (chunk, at) = self.locate(record);
        let plain = PlainForm::ALL[form.index()];
        let frame = chunk.blocks[form.index()].get()?.frame(at);
        match plain.syntax {
            Syntax::Protobuf => Some(frame.slice(payload_of(&frame, &self.group, ORDERFLOW_TYPE_URL))),
            Syntax::Json => payload_of_json(&frame).map(Bytes::from),
        }
    }

    fn timestamp(&self, record: u32) -> i64 {
        let (chunk, at) = self.locate(record);
        chunk.timestamps[at]
    }
}

/// Builds every form that is ordered, until the hub is gone. Runs on a thread of its own.
///
/// The records that `position` says come next are built first, of every track; then the form is
/// ready and the rest follows, ahead of the clock.
pub fn prepare(tracks: &[Arc<Track>], forms: &Forms, position: impl Fn() -> u64) {
    for ordered in forms.orders() {
        let plain = PlainForm::ALL[ordered.index()];
        let now = position();
        let longest = tracks.iter().map(|track| track.chunks.len()).max().unwrap_or(0);
        for step in 0..longest {
            for track in tracks {
                let current = track.starts.partition_point(|&start| u64::from(start) <= now % track.records()) - 1;
                if step < track.chunks.len() {
                    track.build(track.starts[(current + step) % track.chunks.len()], plain);
                }
            }
            // This chunk and the next: the position may stand at a chunk's end.
            if step == 1 {
                forms.set_ready(ordered);
            }
        }
        forms.set_ready(ordered);
        tracing::info!(
            profile = plain.profile.name(),
            syntax = plain.syntax_name(),
            bytes = tracks.iter().map(|track| track.bytes(plain)).sum::<u64>(),
            "frames built on first use"
        );
    }
}
