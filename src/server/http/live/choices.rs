//! `GET /live/options`: what there is to choose from, for whoever builds the name of a group, and the settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde_json::{Value, json};

use super::live_options::{LivePage, ShownSetting};
use super::on_live::OnLive;
use crate::engine::hub::wire_name;
use crate::server::http::app::{App, Peer};
use crate::server::http::control_access::needs_token;
use crate::server::http::control_options::Control;
use crate::wire::gexbot::{GroupName, HubTopic, Package, Series};
use crate::wire::payload::Profile;
use crate::wire::streams::ChannelKind;

/// Names of groups in one answer.
const GROUPS: usize = 2000;

/// `GET /live/options`
pub async fn options(OnLive(app): OnLive, peer: Peer, headers: HeaderMap) -> Response {
    let control = &app.options.control;
    let steered = match (control.control, &control.control_token) {
        (Control::Off, _) => "off",
        (Control::On, Some(_)) => "token",
        (Control::On, None) => "open",
    };
    let offered = Offered::of(&app);
    Json(json!({
        "prefix": &*app.prefix,
        "hubs": offered.hubs(),
        "tickers": offered.tickers,
        "groups": offered.groups.iter().take(GROUPS).map(|group| &**group).collect::<Vec<_>>(),
        "channels": channels(&app),
        "profile": app.pinned.unwrap_or(Profile::V2026_04).name(),
        "needs_key": true,
        "needs_ws_token": !app.authority.is_open(),
        "control": steered,
        "control_token_needed": needs_token(control, peer.0.ip(), &headers),
        "replay": app.replay.clocks().is_some(),
        "settings": settings(&app),
    }))
    .into_response()
}

/// The settings, without the values of secrets; in a summary without any text.
fn settings(app: &App) -> Vec<ShownSetting> {
    let mut settings = app.live.settings.clone();
    if app.live.options.live_page == LivePage::Summary {
        let changed = settings.iter_mut().filter(|setting| setting.is_text && !setting.is_default);
        changed.for_each(|setting| "***".clone_into(&mut setting.value));
    }
    settings
}

/// What sources publish on GexBot's hubs.
#[derive(Default)]
struct Offered {
    tickers: BTreeSet<String>,
    groups: BTreeSet<Arc<str>>,
    /// The package and the categories of each topic.
    topics: BTreeMap<HubTopic, (Package, BTreeSet<String>)>,
}

impl Offered {
    fn of(app: &App) -> Self {
        let mut offered = Self::default();
        if app.options.ws_enabled {
            app.hub.for_each_group(|group| {
                // A session's groups have the names of the common ones.
                if group.is_declared() && wire_name(group.name()).1.is_none() {
                    offered.add(group.name());
                }
            });
        }
        offered
    }

    fn add(&mut self, name: &Arc<str>) {
        let Ok((_, GroupName { ticker, series })) = GroupName::parse(name) else { return };
        self.tickers.insert(ticker.to_owned());
        self.groups.insert(Arc::clone(name));
        if let (Some(topic), Series::Records { package, category }) = (series.topic(), series) {
            self.topics.entry(topic).or_insert((package, BTreeSet::new())).1.insert(category.to_owned());
        }
    }

    fn hubs(&self) -> Vec<Value> {
        let hub = |(topic, (package, categories)): (&HubTopic, &(Package, BTreeSet<String>))| {
            json!({
                "name": topic.hub(false).name(),
                "v2": topic.hub(true).name(),
                "package": package.name(),
                "categories": categories,
            })
        };
        self.topics.iter().map(hub).collect()
    }
}

fn channels(app: &App) -> Vec<Value> {
    let kind = |kind| match kind {
        ChannelKind::Passthrough => "passthrough",
        ChannelKind::Prices => "prices",
        ChannelKind::Signals => "signals",
        ChannelKind::Trades => "trades",
        ChannelKind::Portfolio => "portfolio",
    };
    let all = app.streams.channels().all().iter().filter(|_| app.stream_options.enabled);
    all.map(|channel| json!({ "name": &*channel.name, "kind": kind(channel.kind) })).collect()
}
