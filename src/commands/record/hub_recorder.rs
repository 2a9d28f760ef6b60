//! Records GexBot's hubs: each group into the file of its ticker and category.
//!
//! Each hub has a connection of its own, which is kept: after a loss it negotiates again, for tokens expire.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::heard::{Heard, Keeper, ToFiles};
use super::recorded_files::RecordedRecord;
use crate::commands::hub_client::HubRequest;
use crate::commands::hub_client::hub_address::{self, HubAddress};
use crate::commands::hub_client::hub_connection::{Capture, HubConnection, JoinRefused};
use crate::source::recorded::line_stats::counted;
use crate::wire::gexbot::{GroupName, Series, is_ticker};

/// Records of one connection on their way.
const LINES: usize = 64;

/// Connects to every hub, and records until the receiver of `files` is gone. An error only if a hub cannot be joined at
/// the start.
pub async fn record(request: HubRequest, files: ToFiles) -> anyhow::Result<()> {
    let addresses = hub_address::find(&request).await?;
    addresses.iter().flat_map(|address| &address.print).try_for_each(|group| file_of(group).map(drop))?;
    // Dropped with this future, and with it every connection.
    let mut hubs = JoinSet::new();
    for address in addresses {
        let connection = HubConnection::connect(address.clone(), &request, Capture::none()).await?;
        eprintln!("recording {} of {}", counted(address.print.len() as u64, "group", "groups"), name(&address));
        hubs.spawn(keep(request.clone(), address, connection, files.clone()));
    }
    while let Some(ended) = hubs.join_next().await {
        ended??;
    }
    Ok(())
}

/// A hub, by one of its groups: its URL holds a token.
fn name(address: &HubAddress) -> String {
    format!("the hub of {}", address.print.first().map_or("no group", String::as_str))
}

/// Keeps one hub's connection. An error if its groups cannot be joined at the start.
async fn keep(
    request: HubRequest,
    mut address: HubAddress,
    first: HubConnection,
    files: ToFiles,
) -> anyhow::Result<()> {
    let mut keeper = Keeper::new(name(&address), files.clone());
    let (mut next, mut is_first) = (Some(first), true);
    loop {
        let connected = match next.take() {
            Some(connection) => Ok(connection),
            None => again(&request, &mut address).await,
        };
        let ended = match connected {
            Ok(connection) => {
                keeper.back().await;
                forward(connection, &files).await
            }
            Err(error) => error,
        };
        if std::mem::take(&mut is_first) && ended.is::<JoinRefused>() {
            return Err(ended);
        }
        if files.is_closed() || !keeper.lost(&ended).await {
            return Ok(());
        }
    }
}

/// Negotiates again, and connects to the hub of the same groups.
async fn again(request: &HubRequest, address: &mut HubAddress) -> anyhow::Result<HubConnection> {
    let found = hub_address::find(request).await?.into_iter();
    let same = |found: &HubAddress| found.print.iter().any(|group| address.print.contains(group));
    *address = found.into_iter().find(same).context("negotiate does not offer the hub any more")?;
    HubConnection::connect(address.clone(), request, Capture::none()).await
}

/// Passes on records until the connection ends; returns why.
async fn forward(connection: HubConnection, files: &ToFiles) -> anyhow::Error {
    let (lines, mut received) = mpsc::channel(LINES);
    let reading = tokio::spawn(connection.forward(lines));
    let ended = loop {
        let heard = match received.recv().await {
            Some(Ok(line)) => heard(line),
            Some(Err(error)) => break error,
            None => break anyhow::anyhow!("the connection ended"),
        };
        if files.send(heard).await.is_err() {
            break anyhow::anyhow!("the recording has ended");
        }
    };
    // It closes the connection when nobody receives any more.
    drop(received);
    let _ = reading.await;
    ended
}

/// A line of the hub client without what it adds to the record.
fn heard(mut line: Value) -> Heard {
    let Some(record) = line.as_object_mut() else { return Heard::LeftOut(format!("expected a record, got {line}")) };
    let group = record.shift_remove("group");
    record.shift_remove("sequence_id");
    let group = group.as_ref().and_then(Value::as_str).unwrap_or_default();
    match (file_of(group), line["timestamp"].as_i64()) {
        (Ok(series), Some(at)) => Heard::Record(RecordedRecord { series, at, line: line.to_string().into_bytes() }),
        (Err(error), _) => Heard::LeftOut(error.to_string()),
        (_, None) => Heard::LeftOut(format!("{group}: a record without a timestamp")),
    }
}

/// Where the records of a group belong.
fn file_of(group: &str) -> anyhow::Result<PathBuf> {
    let parsed = GroupName::parse(group).ok().map(|(_, group)| group).filter(|group| is_ticker(group.ticker));
    match parsed {
        Some(GroupName { ticker, series: Series::Records { package, category } }) => {
            Ok(PathBuf::from(ticker).join(package.name()).join(format!("{category}.jsonl")))
        }
        Some(_) => bail!("{group} has no file: spot prices are replayed from the records of the ticker"),
        None => bail!("expected a group such as blue_SPX_classic_gex_full, got {group}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_file_that_serve_replays_it_from() {
        for (group, file) in [
            ("blue_SPX_orderflow_orderflow", "SPX/orderflow/orderflow.jsonl"),
            ("red_ES_SPX_classic_gex_full", "ES_SPX/classic/gex_full.jsonl"),
            ("blue_SPX_state_gex_20251219", "SPX/state/gex_20251219.jsonl"),
        ] {
            assert_eq!(file_of(group).unwrap(), PathBuf::from(file));
        }
        assert!(file_of("blue_SPX_spot").unwrap_err().to_string().contains("spot prices are replayed from"));
        for group in ["", "blue_.._orderflow_orderflow", "blue_streams_orderflow_orderflow", "blue"] {
            assert!(file_of(group).is_err(), "{group}");
        }
    }

    #[test]
    fn a_line_is_the_record_alone() {
        let line = serde_json::json!({
            "group": "blue_SPX_orderflow_orderflow", "sequence_id": 7, "timestamp": 5, "ticker": "SPX", "spot": 6816.95
        });
        let Heard::Record(record) = heard(line) else { panic!("expected a record") };
        assert_eq!(record.at, 5);
        assert_eq!(record.line, br#"{"timestamp":5,"ticker":"SPX","spot":6816.95}"#);
    }
}
