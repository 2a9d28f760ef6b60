//! What clients of the JSON streams ask for: channels and symbols (`docs/streams.md`).
//!
//! ```text
//! request ─▶ next filters, or an error and nothing changes ─▶ groups to join, groups to leave
//!         ─▶ `subscribed` ─▶ the latest state of what was joined
//! ```

use std::collections::BTreeSet;

use super::connection::Connection;
use super::stats::Ending;
use crate::engine::clock;
use crate::server::shard::{Shard, now_ms};
use crate::wire::streams::request::{ErrorCode, RequestError, Selection, StreamRequest};
use crate::wire::streams::{Channels, Filter, messages};
use crate::wire::websocket::ClientMessage;

/// Errors are counted over this time.
const ERROR_WINDOW_MS: u64 = 60_000;

/// What a token allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Channels that may be subscribed to; `None`: all.
    pub channels: Option<Box<[Box<str>]>>,
    /// When the connection is closed, Unix seconds; `None`: never.
    pub expires_unix_s: Option<u64>,
}

impl Grant {
    /// Whether a channel may be had.
    pub fn allows(&self, channel: &str) -> bool {
        self.channels.as_ref().is_none_or(|allowed| allowed.iter().any(|name| &**name == channel))
    }
}

/// What a client of the JSON streams is besides a session.
pub struct Client {
    pub(super) grant: Grant,
    /// By channel number, rising.
    filters: Vec<(usize, Filter)>,
    /// Whether the filters are those it never asked for.
    automatic: bool,
    errors: u32,
    errors_since_ms: u64,
    /// Where its token's end stands among the shard's timers, ms.
    pub(super) expires_ms: Option<u64>,
}

impl Client {
    /// A client without subscriptions.
    pub fn new(grant: Grant) -> Self {
        let (filters, automatic, errors, errors_since_ms, expires_ms) = (Vec::new(), false, 0, 0, None);
        Self { grant, filters, automatic, errors, errors_since_ms, expires_ms }
    }

    /// The channels' numbers of a selection, unless one is unknown, forbidden or has no symbols.
    fn resolve(&self, channels: &Channels, selection: &Selection<'_>) -> Result<Vec<usize>, RequestError> {
        let mut numbers = Vec::with_capacity(selection.channels.len());
        for name in &selection.channels {
            let Some((number, channel)) = channels.find(name) else {
                return Err(RequestError::new(ErrorCode::UnknownChannel, channels.unknown(name).to_string()));
            };
            if !self.grant.allows(name) {
                let words = format!("the token does not allow the channel {name:?}");
                return Err(RequestError::new(ErrorCode::ForbiddenChannel, words));
            }
            if selection.symbols.is_some() && !channel.kind.is_filtered() {
                let words = format!("expected no symbols with {name:?}: only trading streams have them");
                return Err(RequestError::new(ErrorCode::InvalidMessage, words));
            }
            numbers.push(number);
        }
        Ok(numbers)
    }

    /// The filters after a subscription. Symbols are added to chosen ones, and narrow a channel that
    /// was subscribed to as a whole.
    fn subscribed(
        &self,
        channels: &Channels,
        selection: &Selection<'_>,
        max_symbols: usize,
    ) -> Result<Vec<(usize, Filter)>, RequestError> {
        let numbers = self.resolve(channels, selection)?;
        // The first subscription replaces what was given unasked.
        let mut filters = if self.automatic { Vec::new() } else { self.filters.clone() };
        for number in numbers {
            let at = filters.binary_search_by_key(&number, |(number, _)| *number);
            let filter = match (&selection.symbols, at.map(|at| &filters[at].1)) {
                (None, _) => Filter::All,
                (Some(symbols), Ok(Filter::Symbols(chosen))) => Filter::Symbols(
                    chosen.iter().cloned().chain(symbols.iter().map(|symbol| (**symbol).into())).collect(),
                ),
                (Some(symbols), _) => Filter::Symbols(symbols.iter().map(|symbol| (**symbol).into()).collect()),
            };
            if let Filter::Symbols(symbols) = &filter
                && symbols.len() > max_symbols
            {
                let words = format!("expected at most {max_symbols} symbols per channel, got {}", symbols.len());
                return Err(RequestError::new(ErrorCode::LimitExceeded, words));
            }
            match at {
                Ok(at) => filters[at].1 = filter,
                Err(at) => filters.insert(at, (number, filter)),
            }
        }
        Ok(filters)
    }

    /// The filters after an end of subscriptions. What is not subscribed to needs no end.
    fn unsubscribed(
        &self,
        channels: &Channels,
        selection: &Selection<'_>,
    ) -> Result<Vec<(usize, Filter)>, RequestError> {
        let numbers = self.resolve(channels, selection)?;
        let mut filters = self.filters.clone();
        for number in numbers {
            let Ok(at) = filters.binary_search_by_key(&number, |(number, _)| *number) else { continue };
            match (&selection.symbols, &mut filters[at].1) {
                (None, _) => drop(filters.remove(at)),
                (Some(symbols), Filter::Symbols(chosen)) => {
                    let ended: BTreeSet<&str> = symbols.iter().map(AsRef::as_ref).collect();
                    chosen.retain(|symbol| !ended.contains(&**symbol));
                    if chosen.is_empty() {
                        filters.remove(at);
                    }
                }
                (Some(_), Filter::All) => {
                    let name = &channels.all()[number].name;
                    let words = format!("expected symbols that were chosen; {name:?} is subscribed to as a whole");
                    return Err(RequestError::new(ErrorCode::InvalidMessage, words));
                }
            }
        }
        Ok(filters)
    }
}

/// The names of the groups behind filters.
fn groups_of(channels: &Channels, filters: &[(usize, Filter)]) -> BTreeSet<String> {
    filters.iter().flat_map(|(number, filter)| filter.groups(&channels.all()[*number])).collect()
}

impl Shard {
    /// One message of a client of the JSON streams. False: nothing more is wanted from it.
    pub(super) fn stream_message(&mut self, key: u32, message: &ClientMessage<'_>) -> bool {
        let limit = self.stream_options.max_request_bytes;
        let request = match message {
            ClientMessage::Text(text) if text.len() <= limit => StreamRequest::parse(text),
            ClientMessage::Text(text) => {
                let words = format!("expected messages of at most {limit} bytes, got {}", text.len());
                Err(RequestError::new(ErrorCode::TooLarge, words))
            }
            _ => Err(RequestError::new(ErrorCode::InvalidMessage, "expected text, got a binary message")),
        };
        let done = request.and_then(|request| match request {
            StreamRequest::Ping => {
                self.answer(key, messages::append_pong);
                Ok(())
            }
            StreamRequest::Subscribe(selection) => self.subscribe(key, &selection),
            StreamRequest::Unsubscribe(selection) => self.unsubscribe(key, &selection),
        });
        match done {
            Ok(()) => self.has_room_for_answers(key),
            Err(error) => self.request_failed(key, &error),
        }
    }

    /// Auto-subscription: every trading stream the token allows, until the client asks for something.
    pub(super) fn subscribe_unasked(&mut self, key: u32) {
        if !self.stream_options.auto_subscribe {
            return;
        }
        let Some(client) = self.client(key) else { return };
        client.automatic = true;
        let trading = Channels::TRADING.into_iter().enumerate();
        let filters =
            trading.filter(|(_, (name, _))| client.grant.allows(name)).map(|(at, _)| (at, Filter::All)).collect();
        // Cannot fail: these groups are declared.
        if let Ok(joined) = self.change(key, filters) {
            self.tell_retained(key, &joined);
        }
    }

    fn subscribe(&mut self, key: u32, selection: &Selection<'_>) -> Result<(), RequestError> {
        let (channels, limit) = (self.channels.clone(), self.stream_options.max_symbols_per_channel);
        let Some(client) = self.client(key) else { return Ok(()) };
        let filters = client.subscribed(&channels, selection, limit)?;
        self.confirm(key, filters)
    }

    fn unsubscribe(&mut self, key: u32, selection: &Selection<'_>) -> Result<(), RequestError> {
        let channels = self.channels.clone();
        let Some(client) = self.client(key) else { return Ok(()) };
        let filters = client.unsubscribed(&channels, selection)?;
        self.confirm(key, filters)
    }

    /// Makes `filters` the client's own, says so, and tells what is known of what is new.
    fn confirm(&mut self, key: u32, filters: Vec<(usize, Filter)>) -> Result<(), RequestError> {
        let joined = self.change(key, filters)?;
        let channels = self.channels.clone();
        let Some(client) = self.client(key) else { return Ok(()) };
        client.automatic = false;
        let mut answer = Vec::new();
        messages::append_subscribed(&channels, client.filters.iter().map(|(at, filter)| (*at, filter)), &mut answer);
        self.answer(key, |out| out.extend_from_slice(&answer));
        self.tell_retained(key, &joined);
        Ok(())
    }

    /// Joins and leaves what lies between the old filters and the new. Returns the lanes joined.
    fn change(&mut self, key: u32, filters: Vec<(usize, Filter)>) -> Result<Vec<u32>, RequestError> {
        let channels = self.channels.clone();
        let Some(client) = self.client(key) else { return Ok(Vec::new()) };
        let (before, after) = (groups_of(&channels, &client.filters), groups_of(&channels, &filters));
        let mut joined = Vec::new();
        for group in after.difference(&before) {
            match self.enter(key, group) {
                Ok(lane) => joined.extend(lane),
                Err(too_many) => {
                    // Refused whole: what was joined so far is left again.
                    after.difference(&before).for_each(|group| self.leave(key, group));
                    let words = format!("expected at most {} filters on this server", too_many.limit);
                    return Err(RequestError::new(ErrorCode::LimitExceeded, words));
                }
            }
        }
        if before.difference(&after).next().is_some() {
            // What is due of the old groups goes first; only what a slow socket does not take is lost.
            self.flush(key);
            before.difference(&after).for_each(|group| self.leave(key, group));
        }
        if let Some(client) = self.client(key) {
            client.filters = filters;
        }
        Ok(joined)
    }

    /// Sends the latest state of the groups just joined, where there is one.
    fn tell_retained(&mut self, key: u32, joined: &[u32]) {
        for &lane in joined {
            // The flush below may have ended the subscription, and with it the lane.
            let session = self.sessions.get_mut(key as usize);
            if session.is_none_or(|session| session.membership(lane).is_none()) {
                return;
            }
            if let Some(frame) = self.groups.retained(lane) {
                self.answer(key, |out| out.extend_from_slice(&frame));
                // At once: a large state must not count as answers that wait.
                self.flush(key);
            }
        }
    }

    fn request_failed(&mut self, key: u32, error: &RequestError) -> bool {
        let limit = self.stream_options.max_request_errors;
        let now = now_ms();
        self.stats.request_errors.add(1);
        self.answer(key, |out| messages::append_error(error, (clock::unix_ns() / 1_000_000) as i64, out));
        let Some(client) = self.client(key) else { return false };
        if now - client.errors_since_ms >= ERROR_WINDOW_MS {
            (client.errors, client.errors_since_ms) = (0, now);
        }
        client.errors += 1;
        if client.errors > limit {
            self.close(key, 1008, "policy violation: too many errors", Ending::Errors);
            return false;
        }
        self.has_room_for_answers(key)
    }

    /// Closes a client that does not read its answers; false if it was.
    fn has_room_for_answers(&mut self, key: u32) -> bool {
        let connection = self.sessions.get(key as usize).and_then(|session| session.connection.as_ref());
        let Some(waiting) = connection.map(Connection::control_bytes) else { return false };
        if waiting > self.options.max_reply_bytes {
            self.close(key, 1008, "too many answers were not read", Ending::Replies);
            return false;
        }
        true
    }

    fn answer(&mut self, key: u32, append: impl FnOnce(&mut Vec<u8>)) {
        let connection = self.sessions.get_mut(key as usize).and_then(|session| session.connection.as_mut());
        if let Some(connection) = connection.filter(|connection| connection.is_open()) {
            append(connection.control());
        }
    }

    fn client(&mut self, key: u32) -> Option<&mut Client> {
        self.sessions.get_mut(key as usize)?.client.as_deref_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels() -> Channels {
        Channels::new(["lines"])
    }

    fn selection(channels: &[&'static str], symbols: &[&'static str]) -> Selection<'static> {
        Selection {
            channels: channels.iter().map(|&name| name.into()).collect(),
            symbols: (!symbols.is_empty()).then(|| symbols.iter().map(|&symbol| symbol.into()).collect()),
        }
    }

    fn client(filters: &[(usize, &[&str])], automatic: bool) -> Client {
        let filter = |symbols: &[&str]| match symbols {
            [] => Filter::All,
            symbols => Filter::Symbols(symbols.iter().map(|&symbol| symbol.into()).collect()),
        };
        let filters = filters.iter().map(|(number, symbols)| (*number, filter(symbols))).collect();
        Client { filters, automatic, ..Client::new(Grant::default()) }
    }

    fn groups(filters: &[(usize, Filter)]) -> Vec<String> {
        groups_of(&channels(), filters).into_iter().collect()
    }

    fn subscribe(client: &Client, selection: &Selection<'_>) -> Result<Vec<String>, ErrorCode> {
        client.subscribed(&channels(), selection, 3).map(|filters| groups(&filters)).map_err(|error| error.code)
    }

    fn unsubscribe(client: &Client, selection: &Selection<'_>) -> Result<Vec<String>, ErrorCode> {
        client.unsubscribed(&channels(), selection).map(|filters| groups(&filters)).map_err(|error| error.code)
    }

    #[test]
    fn the_first_subscription_replaces_the_automatic_ones_and_the_next_adds() {
        let automatic = client(&[(0, &[]), (1, &[]), (2, &[]), (3, &[])], true);
        assert_eq!(subscribe(&automatic, &selection(&["lines"], &[])).unwrap(), ["lines"]);
        let asked = client(&[(4, &[])], false);
        assert_eq!(subscribe(&asked, &selection(&["signals"], &[])).unwrap(), ["lines", "signals"]);
    }

    #[test]
    fn an_end_before_the_first_subscription_means_everything_but_that() {
        let automatic = client(&[(0, &[]), (1, &[]), (2, &[]), (3, &[])], true);
        let left = unsubscribe(&automatic, &selection(&["signals"], &[])).unwrap();
        assert_eq!(left, ["portfolio", "price_updates", "trades"]);
    }

    #[test]
    fn symbols_are_added_narrow_a_whole_channel_and_give_way_to_it() {
        let chosen = client(&[(0, &["B"])], false);
        assert_eq!(subscribe(&chosen, &selection(&["price_updates"], &["A"])).unwrap(), ["price_updates:A,B"]);
        assert_eq!(subscribe(&chosen, &selection(&["price_updates"], &[])).unwrap(), ["price_updates"]);
        let whole = client(&[(0, &[])], false);
        assert_eq!(subscribe(&whole, &selection(&["price_updates"], &["A"])).unwrap(), ["price_updates:A"]);
    }

    #[test]
    fn the_end_of_the_last_symbol_is_the_end_of_the_channel() {
        let chosen = client(&[(1, &["A", "B"])], false);
        assert_eq!(unsubscribe(&chosen, &selection(&["signals"], &["A", "X"])).unwrap(), ["signals:B"]);
        assert_eq!(unsubscribe(&chosen, &selection(&["signals"], &["A", "B"])).unwrap(), Vec::<String>::new());
        let whole = client(&[(1, &[])], false);
        assert_eq!(unsubscribe(&whole, &selection(&["signals"], &["A"])), Err(ErrorCode::InvalidMessage));
        assert_eq!(unsubscribe(&whole, &selection(&["trades"], &["A"])).unwrap(), ["signals"]);
    }

    #[test]
    fn a_list_with_one_bad_channel_is_refused_whole() {
        let mut client = client(&[], false);
        assert_eq!(subscribe(&client, &selection(&["lines", "nope"], &[])), Err(ErrorCode::UnknownChannel));
        assert_eq!(subscribe(&client, &selection(&["signals", "lines"], &["A"])), Err(ErrorCode::InvalidMessage));
        let many = selection(&["signals"], &["A", "B", "C", "D"]);
        assert_eq!(subscribe(&client, &many), Err(ErrorCode::LimitExceeded));
        client.grant.channels = Some(["lines".into()].into());
        assert_eq!(subscribe(&client, &selection(&["lines", "signals"], &[])), Err(ErrorCode::ForbiddenChannel));
        assert_eq!(subscribe(&client, &selection(&["lines"], &[])).unwrap(), ["lines"]);
    }
}
