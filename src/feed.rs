//! Live data: set going when serving begins, and ended in order.

use std::time::Duration;

use crate::config::ServeOptions;
use crate::server::app::App;

/// What feeds the hubs live, if anything is configured.
#[derive(Default)]
pub struct Feed {
    #[cfg(feature = "kafka")]
    kafka: Option<crate::source::kafka::KafkaSource>,
}

impl Feed {
    /// Begins to read what is configured. No broker need be there.
    #[cfg(feature = "kafka")]
    pub fn begin(options: &ServeOptions, app: &App) -> anyhow::Result<Self> {
        use std::sync::Arc;

        use anyhow::Context;

        use crate::source::kafka::KafkaSource;
        use crate::source::live::LiveOrderflow;

        let kafka = &options.kafka;
        if !kafka.is_configured() {
            return Ok(Self::default());
        }
        let live = || {
            let (hub, prefix) = (Arc::clone(&app.hub), Arc::clone(&app.prefix));
            LiveOrderflow::new(hub, prefix, &options.arena, kafka.kafka_max_tickers, &app.status)
        };
        let wanted = kafka.feeds_orderflow() && options.http.ws_enabled;
        let live = wanted.then(live).transpose().context("cannot start a thread for live orderflow")?;
        let source = KafkaSource::start(kafka, Arc::clone(&app.streams), live, &app.status)?;
        Ok(Self { kafka: Some(source) })
    }

    /// Nothing: the settings that would ask for more are refused before.
    #[cfg(not(feature = "kafka"))]
    pub fn begin(_: &ServeOptions, _: &App) -> anyhow::Result<Self> {
        Ok(Self::default())
    }

    /// Stops reading, and keeps how far it came. Takes at most `patience`.
    #[cfg(feature = "kafka")]
    pub async fn end(self, patience: Duration) {
        if let Some(kafka) = self.kafka
            && !tokio::task::spawn_blocking(move || kafka.stop(patience)).await.unwrap_or(false)
        {
            tracing::warn!("Kafka did not take the last offsets in time; what came last comes again");
        }
    }

    /// Nothing to end.
    #[cfg(not(feature = "kafka"))]
    pub fn end(self, _: Duration) -> std::future::Ready<()> {
        std::future::ready(())
    }
}
