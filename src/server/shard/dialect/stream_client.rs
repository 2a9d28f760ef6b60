//! A client of the JSON streams: what it may subscribe to, what it has chosen, how often it was refused.
//!
//! Nothing here joins or leaves a group; that is the dialect's ([`super::streams`]).

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;

use crate::server::shard::grant::Grant;
use crate::server::shard::pull::Pull;
use crate::wire::streams::request::{ErrorCode, RequestError, Selection};
use crate::wire::streams::{Channels, Filter};

/// Refused requests are counted over this time.
const ERROR_WINDOW_MS: u64 = 60_000;

/// Requests of one client that wait until they can be answered, in their order.
pub struct Deferred {
    /// As they came. Bounded: requests by the dialect, refused ones by how many errors a client may make.
    pub waiting: VecDeque<DeferredRequest>,
    /// When the first of them is answered in any case, ms.
    pub until_ms: u64,
}

/// A request whose turn has not come.
pub enum DeferredRequest {
    /// As it came.
    Heard(Box<str>),
    /// It was refused when it came, and is told so in its turn.
    Refused(RequestError),
}

/// What the server remembers of a client of the JSON streams, besides its session.
pub struct StreamClient {
    grant: Grant,
    /// Sorted by channel number. Without room for more: ten thousand clients have one each.
    filters: Box<[(usize, Filter)]>,
    /// Channels that are read from their history, at most one entry each.
    #[expect(clippy::box_collection, reason = "a pointer where there is none, in ten thousand clients")]
    pulls: Option<Box<Vec<Pull>>>,
    /// Requests that wait for a log, with those after them.
    deferred: Option<Box<Deferred>>,
    /// When the shard's timer for the end of its token fires, ms.
    pub expires_ms: Option<NonZeroU64>,
    errors_since_ms: u64,
    errors: u32,
    /// Whether the filters are those of auto-subscription, which it never asked for.
    automatic: bool,
}

impl StreamClient {
    /// A client without subscriptions, limited to what its token allows.
    pub fn new(grant: Grant) -> Self {
        let (filters, automatic, errors, errors_since_ms, expires_ms) = (Box::default(), false, 0, 0, None);
        Self { grant, filters, pulls: None, deferred: None, expires_ms, errors_since_ms, errors, automatic }
    }

    /// When its token says the connection ends, Unix seconds.
    pub fn expires_unix_s(&self) -> Option<u64> {
        self.grant.expires_unix_s.map(NonZeroU64::get)
    }

    /// The filters of auto-subscription: every trading stream the token allows.
    pub fn automatic(&self) -> Vec<(usize, Filter)> {
        let trading = Channels::TRADING.into_iter().enumerate();
        trading.filter(|(_, (name, _))| self.grant.allows(name)).map(|(at, _)| (at, Filter::All)).collect()
    }

    /// Its filters, by channel number, rising.
    pub fn filters(&self) -> &[(usize, Filter)] {
        &self.filters
    }

    /// Its filter of a channel, if it is subscribed to it.
    pub fn filter(&self, channel: usize) -> Option<&Filter> {
        let at = self.filters.binary_search_by_key(&channel, |(number, _)| *number).ok()?;
        Some(&self.filters[at].1)
    }

    /// Replaces its filters, by what it asked for or by those of auto-subscription. What is read from the
    /// histories of other channels ends.
    pub fn set_filters(&mut self, filters: Vec<(usize, Filter)>, automatic: bool) {
        (self.filters, self.automatic) = (filters.into(), automatic);
        let filters = &self.filters;
        if let Some(pulls) = &mut self.pulls {
            pulls.retain(|pull| filters.iter().any(|(channel, _)| *channel == pull.channel));
        }
    }

    /// What it reads from histories.
    pub fn pulls(&self) -> &[Pull] {
        self.pulls.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Its filters, and what it reads from histories, to be moved on.
    pub fn filters_and_pulls(&mut self) -> (&[(usize, Filter)], &mut [Pull]) {
        (&self.filters, self.pulls.as_deref_mut().map_or(&mut [], Vec::as_mut_slice))
    }

    /// The same, without its filters.
    pub fn pulls_mut(&mut self) -> &mut [Pull] {
        self.pulls.as_deref_mut().map_or(&mut [], Vec::as_mut_slice)
    }

    /// What it reads from the history of a channel.
    pub fn pull(&self, channel: usize) -> Option<&Pull> {
        self.pulls().iter().find(|pull| pull.channel == channel)
    }

    /// Reads the history of a channel, in place of what was read before.
    pub fn set_pull(&mut self, pull: Pull) {
        let pulls = self.pulls.get_or_insert_default();
        pulls.retain(|other| other.channel != pull.channel);
        pulls.push(pull);
    }

    /// Reads the history of a channel no more.
    pub fn remove_pull(&mut self, channel: usize) {
        if let Some(pulls) = &mut self.pulls {
            pulls.retain(|pull| pull.channel != channel);
            if pulls.is_empty() {
                self.pulls = None;
            }
        }
    }

    /// Requests that wait; `None` if none does.
    pub fn deferred(&mut self) -> &mut Option<Box<Deferred>> {
        &mut self.deferred
    }

    /// Counts a refused request. Returns whether the client may have another one within this minute.
    pub fn count_error(&mut self, now_ms: u64, limit: u32) -> bool {
        if now_ms - self.errors_since_ms >= ERROR_WINDOW_MS {
            (self.errors, self.errors_since_ms) = (0, now_ms);
        }
        self.errors += 1;
        self.errors <= limit
    }

    /// The channel numbers of a selection. An error if a channel is unknown, forbidden or does not take
    /// symbols.
    pub fn resolve(&self, channels: &Channels, selection: &Selection<'_>) -> Result<Vec<usize>, RequestError> {
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

    /// The filters after a `subscribe`. Symbols are added to those chosen before; a channel that was subscribed
    /// to as a whole is narrowed to them.
    pub fn subscribed(
        &self,
        channels: &Channels,
        selection: &Selection<'_>,
        max_symbols: usize,
    ) -> Result<Vec<(usize, Filter)>, RequestError> {
        let numbers = self.resolve(channels, selection)?;
        // The first subscription replaces the automatic ones.
        let mut filters = if self.automatic { Vec::new() } else { self.filters.to_vec() };
        for number in numbers {
            let at = filters.binary_search_by_key(&number, |(number, _)| *number);
            let filter = match (&selection.symbols, at.map(|at| &filters[at].1)) {
                (None, _) => Filter::All,
                (Some(symbols), Ok(Filter::Symbols(chosen))) => {
                    Filter::of(chosen.iter().map(|symbol| &**symbol).chain(symbols.iter().map(|symbol| &**symbol)))
                }
                (Some(symbols), _) => Filter::of(symbols.iter().map(|symbol| &**symbol)),
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

    /// The filters after an `unsubscribe`. Ending what is not subscribed to is no error.
    pub fn unsubscribed(
        &self,
        channels: &Channels,
        selection: &Selection<'_>,
    ) -> Result<Vec<(usize, Filter)>, RequestError> {
        let numbers = self.resolve(channels, selection)?;
        let mut filters = self.filters.to_vec();
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
pub fn groups_of(channels: &Channels, filters: &[(usize, Filter)]) -> BTreeSet<String> {
    filters.iter().flat_map(|(number, filter)| filter.groups(&channels.all()[*number])).collect()
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
            ..Selection::default()
        }
    }

    fn client(filters: &[(usize, &[&str])], automatic: bool) -> StreamClient {
        let filter = |symbols: &[&str]| match symbols {
            [] => Filter::All,
            symbols => Filter::of(symbols.iter().copied()),
        };
        let filters = filters.iter().map(|(number, symbols)| (*number, filter(symbols))).collect();
        StreamClient { filters, automatic, ..StreamClient::new(Grant::default()) }
    }

    fn groups(filters: &[(usize, Filter)]) -> Vec<String> {
        groups_of(&channels(), filters).into_iter().collect()
    }

    fn subscribe(client: &StreamClient, selection: &Selection<'_>) -> Result<Vec<String>, ErrorCode> {
        client.subscribed(&channels(), selection, 3).map(|filters| groups(&filters)).map_err(|error| error.code)
    }

    fn unsubscribe(client: &StreamClient, selection: &Selection<'_>) -> Result<Vec<String>, ErrorCode> {
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

    #[test]
    fn an_idle_client_is_small() {
        assert!(size_of::<StreamClient>() <= 80, "{}", size_of::<StreamClient>());
        assert!(size_of::<(usize, Filter)>() <= 16, "{}", size_of::<(usize, Filter)>());
        let mut subscribed = client(&[(0, &[]), (1, &[])], true);
        let filters = subscribed.subscribed(&channels(), &selection(&["lines"], &[]), 3).unwrap();
        subscribed.set_filters(filters, false);
        assert_eq!(size_of_val(&*subscribed.filters), size_of::<(usize, Filter)>(), "no room is kept for more filters");
    }

    #[test]
    fn errors_are_counted_by_the_minute() {
        let mut client = client(&[], false);
        assert_eq!([70_000, 70_001, 129_999].map(|now_ms| client.count_error(now_ms, 2)), [true, true, false]);
        assert_eq!([130_000, 131_000, 131_001].map(|now_ms| client.count_error(now_ms, 2)), [true, true, false]);
    }
}
