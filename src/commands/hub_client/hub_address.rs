//! Where to connect to: the hubs of the wanted groups, from negotiate or as typed.
//!
//! Records are negotiated for with GET, and the client joins its groups. Spot groups exist only on the v2 hubs, which
//! GET does not name: with one of them it negotiates with POST, and the server joins
//! (`docs/protocols/gexbot.md`, "Negotiate").

use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::HubRequest;
use super::wanted::{GroupChoice, WantedGroup};
use crate::source::broker::net::http_client::{Call, HttpClient};
use crate::source::broker::net::tls::client_config;
use crate::wire::gexbot::{HubName, HubTopic, Package};
use crate::wire::payload::Profile;

/// A hub's URL, and what is expected there.
#[derive(Debug, Clone)]
pub struct HubAddress {
    /// ws:// or wss://, with the access token in its query: a secret.
    pub url: String,
    /// Groups that the client joins itself.
    pub join: Vec<String>,
    /// Groups whose records are taken. A group that is on several hubs is taken from one of them.
    pub print: Vec<String>,
}

/// The prefix where negotiate does not say it.
const USUAL_PREFIX: &str = "blue";

/// Finds the hubs. Says on stderr which groups will stay silent.
pub async fn find(request: &HubRequest) -> anyhow::Result<Vec<HubAddress>> {
    let mut wanted = GroupChoice::read(&request.words)?;
    let url = &request.url;
    let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
    let (scheme, rest) = url.split_once("://").context("expected a URL")?;
    match scheme.to_ascii_lowercase().as_str() {
        // Paths are appended to it.
        scheme @ ("http" | "https") => {
            if rest.contains(['?', '#']) {
                bail!("expected an http(s):// URL without a query: negotiate adds its path to it");
            }
            let base = format!("{scheme}://{}", rest.trim_end_matches('/'));
            if let Some(server) = base.strip_suffix("/negotiate").map(|base| base.trim_end_matches("/v2")) {
                bail!(
                    "expected the URL of a server, to which flowcast adds the path of negotiate: {server}; got {base}"
                );
            }
            negotiated(&base, &mut wanted, request).await
        }
        scheme @ ("ws" | "wss") => given(&format!("{scheme}://{}", with_path(rest)), &wanted),
        _ => bail!("expected an http(s):// or ws(s):// URL, got {url}"),
    }
}

/// What follows the scheme of a socket's URL, with a path before the query.
fn with_path(rest: &str) -> String {
    match rest.split_once('?') {
        Some((authority, query)) if !authority.contains('/') => format!("{authority}/?{query}"),
        _ => rest.to_owned(),
    }
}

/// A hub's own URL: every group is joined there.
fn given(url: &str, wanted: &GroupChoice) -> anyhow::Result<Vec<HubAddress>> {
    if wanted.needs_tickers() {
        bail!("expected tickers or whole group names: at a ws:// URL nobody can be asked which tickers there are");
    }
    let names: Vec<String> = wanted.groups(USUAL_PREFIX, &[]).into_iter().map(|group| group.name).collect();
    Ok(vec![HubAddress { url: url.to_owned(), join: names.clone(), print: names }])
}

async fn negotiated(base: &str, wanted: &mut GroupChoice, request: &HubRequest) -> anyhow::Result<Vec<HubAddress>> {
    let negotiate = match request.profile {
        Profile::V2025_11 => format!("{base}/negotiate"),
        Profile::V2026_04 => format!("{base}/v2/negotiate"),
    };
    let authorization = bearer(&request.key);
    let answer = call(Method::GET, &negotiate, &authorization, None).await.context("cannot negotiate")?;
    let prefix = answer["prefix"].as_str().unwrap_or("red");
    let tickers = tickers(base, &authorization).await;
    if let Ok(known) = &tickers {
        for (typed, meant) in wanted.correct_case(known) {
            eprintln!("reading {typed} as {meant}");
        }
        let some: Vec<&str> = known.iter().take(20).map(String::as_str).collect();
        for ticker in wanted.unknown(known) {
            eprintln!("the server has no data for {ticker}; it has {}", some.join(", "));
        }
    }
    let tickers = if wanted.needs_tickers() { tickers.context("cannot list the tickers")? } else { Vec::new() };
    let mut groups = wanted.groups(prefix, &tickers);
    anyhow::ensure!(!groups.is_empty(), "the server has no tickers");
    if request.offered_only {
        let is_offered =
            |topic: HubTopic| answer["websocket_urls"][HubName { topic, v2: false }.name()].as_str().is_some();
        groups.retain(|group| group.topic.is_none_or(is_offered));
        anyhow::ensure!(!groups.is_empty(), "negotiate offers no hub of these groups");
    }
    if groups.iter().any(|group| group.topic.is_none()) {
        return joined_by_server(&negotiate, &bearer(&request.slot_key), groups, prefix).await;
    }
    by_topic(&groups, false, &answer, |group| group.topic)?
        .into_iter()
        .map(|(url, names)| Ok(HubAddress { url, join: names.clone(), print: names }))
        .collect()
}

/// POSTs the groups. A ticker with nothing but its spot group gets its orderflow beside it, which is not printed:
/// spot groups have no hub of their own.
async fn joined_by_server(
    url: &str,
    authorization: &SecretString,
    mut groups: Vec<WantedGroup>,
    prefix: &str,
) -> anyhow::Result<Vec<HubAddress>> {
    let printed: Vec<WantedGroup> = groups.clone();
    let beside = |ticker: &str, end: &str| format!("{prefix}_{ticker}_{end}");
    for group in &printed {
        let ticker = &group.ticker;
        if !groups.iter().any(|other| other.topic.is_some() && other.ticker == *ticker) {
            let name = beside(ticker, &format!("{0}_{0}", Package::Orderflow.name()));
            groups.push(WantedGroup { name, topic: Some(HubTopic::Orderflow), ticker: ticker.clone() });
        }
        if !groups.iter().any(|other| other.topic.is_none() && other.ticker == *ticker) {
            groups.push(WantedGroup { name: beside(ticker, "spot"), topic: None, ticker: ticker.clone() });
        }
    }
    let body = json!({ "groups": groups.iter().map(|group| unprefixed(&group.name)).collect::<Vec<_>>() });
    let answer = call(Method::POST, url, authorization, Some(&body)).await.context("cannot negotiate")?;
    let first_of_ticker =
        |ticker: &str| groups.iter().filter(|group| group.ticker == ticker).find_map(|group| group.topic);
    let hubs = by_topic(&groups, true, &answer, |group| group.topic.or_else(|| first_of_ticker(&group.ticker)))?;
    let is_printed = |name: &String| printed.iter().any(|group| group.name == *name);
    let address = |(url, names): (String, Vec<String>)| HubAddress {
        url,
        join: Vec::new(),
        print: names.into_iter().filter(is_printed).collect(),
    };
    Ok(hubs.into_iter().map(address).collect())
}

/// The URL of each topic's hub, and the names of its groups.
fn by_topic(
    groups: &[WantedGroup],
    v2: bool,
    answer: &Value,
    topic_of: impl Fn(&WantedGroup) -> Option<HubTopic>,
) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let mut hubs = Vec::new();
    for topic in HubTopic::ALL {
        let names: Vec<String> =
            groups.iter().filter(|group| topic_of(group) == Some(topic)).map(|group| group.name.clone()).collect();
        let Some(first) = names.first() else { continue };
        let hub = HubName { topic, v2 }.name();
        let urls = &answer["websocket_urls"];
        let Some(url) = urls[hub].as_str() else {
            let known: Vec<&str> = urls.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            bail!("negotiate gave no URL of the hub {hub}, which {first} is on; it gave URLs of {}", known.join(", "));
        };
        hubs.push((url.to_owned(), names));
    }
    Ok(hubs)
}

/// A name without its prefix, as negotiate's bodies have it.
pub(super) fn unprefixed(name: &str) -> &str {
    name.split_once('_').map_or(name, |(_, rest)| rest)
}

async fn tickers(base: &str, authorization: &SecretString) -> anyhow::Result<Vec<String>> {
    let answer = call(Method::GET, &format!("{base}/tickers"), authorization, None).await?;
    let lists = ["stocks", "indexes", "futures"].into_iter().filter_map(|kind| answer[kind].as_array());
    Ok(lists.flatten().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn bearer(key: &str) -> SecretString {
    SecretString::from(format!("Bearer {key}"))
}

async fn call(method: Method, url: &str, authorization: &SecretString, body: Option<&Value>) -> anyhow::Result<Value> {
    const LIMIT: usize = 10 << 20;
    const SHOWN: usize = 300;
    let http = HttpClient { tls: client_config(None)?, timeout: Duration::from_secs(30), max_answer_bytes: LIMIT };
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let answer = http.call(Call { method: method.clone(), url, token: Some(authorization), body }).await?;
    let said = String::from_utf8_lossy(&answer.body[..answer.body.len().min(SHOWN)]);
    let hint = match answer.status {
        404 => "; expected the URL of a server without a path, such as http://127.0.0.1:8080",
        _ => "",
    };
    anyhow::ensure!(answer.status == 200, "{method} {url}: expected HTTP 200, got {}: {said}{hint}", answer.status);
    Ok(serde_json::from_slice(&answer.body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sockets_url_gets_the_path_that_it_lacks() {
        assert_eq!(with_path("h:1?access_token=a/b"), "h:1/?access_token=a/b");
        assert_eq!(with_path("h/client/hubs/x?access_token=a"), "h/client/hubs/x?access_token=a");
        assert_eq!(with_path("h"), "h");
    }
}
