//! The feeds together, without a broker: who gets what, who is told, and what is asked of whom.

use std::sync::Arc;
use std::time::Duration;

use crate::brokers::local::Local;
use crate::brokers::{event, eventually, price, within};
use flowcast::health::status::Status;
use flowcast::source::broker::feed_events::FeedEventKind;
use flowcast::source::broker::feed_options::{BrokerOptions, Grace};
use flowcast::source::broker::feeds::Feeds;
use flowcast::source::broker::receiver::{AddError, SubscribeError, SymbolRefusal};
use flowcast::source::broker::subscriptions::ReceiverEnd;

fn feeds(options: BrokerOptions) -> Feeds {
    Feeds::new(options, Arc::default())
}

async fn wanted(feed: &Local, symbols: &[&str]) {
    within(
        &format!("{symbols:?} wanted"),
        feed.wanted.subscribe().wait_for(|wanted| wanted.iter().map(|one| &**one).eq(symbols.iter().copied())),
    )
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_subscriber_subscribes_upstream_and_the_last_ones_leaving_unsubscribes_after_the_grace() {
    let feeds = feeds(BrokerOptions::default());
    let feed = Local::new("local", &["A", "B"]);
    feeds.add(feed.clone()).unwrap();
    let mut one = feeds.subscribe("one", ["A", "B"]).unwrap().receiver;
    let mut other = feeds.subscribe("other", ["A"]).unwrap().receiver;
    wanted(&feed, &["A", "B"]).await;
    feeds.unsubscribe("one", ["A"]);
    feed.give("A", 1).await;
    price(&mut other, "1").await;
    feed.give("B", 2).await;
    assert_eq!(&*price(&mut one, "2").await.symbol, "B");
    drop(other);
    // Half of the grace: nothing happens; somebody comes back, and the rest of it means nothing.
    tokio::time::sleep(Duration::from_secs(15)).await;
    wanted(&feed, &["A", "B"]).await;
    let again = feeds.subscribe("other", ["A"]).unwrap().receiver;
    tokio::time::sleep(Duration::from_mins(1)).await;
    wanted(&feed, &["A", "B"]).await;
    drop(again);
    tokio::time::sleep(Duration::from_secs(29)).await;
    wanted(&feed, &["A", "B"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    wanted(&feed, &["B"]).await;
    feeds.unsubscribe_all("one");
    assert_eq!(one.recv().await.unwrap_err(), ReceiverEnd::Unsubscribed);
    feeds.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_symbols_leave_at_once_and_with_never_they_stay() {
    for (grace, after) in [(Grace(Some(Duration::ZERO)), &[][..]), (Grace(None), &["A"][..])] {
        let feeds = feeds(BrokerOptions { feed_unsubscribe_grace: grace, ..BrokerOptions::default() });
        let feed = Local::new("local", &["A"]);
        feeds.add(feed.clone()).unwrap();
        feeds.demand("user", ["A"]).unwrap();
        wanted(&feed, &["A"]).await;
        feeds.unsubscribe("user", ["A"]);
        tokio::time::sleep(Duration::from_hours(1)).await;
        wanted(&feed, after).await;
    }
}

#[tokio::test]
async fn what_no_feed_offers_is_refused_by_name_and_the_rest_is_subscribed() {
    let feeds = feeds(BrokerOptions { feed_max_symbols: 1, feed_max_subscribers: 1, ..BrokerOptions::default() });
    let feed = Local::new("local", &["A", "B"]);
    feeds.add(feed.clone()).unwrap();
    let subscribed = feeds.subscribe("user", ["X", "A", "B"]).unwrap();
    assert_eq!(subscribed.refused, [("X".to_owned(), SymbolRefusal::Unknown), ("B".to_owned(), SymbolRefusal::Limit)]);
    wanted(&feed, &["A"]).await;
    assert_eq!(feeds.subscribe("user", ["A"]).unwrap_err(), SubscribeError::TooManyReceivers(1));
    let mut receiver = subscribed.receiver;
    feeds.stop().await;
    assert_eq!(receiver.recv().await.unwrap_err(), ReceiverEnd::Stopped);
    assert_eq!(feeds.subscribe("user", ["A"]).unwrap_err(), SubscribeError::Stopped);
    assert_eq!(feeds.add(Local::new("late", &[])).unwrap_err(), AddError::Stopped);
}

#[tokio::test]
async fn feeds_come_and_go_by_id_and_new_ones_learn_what_is_wanted() {
    let status = Arc::new(Status::default());
    let feeds = Feeds::new(BrokerOptions::default(), Arc::clone(&status));
    let mut events = feeds.events();
    let first = Local::new("first", &["A"]);
    feeds.add(first.clone()).unwrap();
    assert_eq!(feeds.add(Local::new("first", &[])).unwrap_err(), AddError::Duplicate("first".into()));
    let mut receiver = feeds.subscribe("user", ["A"]).unwrap().receiver;
    let second = Local::new("second", &["A"]);
    feeds.add(second.clone()).unwrap();
    wanted(&second, &["A"]).await;
    assert_eq!(
        status.snapshot().iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(),
        ["feed:first", "feed:second"]
    );
    first.give("A", 1).await;
    price(&mut receiver, "1").await;
    // Its word would be dropped while the first one speaks.
    assert!(feeds.remove("first").await);
    assert_eq!(event(&mut events, |what| *what == FeedEventKind::Stopped).await.feed, "first".into());
    second.give("A", 2).await;
    price(&mut receiver, "2").await;
    assert!(!feeds.remove("first").await);
    assert_eq!(status.snapshot().len(), 1);
    assert!(status.figures().iter().all(|figure| figure.labels == [("feed", "second".into())]));
    assert!(feeds.health()[0].is_connected());
    feeds.stop().await;
    assert_eq!(status.snapshot().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_second_feed_stands_in_while_the_first_is_silent() {
    let feeds = feeds(BrokerOptions::default());
    let (first, second) = (Local::new("first", &["A"]), Local::new("second", &["A"]));
    feeds.add(first.clone()).unwrap();
    feeds.add(second.clone()).unwrap();
    let mut events = feeds.events();
    let mut receiver = feeds.subscribe("user", ["A"]).unwrap().receiver;
    wanted(&first, &["A"]).await;
    wanted(&second, &["A"]).await;
    first.give("A", 1).await;
    price(&mut receiver, "1").await;
    second.give("A", 2).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    second.give("A", 3).await;
    let record = within("a record", receiver.recv()).await.unwrap();
    assert_eq!(record.last_price.unwrap().normalize().to_string(), "3", "2 came while the first one spoke");
    assert_eq!(event(&mut events, |what| *what == FeedEventKind::FailedOver("A".into())).await.feed, "second".into());
    first.give("A", 4).await;
    price(&mut receiver, "4").await;
    assert_eq!(event(&mut events, |what| *what == FeedEventKind::FailedBack("A".into())).await.feed, "first".into());
    second.give("A", 5).await;
    first.give("A", 6).await;
    assert_eq!(within("a record", receiver.recv()).await.unwrap().last_price.unwrap().normalize().to_string(), "6");
    feeds.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_is_told_of_lag_and_dropped_and_nobody_else_is() {
    let options = BrokerOptions {
        feed_client_buffer: 4,
        feed_unsubscribe_grace: Grace(Some(Duration::ZERO)),
        ..BrokerOptions::default()
    };
    let feeds = feeds(options);
    let feed = Local::new("local", &["A", "B"]);
    feeds.add(feed.clone()).unwrap();
    let mut slow = feeds.subscribe("slow", ["A", "B"]).unwrap().receiver;
    let mut quick = feeds.subscribe("quick", ["A"]).unwrap().receiver;
    wanted(&feed, &["A", "B"]).await;
    for number in 1..=5 {
        feed.give("A", number).await;
        price(&mut quick, &number.to_string()).await;
    }
    for number in 1..=4 {
        assert_eq!(slow.recv().await.unwrap().last_price.unwrap().normalize().to_string(), number.to_string());
    }
    assert_eq!(slow.recv().await.unwrap_err(), ReceiverEnd::Lagged { buffer: 4 });
    // Its symbols are nobody's any more.
    wanted(&feed, &["A"]).await;
    feeds.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_merged_stream_holds_the_feeds_back_and_loses_nothing() {
    let feeds = feeds(BrokerOptions { feed_buffer: 8, ..BrokerOptions::default() });
    let feed = Local::new("local", &["A"]);
    feeds.add(feed.clone()).unwrap();
    let mut stream = feeds.stream();
    feeds.demand("user", ["A"]).unwrap();
    wanted(&feed, &["A"]).await;
    let mut given = 0;
    let mut held_back = 0;
    while held_back < 100 {
        if feed.try_give("A", given) {
            (given, held_back) = (given + 1, 0);
        } else {
            held_back += 1;
        }
        tokio::task::yield_now().await;
    }
    // Eight wait for the consumer, eight for the distributor, who has a batch in hand.
    assert!((8..=200).contains(&given), "{given} records were taken while nobody read");
    for number in 0..given {
        assert_eq!(
            within("a record", stream.recv()).await.unwrap().last_price.unwrap().normalize().to_string(),
            number.to_string()
        );
    }
    // A stream that nobody reads any more holds nobody back.
    drop(stream);
    for number in 0..1000 {
        within("room", feed.give("A", number)).await;
    }
    let mut again = feeds.stream();
    feed.give("A", 7777).await;
    within("the new stream", async {
        while again.recv().await.unwrap().last_price.unwrap().normalize().to_string() != "7777" {}
    })
    .await;
    feeds.stop().await;
    assert!(again.recv().await.is_none());
}

#[tokio::test]
async fn who_comes_late_gets_the_last_price_at_once() {
    let feeds = feeds(BrokerOptions::default());
    let feed = Local::new("local", &["A"]);
    feeds.add(feed.clone()).unwrap();
    let mut one = feeds.subscribe("one", ["A"]).unwrap().receiver;
    feed.give("A", 42).await;
    price(&mut one, "42").await;
    let mut late = feeds.subscribe("late", ["A"]).unwrap().receiver;
    assert_eq!(late.try_recv().unwrap().unwrap().last_price.unwrap().normalize().to_string(), "42");
    eventually("the merged stream is nobody's, and that is fine", || Some(())).await;
}

#[tokio::test]
async fn a_slow_listener_is_told_how_many_events_it_lost() {
    let feeds = feeds(BrokerOptions { feed_event_buffer: 2, ..BrokerOptions::default() });
    let mut events = feeds.events();
    for number in 0..10 {
        feeds.add(Local::new(&number.to_string(), &[])).unwrap();
        feeds.remove(&number.to_string()).await;
    }
    assert!(matches!(events.recv().await, Err(tokio::sync::broadcast::error::RecvError::Lagged(8))));
}
