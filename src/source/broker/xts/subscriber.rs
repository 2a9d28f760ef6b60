//! The subscriptions' half of an XTS connection: REST calls that turn what is subscribed into what
//! is wanted.
//!
//! A call that fails is tried again with backoff, for its instruments only. A refusal of several is
//! split until it is known whom it means; that one is told, and not tried again on this connection.
//! Source: `docs/protocols/xts.md`, "Subscription".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::desk::{Desk, Routes};
use super::fields::{Code, Key};
use super::rest::{Login, Rest, RestError};
use crate::source::broker::credentials::Credentials;
use crate::source::broker::feed::Line;
use crate::source::broker::feed_events::What;
use crate::source::broker::feed_settings::FeedSettings;
use crate::source::broker::net::backoff::Backoff;
use crate::source::broker::quote::Received;
use crate::source::broker::symbols::{Address, Mapped, Mode, SymbolMap};

/// One thing that is subscribed.
type Item = (Code, Key);

/// The half itself. It ends only when the session does.
pub struct Subscriber<'a> {
    pub(super) line: Line,
    pub(super) settings: &'a FeedSettings,
    pub(super) symbols: &'a SymbolMap,
    pub(super) rest: &'a Rest,
    pub(super) login: &'a Login,
    pub(super) credentials: &'a Credentials,
    pub(super) desk: &'a Desk,
    pub(super) wanted: BTreeMap<Item, Arc<Mapped>>,
    pub(super) have: BTreeSet<Item>,
    pub(super) refused: BTreeSet<Item>,
    /// Instruments beyond the limit that were told.
    pub(super) no_room: BTreeSet<Address>,
    pub(super) jobs: Vec<Job>,
    /// Instruments that the feed's figures count for this connection.
    pub(super) counted: usize,
}

/// A call that is due at a moment.
pub struct Job {
    code: Code,
    keys: Vec<Key>,
    task: Task,
    due: Instant,
    backoff: Backoff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Subscribe,
    /// The session has it from before: taking it back first brings a snapshot.
    Renew,
    Unsubscribe,
}

/// The figures are right even when the connection is cut off.
impl Drop for Subscriber<'_> {
    fn drop(&mut self) {
        self.line.health().subscribed(0, self.counted);
    }
}

impl Subscriber<'_> {
    /// Subscribes what is wanted, for as long as the token lives. Gives why it died.
    pub async fn run(mut self) -> String {
        loop {
            self.plan();
            let next = self.jobs.iter().enumerate().min_by_key(|(_, job)| job.due).map(|(at, job)| (at, job.due));
            let Some((at, due)) = next else {
                self.line.wanted_changed().await;
                continue;
            };
            let is_due = tokio::select! {
                () = sleep_until(due) => true,
                () = self.line.wanted_changed() => false,
            };
            if is_due {
                let job = self.jobs.swap_remove(at);
                if let Err(dead) = self.work(job).await {
                    return dead;
                }
                self.count();
            }
        }
    }

    /// Compares what is wanted with what there is, and makes jobs of the difference.
    fn plan(&mut self) {
        let symbols = self.line.wanted();
        let mapped: Vec<Arc<Mapped>> = symbols.iter().filter_map(|symbol| self.symbols.find(symbol)).collect();
        let mut routes = Routes::new();
        let mut wanted = BTreeMap::new();
        let room = self.settings.limits.instruments;
        for one in mapped.iter().skip(room).filter(|one| self.no_room.insert(one.address)) {
            let symbol = Arc::clone(&one.instrument.symbol);
            self.line.tell(What::InstrumentRefused(symbol), format!("the connection's {room} instruments are taken"));
        }
        for one in mapped.into_iter().take(room) {
            let Address::Xts(key) = one.address else { continue };
            for code in codes(self.settings, one.mode.unwrap_or(self.settings.mode)) {
                wanted.insert((code, key), Arc::clone(&one));
            }
            routes.insert(key, one);
        }
        self.desk.route(Arc::new(routes));
        // What comes back into fashion is tried anew.
        self.refused.retain(|item| wanted.contains_key(item));
        for job in &mut self.jobs {
            let keep_wanted = job.task != Task::Unsubscribe;
            job.keys.retain(|key| wanted.contains_key(&(job.code, *key)) == keep_wanted);
        }
        self.jobs.retain(|job| !job.keys.is_empty());
        let busy: BTreeSet<Item> =
            self.jobs.iter().flat_map(|job| job.keys.iter().map(|key| (job.code, *key))).collect();
        let gone = self.have.iter().filter(|item| !wanted.contains_key(item) && !busy.contains(item));
        let gone: Vec<Item> = gone.copied().collect();
        let new = wanted
            .keys()
            .filter(|&item| !self.have.contains(item) && !self.refused.contains(item) && !busy.contains(item));
        let new: Vec<Item> = new.copied().collect();
        self.wanted = wanted;
        self.add(&gone, Task::Unsubscribe);
        self.add(&new, Task::Subscribe);
    }

    /// Jobs for these, by code, in batches.
    fn add(&mut self, items: &[Item], task: Task) {
        for same in items.chunk_by(|one, other| one.0 == other.0) {
            for batch in same.chunks(self.settings.limits.batch) {
                let keys = batch.iter().map(|(_, key)| *key).collect();
                let backoff = Backoff::new(self.settings.recovery.backoff);
                self.jobs.push(Job { code: batch[0].0, keys, task, due: Instant::now(), backoff });
            }
        }
    }

    /// Does one job. `Err`: the token is dead.
    async fn work(&mut self, mut job: Job) -> Result<(), String> {
        let (code, login, credentials) = (job.code, self.login, self.credentials);
        let result = match job.task {
            Task::Unsubscribe => {
                let result = self.rest.unsubscribe(login, code, &job.keys, credentials).await;
                result.map(|()| self.left(&job))
            }
            Task::Renew | Task::Subscribe => {
                if job.task == Task::Renew {
                    // Whether this works or not, subscribing tells.
                    let _ = self.rest.unsubscribe(login, code, &job.keys, credentials).await;
                }
                let result = self.rest.subscribe(login, code, &job.keys, credentials).await;
                match result {
                    Ok(snapshots) => {
                        self.have.extend(job.keys.iter().map(|key| (code, *key)));
                        self.tell_snapshots(&snapshots.quotes).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match result {
            Ok(()) => {}
            Err(RestError::Auth(reason)) => return Err(reason),
            // A server that will not take it back: nothing more can be done.
            Err(RestError::Already(_) | RestError::Refused(_)) if job.task == Task::Unsubscribe => self.left(&job),
            Err(RestError::Already(_)) if job.task == Task::Subscribe => {
                (job.task, job.due) = (Task::Renew, Instant::now());
                self.jobs.push(job);
            }
            Err(RestError::Already(_) | RestError::Refused(_)) if job.keys.len() > 1 => self.split(&job),
            Err(RestError::Already(_)) => self.have.extend(job.keys.iter().map(|key| (code, *key))),
            Err(RestError::Refused(reason)) => self.refuse(&job, &reason),
            Err(RestError::Busy { retry_after, reason }) => {
                let pause = retry_after.unwrap_or(self.settings.recovery.backoff.cap);
                self.again(job, Some(pause), &reason);
            }
            Err(RestError::Trouble(reason)) => self.again(job, None, &reason),
        }
        Ok(())
    }

    /// Nobody wants these any more.
    fn left(&mut self, job: &Job) {
        for key in &job.keys {
            self.have.remove(&(job.code, *key));
            self.desk.forget(job.code, *key);
        }
    }

    /// Half the job each, to learn whom a refusal means.
    fn split(&mut self, job: &Job) {
        let (first, second) = job.keys.split_at(job.keys.len() / 2);
        for keys in [first, second] {
            let backoff = Backoff::new(self.settings.recovery.backoff);
            let keys = keys.to_vec();
            self.jobs.push(Job { code: job.code, keys, task: job.task, due: Instant::now(), backoff });
        }
    }

    /// Later, unless its tries are used up.
    fn again(&mut self, mut job: Job, pause: Option<std::time::Duration>, reason: &str) {
        let Some(wait) = job.backoff.next_wait() else {
            let reason = format!("{reason}; {} tries failed", job.backoff.tries());
            match job.task {
                Task::Unsubscribe => self.left(&job),
                _ => self.refuse(&job, &reason),
            }
            return;
        };
        let count = job.keys.len();
        self.line.tell(What::Error, format!("{count} instruments of {} wait: {reason}", job.code.number()));
        job.due = Instant::now() + pause.unwrap_or(wait);
        self.jobs.push(job);
    }

    fn refuse(&mut self, job: &Job, reason: &str) {
        for key in &job.keys {
            let item = (job.code, *key);
            if let Some(mapped) = self.wanted.get(&item) {
                let symbol = Arc::clone(&mapped.instrument.symbol);
                self.line.tell(What::InstrumentRefused(symbol), format!("{}: {reason}", job.code.number()));
            }
            self.refused.insert(item);
        }
    }

    async fn tell_snapshots(&self, quotes: &[String]) {
        let received = Received::now();
        for quote in quotes {
            match self.desk.snapshot(quote, received) {
                Ok(Some(record)) => {
                    // `false`: everything stops anyway.
                    self.line.send(record).await;
                }
                Ok(None) => {}
                Err(fault) => self.line.health().malformed(&fault),
            }
        }
    }

    /// Tells the figures how many instruments are subscribed, by whatever codes.
    fn count(&mut self) {
        let now = self.have.iter().map(|(_, key)| key).collect::<BTreeSet<_>>().len();
        self.line.health().subscribed(now, self.counted);
        self.counted = now;
    }
}

/// What is asked for.
pub fn codes(settings: &FeedSettings, mode: Mode) -> Vec<Code> {
    if let Some(codes) = &settings.xts.codes {
        return codes.clone();
    }
    match mode {
        Mode::Ltp => vec![Code::Ltp],
        Mode::Quote => vec![Code::Touchline],
        Mode::Full => vec![Code::Depth, Code::OpenInterest],
    }
}
