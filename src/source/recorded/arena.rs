//! The arena: every record of a ticker in every form, built once and shared by all.
//!
//! ```text
//! Track (ticker) ─▶ Chunk (some hundred records) ─▶ Block per form: one `Bytes`, sliced per record
//! ```
//!
//! One form is the *base*, made from the records while they are read; it is always there. The
//! others are derived from it, chunk by chunk: those of `--profile` at start, any other when its first
//! client connects ([`prepare`]). A frame of a form that is not built yet is encoded when it is sent, and
//! counted as late.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

use bytes::Bytes;
use memmap2::MmapMut;
use prost::Message;

use crate::engine::frames::{Form, Forms, FrameStore};
use crate::health::status::Status;
use crate::wire::payload::orderflow::{self, Orderflow};
use crate::wire::payload::{Encoder, EncoderOptions, Profile, decompress};
use crate::wire::webpubsub::{ORDERFLOW_TYPE_URL, PlainForm, Syntax, append_data, payload_of, payload_of_json};

/// How frames are built.
#[derive(Debug, Clone, clap::Args)]
pub struct ArenaOptions {
    /// Profile whose frames are built at start; the other profile's are built when the first client asks for
    /// them
    #[arg(long, env = "FLOWCAST_PROFILE", value_enum, default_value_t = Profile::V2026_04)]
    pub profile: Profile,
    /// Use --profile on every endpoint, whichever generation of clients the endpoint is for
    #[arg(long, env = "FLOWCAST_PIN_PROFILE", default_value_t = false, value_parser = clap::value_parser!(bool))]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub pin_profile: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub encoder: EncoderOptions,
}

impl ArenaOptions {
    /// The form made from the records themselves. It has the finer profile, from which the coarser can be
    /// derived, unless only the coarser will ever be asked for.
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
    /// Offset behind each frame.
    ends: Box<[u32]>,
}

impl Block {
    /// A block with a copy of the frames in `bytes`.
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

    /// All frames, back to back.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Offset behind each frame.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }
}

/// A copy in pages that are read-only from then on.
fn pages(bytes: &[u8]) -> io::Result<Bytes> {
    let mut pages = MmapMut::map_anon(bytes.len())?;
    pages.copy_from_slice(bytes);
    Ok(Bytes::from_owner(pages.make_read_only()?))
}

/// Consecutive records of one file, and their frames in each form that is built.
#[derive(Debug)]
pub struct Chunk {
    /// The range of the source in which its lines begin.
    source: Range<u64>,
    timestamps: Box<[i64]>,
    /// Hundredths; 0 where a record has none.
    spots: Box<[u32]>,
    /// Indexed by [`PlainForm::index`]; empty until the form is built.
    blocks: [OnceLock<Block>; PlainForm::ALL.len()],
}

impl Chunk {
    /// A chunk without frames.
    pub fn new(source: Range<u64>, timestamps: &[i64], spots: &[u32]) -> Self {
        let blocks = [const { OnceLock::new() }; PlainForm::ALL.len()];
        Self { source, timestamps: timestamps.into(), spots: spots.into(), blocks }
    }

    /// The chunk with its frames of one form.
    #[must_use]
    pub fn with(mut self, form: PlainForm, block: Block) -> Self {
        self.blocks[form.index()] = block.into();
        self
    }

    /// The range of the source in which its lines begin.
    pub fn source(&self) -> &Range<u64> {
        &self.source
    }

    /// The records' times, Unix seconds.
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// The records' spot prices, hundredths.
    pub fn spots(&self) -> &[u32] {
        &self.spots
    }

    /// Its frames of a form, if they are in memory.
    pub fn block(&self, form: PlainForm) -> Option<&Block> {
        self.blocks[form.index()].get()
    }

    /// Consumes the chunk and returns its frames of a form, if they are in memory.
    pub fn into_block(mut self, form: PlainForm) -> Option<Block> {
        self.blocks[form.index()].take()
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether it has no records; no chunk of a track is empty.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }
}

/// How often frames were built, per form: the proof that subscribers cost no encoding.
#[derive(Debug)]
pub struct Encodings {
    built: [Arc<AtomicU64>; PlainForm::ALL.len()],
    late: Arc<AtomicU64>,
    rebuilt: Arc<AtomicU64>,
}

impl Encodings {
    /// Registers the counters with the server's status.
    pub fn new(status: &Status) -> Self {
        let built = PlainForm::ALL.map(|form| {
            let labels = vec![("syntax", form.syntax_name().into()), ("profile", form.profile.name().into())];
            status.count("frames_built", "Frames built from records, once per record and form", labels)
        });
        let late =
            status.count("frames_built_late", "Frames encoded by a shard because their form was not built yet", vec![]);
        let rebuilt = status.count("cache_blocks_rebuilt", "Cached blocks that were bad and were rebuilt", vec![]);
        Self { built, late, rebuilt }
    }

    /// Frames of `form` that were built since the start.
    pub fn built(&self, form: PlainForm) -> u64 {
        self.built[form.index()].load(Ordering::Relaxed)
    }

    /// Counts a frame that was needed before its form was ready.
    pub(in crate::source) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts frames that were built: of the base form while records are read, of others when due.
    pub fn count(&self, form: PlainForm, frames: usize) {
        self.built[form.index()].fetch_add(frames as u64, Ordering::Relaxed);
    }
}

/// A store of blocks that are not in memory yet. It has the same forms for every chunk of a track, and the
/// base is one of them.
pub trait BlockStore: fmt::Debug + Send + Sync {
    /// Bytes of a chunk's frames of `form`; `None` if that form is not there.
    fn bytes(&self, chunk: usize, form: PlainForm) -> Option<u64>;

    /// Reads a chunk's block and checks it. Logs and returns `None` if that fails.
    fn fetch(&self, chunk: usize, form: PlainForm) -> Option<Block>;

    /// Builds a chunk's base block from its source. Logs and returns `None` if that fails.
    fn rebuild(&self, chunk: usize) -> Option<Block>;

    /// Called once everything has been fetched.
    fn finish(&self);
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
    store: Option<Box<dyn BlockStore>>,
    encodings: Arc<Encodings>,
}

impl Track {
    /// A track of `chunks`, of which none is empty. Their base blocks are there, or in the store.
    pub fn new(
        ticker: String,
        group: String,
        options: &ArenaOptions,
        chunks: Vec<Chunk>,
        store: Option<Box<dyn BlockStore>>,
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
        Self { group, ticker, base: options.base(), encoder: options.encoder, chunks, starts, store, encodings }
    }

    /// The ticker as it stands in group names, such as `ES_SPX`.
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

    /// The first record's time, Unix seconds.
    pub fn begins(&self) -> i64 {
        self.chunks[0].timestamps[0]
    }

    /// A record's spot price in hundredths; 0 if it has none.
    pub fn spot(&self, record: u32) -> u32 {
        let (chunk, at) = self.locate(record);
        self.chunks[chunk].spots[at]
    }

    /// Number of the first record of each chunk.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// All chunks, in file order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Whether its blocks are in a cached file until they are needed.
    pub fn is_cached(&self) -> bool {
        self.store.is_some()
    }

    /// Bytes of all frames of `form` that exist, in memory or in the store.
    pub fn bytes(&self, form: PlainForm) -> u64 {
        let of_chunk = |(at, chunk): (usize, &Chunk)| match chunk.block(form) {
            Some(block) => block.bytes.len() as u64,
            None => self.store.as_ref().and_then(|store| store.bytes(at, form)).unwrap_or(0),
        };
        self.chunks.iter().enumerate().map(of_chunk).sum()
    }

    /// Builds `form` of the chunk that holds `record`, or reads it from the store. Does nothing if it is there
    /// already.
    pub fn build(&self, record: u32, form: PlainForm) {
        let (at, _) = self.locate(record);
        if self.block(at, form).is_none()
            && let Some(block) = self.derived(at, form)
        {
            // Another thread may have been faster with the same bytes.
            let _ = self.chunks[at].blocks[form.index()].set(block);
        }
    }

    /// A chunk's block, if it is in memory or in the store. From the store it is read once, and checked; a bad
    /// one is rebuilt. Without a store this is one atomic load.
    fn block(&self, at: usize, form: PlainForm) -> Option<&Block> {
        let place = &self.chunks[at].blocks[form.index()];
        if let Some(there) = place.get() {
            return Some(there);
        }
        let from = self.store.as_ref()?;
        from.bytes(at, form)?;
        let block = from.fetch(at, form).or_else(|| {
            let anew = if form == self.base { from.rebuild(at) } else { self.derived(at, form) };
            self.encodings.rebuilt.fetch_add(u64::from(anew.is_some()), Ordering::Relaxed);
            anew
        })?;
        Some(place.get_or_init(|| block))
    }

    /// A chunk's block of a form, made from the base.
    fn derived(&self, at: usize, form: PlainForm) -> Option<Block> {
        let base = self.block(at, self.base)?;
        let count = self.chunks[at].len();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(count));
        for record in 0..count {
            derive((&base.frame(record), self.base), &self.group, form, self.encoder, &mut bytes);
            ends.push(u32::try_from(bytes.len()).expect("a chunk's frames are a few hundred KiB"));
        }
        self.encodings.count(form, count);
        Some(Block::new(&bytes, &ends))
    }

    /// The chunk of a record, and its place in it.
    fn locate(&self, record: u32) -> (usize, usize) {
        let chunk = self.starts.partition_point(|&start| start <= record) - 1;
        (chunk, (record - self.starts[chunk]) as usize)
    }
}

/// Appends a frame of `form` for `group`, made from a record's base frame and its form.
pub(in crate::source) fn derive(
    (frame, base): (&[u8], PlainForm),
    group: &str,
    form: PlainForm,
    options: EncoderOptions,
    out: &mut Vec<u8>,
) {
    let payload = &frame[payload_of(frame, group, ORDERFLOW_TYPE_URL)];
    if form.profile == base.profile {
        append_data(form.syntax, group, ORDERFLOW_TYPE_URL, payload, out);
    } else {
        with_encoder(options, |encoder| {
            let payload = encoder.encode(&rescaled(payload, form.profile));
            append_data(form.syntax, group, ORDERFLOW_TYPE_URL, payload, out);
        });
    }
}

/// The payload in a frame of `form`, out of the frame.
pub(in crate::source) fn payload_in(frame: &Bytes, group: &str, form: PlainForm) -> Option<Bytes> {
    match form.syntax {
        Syntax::Protobuf => Some(frame.slice(payload_of(frame, group, ORDERFLOW_TYPE_URL))),
        Syntax::Json => payload_of_json(frame).map(Bytes::from),
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
pub(in crate::source) fn with_encoder(options: EncoderOptions, encode: impl FnOnce(&mut Encoder)) {
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
        let form = PlainForm::ALL[form.index()];
        if let Some(block) = self.block(chunk, form) {
            return block.frame(at);
        }
        // Lost: the stored block is damaged, and the source could not replace it.
        let Some(base) = self.block(chunk, self.base) else { return Bytes::new() };
        self.encodings.count_late();
        let mut frame = Vec::new();
        derive((&base.frame(at), self.base), &self.group, form, self.encoder, &mut frame);
        frame.into()
    }

    fn payload(&self, record: u32, form: Form) -> Option<Bytes> {
        let (chunk, at) = self.locate(record);
        let form = PlainForm::ALL[form.index()];
        let frame = self.block(chunk, form)?.frame(at);
        payload_in(&frame, &self.group, form)
    }

    fn timestamp(&self, record: u32) -> i64 {
        let (chunk, at) = self.locate(record);
        self.chunks[chunk].timestamps[at]
    }
}

/// Builds every form that is ordered, until the hub is dropped. Blocks: call it on a thread of its own.
///
/// For every track the records after `position` are built first; then the form is ready, and the rest
/// follows ahead of the clock.
pub fn prepare(tracks: &[Arc<Track>], forms: &Forms, position: impl Fn() -> u64) {
    for ordered in forms.orders() {
        let plain = PlainForm::ALL[ordered.index()];
        build_ahead(tracks, &[plain], position(), || forms.set_ready(ordered));
        forms.set_ready(ordered);
        tracing::info!(
            profile = plain.profile.name(),
            syntax = plain.syntax_name(),
            bytes = tracks.iter().map(|track| track.bytes(plain)).sum::<u64>(),
            "frames built on first use"
        );
    }
}

/// Reads all cached blocks into memory, ahead of a clock at `now`. Blocks: call it on a thread of its own.
pub fn read_cached(tracks: &[Arc<Track>], forms: &[PlainForm], now: u64) {
    let cached: Vec<Arc<Track>> = tracks.iter().filter(|track| track.is_cached()).cloned().collect();
    build_ahead(&cached, forms, now, || {});
    cached.iter().filter_map(|track| track.store.as_ref()).for_each(|store| store.finish());
}

/// Builds `forms` of all chunks in the order in which a clock at `now` reaches them; calls `ready` once the
/// first two of each track are built.
fn build_ahead(tracks: &[Arc<Track>], forms: &[PlainForm], now: u64, ready: impl Fn()) {
    let longest = tracks.iter().map(|track| track.chunks.len()).max().unwrap_or(0);
    for step in 0..longest {
        for track in tracks.iter().filter(|track| step < track.chunks.len()) {
            let current = track.starts.partition_point(|&start| u64::from(start) <= now % track.records()) - 1;
            let next = track.starts[(current + step) % track.chunks.len()];
            for &form in forms {
                track.build(next, form);
            }
        }
        // This chunk and the next: the position may stand at a chunk's end.
        if step == 1 {
            ready();
        }
    }
}
