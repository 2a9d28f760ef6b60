//! A feed that lives in the test: it gives what it is told, and tells what is wanted of it.

use std::sync::{Arc, Mutex};

use flowcast::source::broker::feed::{Feed, FeedContext, Running, Symbols};
use flowcast::source::broker::feed_health::FeedPhase;
use flowcast::source::broker::instrument::{Broker, Exchange, Instrument};
use flowcast::source::broker::quote::{MarketData, QuoteKind, ReceivedAt};
use rust_decimal::Decimal;
use tokio::sync::{mpsc, watch};

pub struct Local {
    id: Arc<str>,
    symbols: Vec<Arc<str>>,
    pub wanted: watch::Sender<Symbols>,
    given: mpsc::Sender<MarketData>,
    taken: Mutex<Option<mpsc::Receiver<MarketData>>>,
}

impl Local {
    pub fn new(id: &str, symbols: &[&str]) -> Arc<Self> {
        let (given, taken) = mpsc::channel(1);
        let symbols = symbols.iter().map(|&symbol| symbol.into()).collect();
        let taken = Mutex::new(Some(taken));
        Arc::new(Self { id: id.into(), symbols, wanted: watch::Sender::default(), given, taken })
    }

    pub fn record(&self, symbol: &str, price: i64) -> MarketData {
        let instrument = Instrument { symbol: symbol.into(), exchange: Exchange::Nse, id: 1 };
        let mut record = MarketData::new(Broker::InProcess, &self.id, &instrument, QuoteKind::Ltp, ReceivedAt::now());
        record.last_price = Some(Decimal::new(price, 0));
        record
    }

    /// Gives a record; waits while there is no room for it.
    pub async fn give(&self, symbol: &str, price: i64) {
        self.given.send(self.record(symbol, price)).await.unwrap();
    }

    /// Gives a record if there is room for it.
    pub fn try_give(&self, symbol: &str, price: i64) -> bool {
        self.given.try_send(self.record(symbol, price)).is_ok()
    }

    pub fn wanted(&self) -> Vec<String> {
        self.wanted.borrow().iter().map(ToString::to_string).collect()
    }
}

impl Feed for Local {
    fn id(&self) -> Arc<str> {
        Arc::clone(&self.id)
    }

    fn broker(&self) -> Broker {
        Broker::InProcess
    }

    fn offers(&self, symbol: &str) -> bool {
        self.symbols.iter().any(|offered| **offered == *symbol)
    }

    fn symbols(&self) -> Vec<Arc<str>> {
        self.symbols.clone()
    }

    fn run(self: Arc<Self>, mut context: FeedContext) -> Running {
        let mut taken = self.taken.lock().unwrap().take().expect("runs once");
        Box::pin(async move {
            context.health().opened(false);
            context.set_phase(FeedPhase::Open, "");
            self.wanted.send_replace((*context.wanted()).clone());
            loop {
                let stopping = context.clone();
                tokio::select! {
                    Some(record) = taken.recv() => {
                        context.message(record.received);
                        if !context.send(record).await {
                            return;
                        }
                    }
                    () = context.wanted_changed() => {
                        self.wanted.send_replace((*context.wanted()).clone());
                    }
                    () = stopping.stopped() => return,
                }
            }
        })
    }
}
