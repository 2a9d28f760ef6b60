//! Where a run learns what was published: the server's tick ledger, the swarm's own publisher, or the
//! numbers of somebody else's.
//!
//! A [`Reference`] is chosen before the run; a [`Tracker`] reads it while the run goes on. Workers get the
//! same events whichever it is.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;

use crate::http::{Http, Trust};
use crate::ledger::epochs::Epochs;
use crate::ledger::follow::{Event, FollowError, Status, follow};
use crate::ledger::offset::Offset;
use crate::ledger::{Groups, Now, Scope};
use crate::plan::Plan;
use crate::report::facts::{Evidence, LedgerFacts};
use crate::sequence::publisher::{Publisher, Publishing};
use crate::sequence::witness::{self, HeardNumber, WitnessStatus};

/// How long connecting to the ledger may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the ledger is.
#[derive(Clone, Debug)]
pub struct LedgerSource {
    /// `…/ticks`
    pub url: String,
    /// For plain requests.
    pub http: Http,
    /// How its clock relates to ours.
    pub offset: Offset,
}

/// See the module's documentation.
#[derive(Debug)]
pub enum Reference {
    /// The server's own ledger.
    Ledger(LedgerSource),
    /// We publish.
    Publisher(Publishing),
    /// Somebody else on this host publishes, and may say which number is the last.
    Producer {
        /// That number.
        last_seq: Option<u64>,
    },
}

/// Why a tracker could not start.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// The ledger was there and cannot be followed.
    #[error("{0}")]
    Follow(#[from] FollowError),
    /// The kernel refused a thread.
    #[error("a thread could not start: {0}")]
    Thread(#[from] std::io::Error),
}

/// A reference being read while the run goes on.
#[derive(Debug)]
pub enum Tracker {
    /// Nobody says what was published.
    Nothing,
    /// The ledger is being read.
    Ledger(LedgerSource, Arc<Status>),
    /// Publishing begins when all clients are up.
    Ready(Publishing, Vec<Sender<Event>>),
    /// Publishing.
    Publishing(Publisher),
    /// Publishing is over.
    Published(Arc<Status>),
    /// Numbers are being followed.
    Witness(Arc<WitnessStatus>),
}

impl Tracker {
    /// Starts to tell the workers behind `sinks`. What it returns beside itself takes the numbers that
    /// workers hear, if it needs them.
    pub fn start(
        reference: Option<Reference>,
        trust: &Trust,
        plan: &Plan,
        sinks: Vec<Sender<Event>>,
    ) -> Result<(Self, Option<SyncSender<HeardNumber>>), TrackerError> {
        if let Some(url) = &plan.orders_url {
            let scope = Scope { groups: Groups::new(&plan.groups), session: None, has_orders_only: true };
            let stream = Http::for_streams(trust, CONNECT);
            // It ends with the process: a report does not wait for it.
            follow(stream, url, scope, Offset::same_clock(), sinks.clone())?;
        }
        Ok(match reference {
            None => (Self::Nothing, None),
            Some(Reference::Ledger(source)) => {
                let stream = Http::for_streams(trust, CONNECT);
                let scope =
                    Scope { groups: Groups::new(&plan.groups), session: plan.session.clone(), has_orders_only: false };
                let status = follow(stream, &source.url, scope, source.offset.clone(), sinks)?;
                (Self::Ledger(source, status), None)
            }
            Some(Reference::Publisher(publishing)) => (Self::Ready(publishing, sinks), None),
            Some(Reference::Producer { last_seq }) => {
                let (witness_status, heard_numbers) = witness::start(plan.groups.len(), last_seq, sinks)?;
                (Self::Witness(witness_status), Some(heard_numbers))
            }
        })
    }

    /// All clients are up: who waits for that begins.
    pub fn begin(&mut self) -> Result<(), TrackerError> {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Ready(publishing, sinks) => Self::Publishing(Publisher::start(publishing, sinks)?),
            other => other,
        };
        Ok(())
    }

    /// Why the run cannot go on, if it cannot.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Publishing(publisher) => publisher.status.error(),
            Self::Published(status) => status.error(),
            _ => None,
        }
    }

    /// The measured time is over: nothing more is published.
    pub fn end(&mut self) {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Publishing(publisher) => Self::Published(publisher.stop()),
            other => other,
        };
    }

    /// Whether everything published until `cut_ns` is known, or will not be known later either.
    pub fn covers(&self, cut_ns: u64) -> bool {
        match self {
            Self::Witness(witness_status) => witness_status.covers(cut_ns),
            _ => true,
        }
    }

    /// The position that covers `cut_ns`; `u64::MAX` when none does, and the run is then not verified.
    pub fn reach(&mut self, cut_ns: u64) -> u64 {
        match self {
            Self::Nothing | Self::Ready(..) => 0,
            Self::Ledger(source, _) => {
                let newest = newest(source);
                if let Ok(later) = Offset::estimate(&source.http, &source.url, None)
                    && source.offset.error_ns > 0
                {
                    source.offset.widen_to(&later);
                }
                newest.unwrap_or(u64::MAX)
            }
            Self::Publishing(publisher) => publisher.status.seq.load(Acquire),
            Self::Published(status) => status.seq.load(Acquire),
            Self::Witness(witness_status) if witness_status.covers(cut_ns) => witness_status.ledger.seq.load(Acquire),
            Self::Witness(_) => u64::MAX,
        }
    }

    /// Ends its thread.
    pub fn stop(&self) {
        match self {
            Self::Ledger(_, status) => status.stop(),
            Self::Witness(witness_status) => witness_status.ledger.stop(),
            Self::Nothing | Self::Ready(..) | Self::Publishing(_) | Self::Published(_) => {}
        }
    }

    /// The epochs of the replay's clock.
    pub fn epochs(&self) -> Epochs {
        match self {
            Self::Ledger(_, status) => status.epochs(),
            _ => Epochs::default(),
        }
    }

    /// What it gave, for the report.
    pub fn facts(&self) -> Option<LedgerFacts> {
        let of = |source, offset, status: &Status| LedgerFacts {
            source,
            offset,
            ticks: status.ticks.load(Relaxed),
            publications: status.publications.load(Relaxed),
            lost: status.lost.load(Relaxed),
            is_incomplete: false,
            is_foreign_clock: false,
            unhashed: 0,
        };
        match self {
            Self::Nothing => None,
            // The run has ended before anything was published.
            Self::Ready(..) => Some(of(Evidence::Publisher, Offset::same_clock(), &Status::default())),
            Self::Ledger(source, status) => Some(of(Evidence::TickLedger, source.offset.clone(), status)),
            Self::Publishing(Publisher { status, .. }) | Self::Published(status) => {
                Some(of(Evidence::Publisher, Offset::same_clock(), status))
            }
            Self::Witness(witness_status) => {
                let is_foreign_clock = witness_status.is_foreign_clock.load(Relaxed);
                let facts = of(Evidence::Witness, Offset::same_clock(), &witness_status.ledger);
                Some(LedgerFacts { is_foreign_clock, ..facts })
            }
        }
    }
}

/// How far the ledger goes now; `None` when it does not answer.
fn newest(source: &LedgerSource) -> Option<u64> {
    let url = format!("{}?limit=1&after={}", source.url, u64::MAX >> 1);
    source.http.get_json::<Now>(&url).ok().map(|now| now.newest)
}
