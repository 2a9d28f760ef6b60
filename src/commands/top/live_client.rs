//! A reader of a server's `/live/events`: puts each snapshot together from what came.

use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde_json::Value;

use crate::server::http::live::merge_patch::apply;
use crate::source::broker::net::http_client::{AnswerStream, Call, HttpClient};
use crate::source::broker::net::tls::client_config;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events come once a second. After so long without one the connection counts as lost.
const SILENCE: Duration = Duration::from_secs(10);

/// Bytes of the largest event, and of an error.
const MAX_EVENT: usize = 16 << 20;

/// Where a server's snapshots are.
pub struct LiveClient {
    http: HttpClient,
    base: String,
}

/// The snapshots of one connection.
pub struct LiveSnapshots {
    answer: AnswerStream,
    /// What came and is no whole event yet.
    bytes: Vec<u8>,
    snapshot: Value,
}

impl LiveClient {
    /// Connects to nothing yet.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let http = HttpClient { tls: client_config(None)?, timeout: PATIENCE, max_answer_bytes: MAX_EVENT };
        Ok(Self { http, base: url.trim_end_matches('/').to_owned() })
    }

    /// Where it is, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Begins to follow the server.
    pub async fn follow(&self) -> anyhow::Result<LiveSnapshots> {
        let url = format!("{}/live/events", self.base);
        let call = Call { method: Method::GET, url: &url, token: None, body: Vec::new() };
        let mut answer = self.http.follow(call).await?;
        if answer.status == 200 {
            return Ok(LiveSnapshots { answer, bytes: Vec::new(), snapshot: Value::Null });
        }
        let mut body = Vec::new();
        while body.len() < 4096
            && let Some(more) = answer.next().await
        {
            body.extend_from_slice(&more);
        }
        let said: Option<Value> = serde_json::from_slice(&body).ok();
        match (answer.status, said.as_ref().and_then(|said| said["error"].as_str())) {
            (404, _) => bail!("{} has no live page: is it a flowcast server, without --live-page off?", self.base),
            (_, Some(reason)) => bail!("{reason}"),
            (status, None) => bail!("expected a flowcast server at {}, got HTTP {status}", self.base),
        }
    }
}

impl LiveSnapshots {
    /// The next snapshot.
    pub async fn next(&mut self) -> anyhow::Result<&Value> {
        loop {
            while let Some(event) = self.take_event() {
                if let Some((name, data)) = parse(&event) {
                    let data: Value = serde_json::from_str(&data).context("expected events of JSON")?;
                    match name.as_str() {
                        "patch" => apply(&mut self.snapshot, data),
                        _ => self.snapshot = data,
                    }
                    return Ok(&self.snapshot);
                }
            }
            if self.bytes.len() > MAX_EVENT {
                bail!("expected events of at most {MAX_EVENT} bytes");
            }
            let more = tokio::time::timeout(SILENCE, self.answer.next()).await.context("the server has gone silent")?;
            self.bytes.extend_from_slice(&more.context("the server has closed the connection")?);
        }
    }

    /// Cuts off what stands before the next empty line.
    fn take_event(&mut self) -> Option<String> {
        let end = memchr::memmem::find(&self.bytes, b"\n\n")?;
        let event = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.bytes.drain(..end + 2);
        Some(event)
    }
}

/// Name and data of an event; `None` for what only keeps the connection alive.
fn parse(event: &str) -> Option<(String, String)> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Some((field("event")?.trim().to_owned(), field("data")?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_name_and_data_and_comments_have_neither() {
        let parsed = parse("event: patch\nid: 7\ndata: {\"a\":1}");
        assert_eq!(parsed, Some(("patch".to_owned(), "{\"a\":1}".to_owned())));
        assert_eq!((parse(":"), parse("")), (None, None));
    }
}
