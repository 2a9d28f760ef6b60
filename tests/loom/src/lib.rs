//! Every interleaving, and every order that the memory model allows, of the primitives that are
//! flowcast's own: the files of the server itself, with loom's atomics. `make test-loom`.
//!
//! Interleavings with more than three preemptions are left out, since their number explodes; no bug of such
//! small primitives is known to need more.

#[path = "../../../src/server/shard/bell.rs"]
pub mod bell;
#[path = "../../../src/engine/live_groups.rs"]
pub mod live_groups;
#[path = "../../../src/engine/room.rs"]
pub mod room;
#[path = "../../../src/engine/watermark.rs"]
pub mod watermark;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use loom::sync::atomic::{AtomicU64, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::bell::{Bell, Notifier};
    use super::live_groups::LiveCount;
    use super::room::RoomWait;
    use super::watermark::Watermark;

    /// An eventfd and an `epoll` that waits for it.
    #[derive(Default)]
    struct Event {
        raised: Mutex<bool>,
        changed: Condvar,
    }

    impl Notifier for Event {
        fn raise(&self) {
            *self.raised.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn lower(&self) {
            *self.raised.lock().unwrap() = false;
        }
    }

    impl Event {
        fn sleep(&self) {
            let mut raised = self.raised.lock().unwrap();
            while !*raised {
                raised = self.changed.wait(raised).unwrap();
            }
        }
    }

    fn every_interleaving(of: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(of);
    }

    #[test]
    fn whoever_sees_the_watermark_sees_what_was_sent_before() {
        every_interleaving(|| {
            let hub = Arc::new((Watermark::new(0), AtomicU64::new(0)));
            let publisher = Arc::clone(&hub);
            let publishing = thread::spawn(move || {
                for id in 1..=2 {
                    // As `Group::last_id`.
                    publisher.1.store(id, Ordering::Relaxed);
                    publisher.0.raise(id);
                }
            });
            let mut before = 0;
            for _ in 0..2 {
                let published = hub.0.id();
                assert!(hub.1.load(Ordering::Relaxed) >= published, "a watermark before its publication");
                assert!(published >= before, "a watermark that fell");
                before = published;
            }
            publishing.join().unwrap();
        });
    }

    /// A lost ring would leave the sleeper asleep for ever, which loom reports as a deadlock.
    #[test]
    fn a_sleeper_learns_of_everything_it_was_rung_for() {
        every_interleaving(|| {
            let shard = Arc::new((Bell::new(Event::default()), Watermark::new(0)));
            let hub = Arc::clone(&shard);
            // Three times: the first wakes, the second may come while it is answered, the third after.
            let publishing = thread::spawn(move || {
                for id in 1..=3 {
                    hub.1.raise(id);
                    hub.0.ring();
                }
            });
            while shard.1.id() < 3 {
                shard.0.notifier().sleep();
                shard.0.answer();
            }
            publishing.join().unwrap();
        });
    }

    #[test]
    fn a_sleeper_learns_of_what_different_threads_rang_it_for() {
        every_interleaving(|| {
            let shard = Arc::new((Bell::new(Event::default()), [AtomicU64::new(0), AtomicU64::new(0)]));
            let ringing = [0, 1].map(|letter| {
                let shard = Arc::clone(&shard);
                thread::spawn(move || {
                    shard.1[letter].store(1, Ordering::Relaxed);
                    shard.0.ring();
                })
            });
            while shard.1.iter().any(|letter| letter.load(Ordering::Relaxed) == 0) {
                shard.0.notifier().sleep();
                shard.0.answer();
            }
            for thread in ringing {
                thread.join().unwrap();
            }
        });
    }

    /// A publisher that is not woken would sleep for ever: loom's waits have no timeout.
    #[test]
    fn a_publisher_that_waits_for_room_is_woken_by_the_shard_that_makes_it() {
        every_interleaving(|| {
            // A shard's bell, the wait, what is in the channel, and whether the publisher is done.
            let shared = Arc::new((Bell::new(Event::default()), RoomWait::new(), AtomicU64::new(1), AtomicU64::new(0)));
            let publisher = Arc::clone(&shared);
            let publishing = thread::spawn(move || {
                let (bell, room, queued, done) = &*publisher;
                room.wait(Duration::from_secs(3600), || bell.ring(), || queued.load(Ordering::Relaxed) == 0);
                assert_eq!(queued.load(Ordering::Relaxed), 0);
                done.store(1, Ordering::Relaxed);
                bell.ring();
            });
            let (bell, room, queued, done) = &*shared;
            // A drain for another reason, which may come before the publisher waits.
            queued.store(0, Ordering::Relaxed);
            room.notify();
            while done.load(Ordering::Relaxed) == 0 {
                bell.notifier().sleep();
                bell.answer();
                room.notify();
            }
            publishing.join().unwrap();
        });
    }

    #[test]
    fn exactly_one_of_those_that_leave_is_the_last() {
        every_interleaving(|| {
            let count = Arc::new(LiveCount::new());
            count.enter();
            let shards = [(); 2].map(|()| {
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    count.enter();
                    assert!(count.is_live());
                    count.leave()
                })
            });
            let mine = count.leave();
            let last = shards.map(|shard| shard.join().unwrap());
            assert!(!count.is_live());
            // A count may come to nothing more than once, but the end is a last one's.
            assert!(mine || last.contains(&true));
        });
    }
}
