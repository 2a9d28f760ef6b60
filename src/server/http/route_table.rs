//! Every route of the server, in one table. The router is built from it, and `rest/openapi.yaml` describes it.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use http::Method;

use super::app::App;
use super::faults::plan_resource;
use super::live::{choices, connections, decode, event_stream, history_json, injection, page, verdict};
use super::replay::{clock_events, loads, resource, session_routes};
use super::rest::{catalogue, downloads, faker_clock, faker_control, openapi, position_stream, records};
use super::{metrics, negotiate, publish, stream_upgrade, ticks, upgrade, websocket_status};
use crate::wire::gexbot::Package;

/// One path and what answers there.
pub struct Route {
    /// As axum and OpenAPI write it: `/ws/{hub}`.
    pub path: &'static str,
    /// The methods that are answered. `GET` includes `HEAD`.
    pub methods: &'static [Method],
    pub access: Access,
    pub served: When,
    pub handlers: fn() -> MethodRouter<Arc<App>>,
}

/// Who may read the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Pages of every origin (CORS).
    EveryOrigin,
    /// Pages of the own origin, and whatever is no browser.
    OwnOrigin,
    /// Pages of every origin may read, those of `--control-origin` may write too.
    Steered,
    /// Pages of the own origin, and those of `--control-origin`.
    ListedOrigins,
}

/// When a route exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    /// Only with `--ws-enabled`: GexBot's hubs.
    Hubs,
    /// Only with `--websocket-enabled`: the JSON streams.
    Streams,
    /// Not with `--live-page off`.
    LivePage,
}

impl When {
    /// Whether such a route exists on this server.
    pub fn holds(self, app: &App) -> bool {
        match self {
            Self::Always => true,
            Self::Hubs => app.options.ws_enabled,
            Self::Streams => app.stream_options.enabled,
            Self::LivePage => app.live.is_on(),
        }
    }
}

/// A path that every origin may read.
const fn open(path: &'static str, handlers: fn() -> MethodRouter<Arc<App>>) -> Route {
    Route { path, methods: &[Method::GET], access: Access::EveryOrigin, served: When::Always, handlers }
}

/// A path that browsers read from pages of the own origin only.
const fn own(path: &'static str, served: When, handlers: fn() -> MethodRouter<Arc<App>>) -> Route {
    Route { path, methods: &[Method::GET], access: Access::OwnOrigin, served, handlers }
}

/// A path that steers what is replayed.
const fn steered(path: &'static str, methods: &'static [Method], handlers: fn() -> MethodRouter<Arc<App>>) -> Route {
    Route { path, methods, access: Access::Steered, served: When::Always, handlers }
}

/// A path of the live page.
const fn live(path: &'static str, handlers: fn() -> MethodRouter<Arc<App>>) -> Route {
    Route { path, methods: &[Method::GET], access: Access::ListedOrigins, served: When::LivePage, handlers }
}

impl Route {
    /// The methods, for an error: `GET, POST or PATCH`.
    pub fn expected(&self) -> String {
        let names: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        match names.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => names.concat(),
        }
    }

    const fn methods(self, methods: &'static [Method]) -> Self {
        Self { methods, ..self }
    }

    const fn when(self, served: When) -> Self {
        Self { served, ..self }
    }
}

const NEGOTIATE: &[Method] = &[Method::GET, Method::POST, Method::PATCH];
const CLOCK: &[Method] = &[Method::GET, Method::PATCH, Method::POST];
const SESSION: &[Method] = &[Method::GET, Method::PATCH, Method::POST, Method::DELETE];
const POST: &[Method] = &[Method::POST];
const PLAN: &[Method] = &[Method::GET, Method::PUT, Method::DELETE];

/// All routes. One that is not in it does not exist; `openapi.yaml` describes the same.
pub const ROUTES: &[Route] = &[
    // Hubs.
    open("/negotiate", || get(negotiate::get_v1).post(negotiate::post_v1).patch(negotiate::patch))
        .methods(NEGOTIATE)
        .when(When::Hubs),
    open("/v2/negotiate", || get(negotiate::get_v2).post(negotiate::post_v2).patch(negotiate::patch))
        .methods(NEGOTIATE)
        .when(When::Hubs),
    own("/ws/{hub}", When::Hubs, || get(upgrade::ws)),
    own("/client/hubs/{hub}", When::Hubs, || get(upgrade::client)),
    own("/client", When::Hubs, || get(upgrade::client_query)),
    // JSON streams.
    own("/ws", When::Streams, || get(stream_upgrade::ws)),
    own("/api/publish", When::Always, || post(publish::publish)).methods(POST),
    // Operators and monitors.
    open("/healthz", || get(websocket_status::healthz)),
    open("/ticks", || get(ticks::ticks)),
    open("/websocket/status", || get(websocket_status::websocket_status)),
    own("/metrics", When::Always, || get(metrics::metrics)),
    open("/openapi.yaml", || get(openapi::openapi)),
    // The live page.
    own("/", When::LivePage, || get(page::root)),
    own("/live", When::LivePage, || get(page::page)),
    live("/live/events", || get(event_stream::events)),
    live("/live/history", || get(history_json::history)),
    live("/live/runbook", || get(page::runbook)),
    live("/live/options", || get(choices::options)),
    live("/live/decode", || post(decode::decode)).methods(POST),
    live("/live/connections/{id}", || get(connections::show)),
    live("/live/connections/{id}/close", || post(connections::close)).methods(POST),
    live("/live/publish", || post(injection::inject)).methods(POST),
    live("/live/verdict", || post(verdict::verdict)).methods(POST),
    // The replay, and who steers it.
    steered("/replay", CLOCK, || get(resource::get).patch(resource::patch).post(resource::patch)),
    steered("/replay/load", POST, || post(loads::load)),
    open("/replay/load/{job}", || get(loads::job)),
    open("/replay/dates", || get(loads::dates)),
    open("/replay/events", || get(clock_events::events)),
    open("/replay/sessions", || get(session_routes::list)),
    steered("/replay/sessions/{name}", SESSION, || {
        get(session_routes::get).patch(session_routes::patch).post(session_routes::patch).delete(session_routes::end)
    }),
    open("/replay/sessions/{name}/events", || get(clock_events::session_events)),
    // The replay under the names of other imitations.
    steered("/seek-to-timestamp", POST, || post(faker_clock::seek)),
    steered("/load", POST, || post(faker_clock::load)),
    open("/load/status/{job_id}", || get(faker_clock::load_status)),
    open("/current-load", || get(faker_clock::current_load)),
    open("/coverage", || get(faker_clock::coverage)),
    steered("/reload-date", POST, || post(faker_clock::reload_date)),
    // REST: records.
    open("/{ticker}/classic/{category}", || records::record(Package::Classic)),
    open("/{ticker}/classic/{category}/majors", || records::majors(Package::Classic)),
    open("/{ticker}/classic/{category}/maxchange", || records::max_change(Package::Classic)),
    open("/{ticker}/state/{category}", || records::record(Package::State)),
    open("/{ticker}/state/{category}/majors", || records::majors(Package::State)),
    open("/{ticker}/state/{category}/maxchange", || records::max_change(Package::State)),
    open("/{ticker}/orderflow/{category}", || records::record(Package::Orderflow)),
    open("/v2/{ticker}/classic/{category}", || records::record(Package::Classic)),
    open("/v2/{ticker}/classic/{category}/majors", || records::majors(Package::Classic)),
    open("/v2/{ticker}/classic/{category}/maxchange", || records::max_change(Package::Classic)),
    open("/v2/{ticker}/state/{category}", || records::record(Package::State)),
    open("/v2/{ticker}/state/{category}/majors", || records::majors(Package::State)),
    open("/v2/{ticker}/state/{category}/maxchange", || records::max_change(Package::State)),
    open("/v2/{ticker}/orderflow/{category}", || records::record(Package::Orderflow)),
    // Faults on demand.
    steered("/faults", PLAN, || get(plan_resource::get).put(plan_resource::put).delete(plan_resource::delete)),
    // REST: what there is.
    open("/tickers", || get(catalogue::tickers)),
    open("/v2/tickers", || get(catalogue::tickers)),
    open("/tickers/quant", || get(catalogue::quant_tickers)),
    open("/v2/tickers/quant", || get(catalogue::quant_tickers)),
    open("/{package}/categories", || get(catalogue::categories)),
    open("/v2/{package}/categories", || get(catalogue::categories)),
    open("/options/{ticker}/expiries", || get(catalogue::expiries)),
    open("/v2/options/{ticker}/expiries", || get(catalogue::expiries)),
    // REST: what is served, and files.
    open("/health", || get(faker_control::health)),
    open("/available-dates", || get(faker_control::available_dates)),
    open("/current-date", || get(faker_control::current_date)),
    open("/available-data/{date}", || get(faker_control::available_data)),
    steered("/reset-cache", POST, || post(faker_control::reset_cache)),
    open("/download/{date}/{ticker}/links", || get(downloads::links)),
    open("/download/{date}/{ticker}/classic/{category}", || downloads::file(Package::Classic)),
    open("/download/{date}/{ticker}/state/{category}", || downloads::file(Package::State)),
    open("/download/{date}/{ticker}/orderflow/{category}", || downloads::file(Package::Orderflow)),
    open("/download/{date}/{ticker}/orderflow", downloads::orderflow),
    open("/sync/stream", || get(position_stream::positions)),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_norway::Value;

    use super::*;

    /// Methods and paths, such as `GET /healthz`.
    fn described() -> BTreeSet<String> {
        let document: Value = serde_norway::from_str(openapi::OPENAPI).expect("YAML");
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_mapping().unwrap() {
            let shared = item.get("$ref").map(|target| {
                let name = target.as_str().unwrap().strip_prefix("#/components/pathItems/").unwrap();
                &document["components"]["pathItems"][name]
            });
            for (method, _) in shared.unwrap_or(item).as_mapping().unwrap() {
                let method = method.as_str().unwrap();
                if method != "parameters" {
                    described.insert(format!("{} {}", method.to_uppercase(), path.as_str().unwrap()));
                }
            }
        }
        described
    }

    #[test]
    fn the_openapi_document_describes_every_route_and_no_other() {
        let each = |route: &Route| {
            let (methods, path) = (route.methods, route.path);
            methods.iter().map(move |method| format!("{method} {path}")).collect::<Vec<_>>()
        };
        let served: BTreeSet<String> = ROUTES.iter().flat_map(each).collect();
        assert_eq!(described(), served);
    }

    #[test]
    fn an_error_lists_the_methods_in_words() {
        let route = |methods| open("/", || get(metrics::metrics)).methods(methods).expected();
        assert_eq!(route(&[Method::GET]), "GET");
        assert_eq!(route(&[Method::GET, Method::POST, Method::PATCH]), "GET, POST or PATCH");
    }

    #[test]
    fn every_reference_in_the_openapi_document_leads_somewhere() {
        let document: Value = serde_norway::from_str(openapi::OPENAPI).expect("YAML");
        let mut count = 0;
        for line in openapi::OPENAPI.lines() {
            let Some((_, target)) = line.split_once("$ref: '#/") else { continue };
            let target = target.split('\'').next().unwrap();
            let found = target.split('/').fold(&document, |at, name| &at[name]);
            assert!(!found.is_null(), "{target}");
            count += 1;
        }
        assert!(count > 20, "{count} references");
    }
}
