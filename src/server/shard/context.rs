//! What all shards share.

use std::sync::Arc;
use std::task::Waker;

use super::shard_options::ShardOptions;
use crate::engine::hub::Hub;
use crate::health::log_limit::SeenNames;
use crate::streams::stream_options::StreamOptions;
use crate::wire::streams::Channels;

/// What all shards share.
#[derive(Clone)]
pub struct ShardContext {
    /// The hubs.
    pub hubs: Hubs,
    /// First part of every orderflow group's name.
    pub prefix: Arc<str>,
    /// How connections are treated.
    pub options: Arc<ShardOptions>,
    /// How those of the JSON streams are.
    pub stream_options: StreamOptions,
    /// The channels of the JSON streams.
    pub channels: Arc<Channels>,
    /// Groups without data that were logged.
    pub silent: Arc<SeenNames>,
}

/// The hubs of a server. A wire speaks for one of them.
#[derive(Clone)]
pub struct Hubs {
    /// Web PubSub.
    pub orderflow: Arc<Hub>,
    /// The JSON streams.
    pub streams: Arc<Hub>,
}

impl Hubs {
    /// A shard asks to be rung after every batch of any of them.
    pub fn attach(&self, shard: &Waker) {
        self.orderflow.attach(shard);
        self.streams.attach(shard);
    }
}
