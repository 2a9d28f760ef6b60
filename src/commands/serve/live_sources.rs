//! Live data: the sources start when serving begins, and stop at a shutdown.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::config::ServeOptions;
use crate::server::http::app::App;
use crate::source::broker::feeds::Feeds;
use crate::source::broker::{self, prices};

/// What feeds the hubs live, if anything is configured.
#[derive(Default)]
pub struct LiveSources {
    brokers: Option<(Feeds, JoinHandle<()>)>,
    #[cfg(feature = "kafka")]
    kafka: Option<crate::source::kafka::KafkaSource>,
}

impl LiveSources {
    /// Begins to read what is configured. Brokers that cannot be reached now are tried again later.
    pub fn begin(options: &ServeOptions, app: &App) -> anyhow::Result<Self> {
        Ok(Self {
            brokers: brokers(options, app)?,
            #[cfg(feature = "kafka")]
            kafka: kafka(options, app)?,
        })
    }

    /// Stops reading and stores how far Kafka was read. Takes at most twice `patience`.
    pub async fn end(self, patience: Duration) {
        #[cfg(feature = "kafka")]
        if let Some(kafka) = self.kafka
            && !tokio::task::spawn_blocking(move || kafka.stop(patience)).await.unwrap_or(false)
        {
            tracing::warn!(
                "Kafka did not store the last offsets in time; the last messages will be read again after a restart"
            );
        }
        if let Some((feeds, prices)) = self.brokers {
            prices.abort();
            let _ = tokio::time::timeout(patience, feeds.stop()).await;
        }
    }
}

/// Connects to the brokers; their prices go to the JSON streams.
fn brokers(options: &ServeOptions, app: &App) -> anyhow::Result<Option<(Feeds, JoinHandle<()>)>> {
    if options.broker.feeds.is_empty() {
        return Ok(None);
    }
    let feeds = broker::start(options.broker.clone(), &app.status).context("cannot start the broker feeds")?;
    let prices = prices::publish(&feeds, Arc::clone(&app.streams), options.broker.feed_demand);
    Ok(Some((feeds, prices)))
}

/// Reads from Kafka.
#[cfg(feature = "kafka")]
fn kafka(options: &ServeOptions, app: &App) -> anyhow::Result<Option<crate::source::kafka::KafkaSource>> {
    use crate::source::kafka::KafkaSource;
    use crate::source::live::LiveOrderflow;

    let kafka = &options.kafka;
    if !kafka.is_configured() {
        return Ok(None);
    }
    let live = || {
        let (hub, prefix) = (Arc::clone(&app.hub), Arc::clone(&app.prefix));
        LiveOrderflow::new(hub, prefix, options.window.encoder, kafka.kafka_max_tickers, &app.status)
    };
    let wanted = kafka.feeds_orderflow() && options.http.ws_enabled;
    let live = wanted.then(live).transpose().context("no memory for live orderflow")?;
    Ok(Some(KafkaSource::start(kafka, Arc::clone(&app.streams), live, &app.status)?))
}
