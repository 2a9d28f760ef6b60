//! What the live page keeps between requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::figure_history::FigureHistory;
use super::live_feed::LiveFeed;
use super::live_options::{LiveOptions, LivePage, ShownSetting};
use super::process;
use crate::engine::system_clock;
use crate::server::shard::closed_log::ClosedLog;
use crate::server::shard::user_agents::{AgentId, UserAgents};

/// Payloads that are decoded at a time.
const DECODED: usize = 4;

/// What the live page keeps between requests.
pub struct LiveState {
    /// Settings of the live page.
    pub options: LiveOptions,
    pub(super) agents: UserAgents,
    pub(super) closed: Arc<ClosedLog>,
    pub(super) feed: LiveFeed,
    pub(super) history: FigureHistory,
    /// What the settings are, without secrets: for reports.
    pub(super) settings: Vec<ShownSetting>,
    pub(super) decoding: Semaphore,
    pub(super) started_unix_ms: u64,
    pub(super) cores: usize,
    pub(super) kernel: String,
    verdict: Mutex<Option<(u64, Value)>>,
}

impl LiveState {
    /// Nobody reads yet. The shards write to `closed`.
    pub fn new(options: LiveOptions, settings: Vec<ShownSetting>, closed: Arc<ClosedLog>) -> Self {
        Self {
            options,
            agents: UserAgents::default(),
            closed,
            feed: LiveFeed::new(options.max_live_readers),
            history: FigureHistory::default(),
            settings,
            decoding: Semaphore::new(DECODED),
            started_unix_ms: system_clock::unix_ns() / 1_000_000,
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: process::kernel(),
            verdict: Mutex::default(),
        }
    }

    /// Whether there is a page.
    pub fn is_on(&self) -> bool {
        self.options.live_page != LivePage::Off
    }

    /// The number of what a client calls itself; none if nobody will see it.
    pub fn agent(&self, headers: &HeaderMap) -> AgentId {
        let agent = headers.get(USER_AGENT).filter(|_| self.is_on());
        agent.map_or_else(AgentId::default, |agent| self.agents.id(&String::from_utf8_lossy(agent.as_bytes())))
    }

    /// How many follow the events.
    pub(super) fn readers(&self) -> usize {
        self.feed.readers()
    }

    /// The load test's last report, and when it came, Unix ms.
    pub(super) fn verdict(&self) -> Option<(u64, Value)> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps a report in place of the one before; returns when it came, Unix ms.
    pub(super) fn set_verdict(&self, report: Value) -> u64 {
        let at = system_clock::unix_ns() / 1_000_000;
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, report));
        at
    }
}
