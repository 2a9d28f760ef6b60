//! Where a subscription to the JSON streams goes on, and what the client is told of it.
//!
//! With what was missed, or with what comes now; over the lanes, or read from the channel's history
//! ([`pull`](crate::server::shard::pull)).

use std::sync::Arc;

use super::conversation::Conversation;
use super::stream_client::StreamClient;
use crate::engine::system_clock;
use crate::server::shard::lanes::Lanes;
use crate::server::shard::pull::Pull;
use crate::server::shard::session::{Membership, Session};
use crate::server::shard::stats::ShardStats;
use crate::streams::Streams;
use crate::streams::stream_options::StreamOptions;
use crate::wire::Wire;
use crate::wire::streams::messages::{self, ChannelState};
use crate::wire::streams::position::{NotRecovered, Since};
use crate::wire::streams::request::{ErrorCode, RequestError};
use crate::wire::streams::slow_policy::SlowPolicy;

/// Whether a client gets what it missed of a channel, by the channel's number.
pub type Answers = Vec<(usize, Result<(), NotRecovered>)>;

/// What a subscription begins with: the channels, the settings, the counters.
pub struct StreamStart {
    /// The channels and their histories.
    pub streams: Arc<Streams>,
    /// The policies of channels, and the limits of requests.
    pub options: StreamOptions,
    /// What the shard counts.
    pub stats: Arc<ShardStats>,
}

impl StreamStart {
    /// The policy of a subscription: what is asked for, or what it has, or what the channel has.
    pub(super) fn policy(
        &self,
        channel: usize,
        asked: Option<SlowPolicy>,
        now: Option<&Pull>,
    ) -> Result<SlowPolicy, RequestError> {
        let usual = self.options.policy(&self.streams.channels().all()[channel].name);
        match asked {
            Some(asked) => asked.narrowing(usual).map_err(|words| RequestError::new(ErrorCode::InvalidMessage, words)),
            None => Ok(now.map_or(usual, |pull| pull.policy.max(usual))),
        }
    }

    /// Decides where a subscription goes on, once its groups are joined: with what was missed, or with what comes
    /// now; over the lanes, or read from the history. The answer to `since`, if there is one.
    pub(super) fn begin(
        &self,
        channel: usize,
        policy: SlowPolicy,
        since: Option<&Since>,
        talk: &mut Conversation<'_>,
    ) -> Option<Result<(), NotRecovered>> {
        let known = &self.streams.channels().all()[channel];
        if known.kind.is_conflated() {
            return self.begin_states(channel, policy, since, talk);
        }
        // What is due over the lanes goes first; what a slow socket does not take is read from the history.
        let filter = client(talk)?.filter(channel)?;
        let groups = filter.groups(known);
        if since.is_some() || policy != SlowPolicy::Drop {
            talk.flush();
        }
        let undelivered = talk.first_undelivered(&groups);
        let session = talk.sessions.get_mut(talk.key)?;
        let before = session.client.as_ref()?.pull(channel);
        let history = self.streams.history(channel);
        let answer = since.map(|since| history.start_after(since, system_clock::monotonic_ms()));
        let next = match answer {
            Some(Ok(start)) => start,
            _ if before.is_none() && policy == SlowPolicy::Drop => return answer.map(|answer| answer.map(drop)),
            _ => before.map_or_else(|| history.index_of_id(undelivered), |pull| pull.next),
        };
        let mut pull = Pull::new(channel, policy, next, history.last_id(), Arc::clone(history.epoch()));
        if let Some(before) = before {
            pull.replace(before);
        }
        if let (Some(Ok(_)), Some(Since { seqs, .. })) = (answer, since) {
            let seqs = history.known(seqs);
            pull.since = history.follows_log().then(|| Box::new(seqs.clone()));
            (pull.sent, pull.is_catching_up, pull.whole_to) = (seqs, true, history.head());
        } else {
            let has = before.filter(|before| before.epoch == pull.epoch);
            (pull.since, pull.sent) = (has.and_then(|before| before.since.clone()), history.seqs());
        }
        drop(history);
        session.hold(pull, self.streams.channels(), talk.lanes);
        talk.pull();
        answer.map(|answer| answer.map(drop))
    }

    /// The same for a channel of states: the current one is all there is to recover.
    fn begin_states(
        &self,
        channel: usize,
        policy: SlowPolicy,
        since: Option<&Since>,
        talk: &mut Conversation<'_>,
    ) -> Option<Result<(), NotRecovered>> {
        let session = talk.sessions.get_mut(talk.key)?;
        let client = session.client.as_ref()?;
        let before = client.pull(channel);
        if policy != SlowPolicy::Drop {
            let epoch = Arc::clone(self.streams.history(channel).epoch());
            let mut pull = Pull::new(channel, policy, 0, 0, epoch);
            if let Some(before) = before {
                pull.replace(before);
            }
            session.hold(pull, self.streams.channels(), talk.lanes);
            talk.pull();
        } else if before.is_some() {
            let groups = self.groups(channel, client);
            session.go_live(channel, self.streams.channels(), talk.lanes);
            // What has changed since it was sent last is in none of the messages to come.
            let lanes: Vec<u32> = groups.iter().filter_map(|group| talk.lanes.find(group, Wire::Streams)).collect();
            tell_retained(&lanes, talk);
        }
        since.map(|_| Err(NotRecovered::Conflated))
    }

    /// Answers `subscribed`, and sends the latest state of what is new, or was asked for.
    pub(super) fn confirm(&self, answers: &Answers, joined: &[u32], talk: &mut Conversation<'_>) {
        for (_, answer) in answers {
            if answer.is_ok() { self.stats.resumes.add(1) } else { self.stats.resumes_refused.add(1) }
        }
        let Some(client) = talk.sessions.get(talk.key).and_then(|session| session.client.as_deref()) else { return };
        let states: Vec<ChannelState> =
            client.filters().iter().map(|(at, _)| self.state(*at, client, answers)).collect();
        let mut answer = Vec::new();
        let filters = client.filters().iter().map(|(at, filter)| (*at, filter));
        messages::append_subscribed(self.streams.channels(), filters, &states, &mut answer);
        let again = answers.iter().filter(|(_, answer)| *answer == Err(NotRecovered::Conflated));
        let again: Vec<String> = again.flat_map(|(at, _)| self.groups(*at, client)).collect();
        let again = again.iter().filter_map(|group| talk.lanes.find(group, Wire::Streams));
        let mut lanes: Vec<u32> = joined.iter().copied().chain(again).collect();
        lanes.sort_unstable();
        lanes.dedup();
        if let Some(out) = talk.answer() {
            out.extend_from_slice(&answer);
        }
        tell_retained(&lanes, talk);
    }

    fn groups(&self, channel: usize, client: &StreamClient) -> Vec<String> {
        client.filter(channel).map_or_else(Vec::new, |filter| filter.groups(&self.streams.channels().all()[channel]))
    }

    /// What the answer tells of a channel.
    fn state(&self, channel: usize, client: &StreamClient, answers: &Answers) -> ChannelState {
        let history = self.streams.history(channel);
        let answer = answers.iter().find(|(at, _)| *at == channel).map(|(_, answer)| answer);
        let policy = client.pull(channel).map(|pull| pull.policy).filter(|policy| *policy != SlowPolicy::Drop);
        ChannelState {
            epoch: Arc::clone(history.epoch()),
            seq: history.seqs(),
            recovered: answer.map(Result::is_ok),
            reason: answer.and_then(|answer| answer.err()).map(NotRecovered::as_str),
            policy: policy.map(SlowPolicy::name),
            max_rate: policy.and_then(SlowPolicy::max_rate),
        }
    }

    /// Groups that were joined now belong to channels that may be read from their history.
    pub(super) fn hold_again(&self, session: &mut Session, lanes: &Lanes) {
        let Some(client) = &mut session.client else { return };
        for pull in client.pulls_mut() {
            pull.live_after = pull.live_after.max(self.streams.history(pull.channel).last_id());
            // Those of other lanes.
            pull.carried = None;
        }
        let pulled: Vec<usize> = client.pulls().iter().map(|pull| pull.channel).collect();
        for channel in pulled {
            session.hold_lanes(channel, self.streams.channels(), lanes);
        }
    }
}

/// Queues the latest state of the groups just joined, where there is one. However large it is, it is no answer that
/// the client leaves unread: it goes out as the client takes it, and costs no memory of its own.
pub fn tell_retained(joined: &[u32], talk: &mut Conversation<'_>) {
    for &lane in joined {
        // One that is held gets its state when its turn comes.
        let is_held = |membership: &mut Membership| membership.cursor == Membership::HELD;
        if talk.session().and_then(|session| session.membership(lane)).is_none_or(is_held) {
            continue;
        }
        let state = talk.lanes.retained(lane);
        let connection = talk.sessions.connection_mut(talk.key).filter(|connection| connection.is_open());
        if let (Some(state), Some(connection)) = (state, connection) {
            // Asked for again while the one before waits.
            connection.retain_states(|of| of != lane);
            connection.outbound().push_state(lane, state);
        }
    }
}

/// What is remembered of the client; every session of this dialect has it.
pub fn client<'a>(talk: &'a mut Conversation<'_>) -> Option<&'a mut StreamClient> {
    talk.session()?.client.as_deref_mut()
}
