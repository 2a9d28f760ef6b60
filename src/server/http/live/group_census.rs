//! The groups of all hubs: who has subscribers and no data, who lags, and how much each publishes.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::live_snapshot::{GroupRow, GroupTable, HubFlow};
use super::totals::{Between, PLACES, Totals, place_name};
use crate::engine::group::Group;
use crate::engine::hub::wire_name;
use crate::server::http::app::App;
use crate::server::shard::shown_text::shown;
use crate::server::shard::stats::STREAMS;
use crate::wire::gexbot::{GroupName, HubName, Series};

/// Characters of a group's name that are shown; a client may join one of 1024.
const NAME: usize = 200;

/// The largest number of frames that a subscriber is behind, by group key, and whether it is one of `/ws`.
pub type Lags = HashMap<(Arc<str>, bool), u64>;

/// All groups at one moment.
pub struct GroupCensus {
    groups: Vec<CountedGroup>,
    /// Groups by place of their hub; one that several carry counts on each.
    pub by_hub: [u64; PLACES],
    /// Those among them that a source publishes to.
    pub with_data: [u64; PLACES],
}

struct CountedGroup {
    group: Arc<Group>,
    /// The place of a hub that carries it, the one without `v2_` if there is one.
    place: Option<usize>,
    publications: u64,
}

/// How many publications each group had had.
pub type Published = HashMap<(Arc<str>, bool), u64>;

impl GroupCensus {
    /// Counts all groups, and adds their publications to those of the hubs in `totals`.
    pub fn take(app: &App, totals: &mut Totals) -> Self {
        let mut census = Self { groups: Vec::new(), by_hub: [0; PLACES], with_data: [0; PLACES] };
        app.hub.for_each_group(|group| {
            let series = GroupName::parse(wire_name(group.name()).0).ok().map(|(_, name)| name.series);
            census.count(group, series.as_ref(), totals);
        });
        app.streams.hub().for_each_group(|group| {
            census.add(group, Some(STREAMS), &[STREAMS], totals);
        });
        census
    }

    fn count(&mut self, group: &Arc<Group>, series: Option<&Series<'_>>, totals: &mut Totals) {
        let carriers: Vec<usize> = series
            .into_iter()
            .flat_map(|series| HubName::all().filter(|hub| hub.carries(series)).map(HubName::index))
            .collect();
        let is_spot = series.is_some_and(|series| series.topic().is_none());
        let place = carriers.first().copied().filter(|_| !is_spot);
        self.add(group, place, &carriers, totals);
    }

    fn add(&mut self, group: &Arc<Group>, place: Option<usize>, carriers: &[usize], totals: &mut Totals) {
        let publications = group.publications();
        for &carrier in carriers {
            totals.hub_publications[carrier] += publications;
            self.by_hub[carrier] += 1;
            self.with_data[carrier] += u64::from(group.is_declared());
        }
        self.groups.push(CountedGroup { group: Arc::clone(group), place, publications });
    }

    /// How many groups have subscribers whom no source serves.
    pub fn waiting_in_vain(&self) -> usize {
        let in_vain = |counted: &&CountedGroup| {
            counted.place != Some(STREAMS) && !counted.group.is_declared() && counted.group.subscribers() > 0
        };
        self.groups.iter().filter(in_vain).count()
    }

    /// The flow of the hubs that are used, or could be.
    pub fn hubs<'a>(&'a self, totals: &'a Totals) -> impl Iterator<Item = (usize, &'static str, HubFlow)> {
        (0..PLACES).filter_map(|place| {
            let (connections, groups) = (totals.connections[place], self.by_hub[place]);
            let is_used = connections > 0 || totals.frames[place] > 0 || self.with_data[place] > 0;
            is_used.then(|| (place, place_name(place), HubFlow { connections, groups, ..HubFlow::default() }))
        })
    }

    /// The rows, worst first chosen, and what was published until now.
    pub fn table(
        &self,
        limit: usize,
        lags: &Lags,
        before: Option<(&Published, Between<'_>)>,
    ) -> (GroupTable, Published) {
        let mut rows: Vec<(GroupRow, &CountedGroup)> =
            self.groups.iter().map(|counted| (row(counted, lags, before), counted)).collect();
        let total = rows.len();
        let order = |row: &GroupRow| (row.rank, Reverse(row.lag_max), Reverse(row.subscribers));
        if rows.len() > limit {
            rows.sort_by(|(one, _), (other, _)| order(one).cmp(&order(other)).then_with(|| one.name.cmp(&other.name)));
            rows.truncate(limit);
        }
        let published = self.groups.iter().map(|counted| (key(counted), counted.publications)).collect();
        let rows = rows.into_iter().map(|(row, _)| (row_key(&row), row)).collect();
        (GroupTable { total, rows }, published)
    }
}

fn key(counted: &CountedGroup) -> (Arc<str>, bool) {
    (Arc::clone(counted.group.name()), counted.place == Some(STREAMS))
}

/// Names of different hubs may be the same, and a session's group has the name of the common one.
fn row_key(row: &GroupRow) -> String {
    match &row.session {
        _ if row.hub == "streams" => format!("streams: {}", row.name),
        Some(session) => format!("{} (session {session})", row.name),
        None => row.name.clone(),
    }
}

fn row(counted: &CountedGroup, lags: &Lags, before: Option<(&Published, Between<'_>)>) -> GroupRow {
    let group = &counted.group;
    let (name, session) = wire_name(group.name());
    let (subscribers, is_stream) = (group.subscribers(), counted.place == Some(STREAMS));
    // A filter of /ws gets its data from its channel.
    let has_data = group.is_declared() || is_stream;
    let key = key(counted);
    let (lag_max, dropped) = (lags.get(&key).copied().unwrap_or(0), group.dropped());
    let (mark, rank) = match (has_data, subscribers) {
        (false, 1..) => (Some("no data"), 0),
        (true, 0) => (Some("nobody"), 3),
        _ => (None, if lag_max > 0 || dropped > 0 { 1 } else { 2 }),
    };
    let published = before.map(|(published, between)| {
        between.rate(counted.publications, published.get(&key).copied().unwrap_or(counted.publications))
    });
    let newest = group.newest();
    GroupRow {
        name: shown(name, NAME),
        hub: match counted.place {
            Some(place) => place_name(place),
            None => "spot",
        }
        .to_owned(),
        session: session.map(str::to_owned),
        subscribers,
        frames_per_s: published.map(|rate| rate * subscribers as f64),
        record_at: newest.map(|(record, _)| record * 1000).filter(|&at| at > 0),
        published_at: newest.map(|(_, published_ms)| published_ms),
        lag_max,
        dropped,
        mark: mark.map(str::to_owned),
        rank,
    }
}
