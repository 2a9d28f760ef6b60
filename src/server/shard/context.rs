//! What all shards share.

use std::sync::Arc;
use std::task::Waker;

use super::closed_log::ClosedLog;
use super::session_token::SessionTokens;
use super::shard_options::ShardOptions;
use crate::engine::hub::Hub;
use crate::engine::sweep_report::SweepReport;
use crate::faults::fault_board::FaultBoard;
use crate::health::log_limit::SeenNames;
use crate::streams::Streams;
use crate::streams::stream_options::StreamOptions;
use crate::wire::byte_budget::ByteBudget;

/// Hubs, settings and channels: what all shards share.
#[derive(Clone)]
pub struct ShardContext {
    /// A shard serves the clients of all of them.
    pub hubs: Hubs,
    /// First part of every orderflow group's name.
    pub prefix: Arc<str>,
    /// Signs reconnection tokens; `None`: they are random numbers.
    pub tokens: Option<Arc<SessionTokens>>,
    /// Settings of every connection.
    pub options: Arc<ShardOptions>,
    /// Further settings of connections on `/ws`.
    pub stream_options: StreamOptions,
    /// The channels of the JSON streams, and their histories.
    pub streams: Arc<Streams>,
    /// Groups without data that were logged already.
    pub silent: Arc<SeenNames>,
    /// Which plan of faults runs, if any.
    pub faults: Arc<FaultBoard>,
    /// For the messages of all clients that are not finished yet.
    pub unfinished: Arc<ByteBudget>,
    /// The connections that were closed lately.
    pub closed: Arc<ClosedLog>,
}

/// The hubs of a server. A wire speaks for one of them.
#[derive(Clone)]
pub struct Hubs {
    /// The groups that Web PubSub clients join.
    pub orderflow: Arc<Hub>,
    /// The channels of `/ws`, and the filters in use.
    pub streams: Arc<Hub>,
}

impl Hubs {
    /// Registers a shard with every hub: its bell is rung after each batch. It reports what it has swept of the
    /// groups of Web PubSub.
    pub fn attach(&self, shard: &Waker, report: &Arc<SweepReport>) {
        self.orderflow.sequencer().audience().attach(shard, report);
        self.streams.sequencer().audience().attach(shard, &Arc::default());
    }
}
