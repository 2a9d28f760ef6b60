use super::*;
use crate::streams::history::{Arriving, HistoryFigures, HistoryOptions};
use std::collections::BTreeMap;
use std::time::Duration;

const ROOM: usize = 1000;
const LATEST: SlowPolicy = SlowPolicy::Latest { interval_ms: 0 };

/// A history that holds 256 messages.
fn history() -> ChannelHistory {
    let options = HistoryOptions { history_messages: 0, history_bytes: 1 << 30, history_age: Duration::from_hours(1) };
    ChannelHistory::new("e".into(), options, HistoryFigures::default())
}

/// Publishes messages of 100 bytes; ids are the index plus 1.
fn publish(history: &mut ChannelHistory, subjects: &[&str]) {
    for subject in subjects {
        let place = history.place(None);
        append(history, Some(subject), place);
    }
}

fn append(history: &mut ChannelHistory, subject: Option<&str>, place: Option<(u32, u64)>) {
    let (subject, frame) = (subject.map(|subject| subject.as_bytes().into()), vec![0; 100].into());
    history.append(history.head() + 1, Arriving { place, subject, frame, is_reread: false, age_ms: 0 }, 0);
}

/// A pull of what comes now.
fn begin(policy: SlowPolicy, history: &ChannelHistory) -> Pull {
    Pull::new(1, policy, history.head(), history.last_id(), Arc::clone(history.epoch()))
}

/// The numbers that one turn sends, and how many messages it says are left out. Everything is taken. `carried`: what
/// the rings of its symbols have had.
fn turn(
    pull: &mut Pull,
    history: &ChannelHistory,
    filter: &Filter,
    carried: u64,
    now_ms: u64,
) -> Result<(Vec<u64>, u64), FellOff> {
    let lag = LagOptions {
        client_buffer: 20,
        client_buffer_bytes: 1 << 20,
        recovery_frames: 20,
        ring_bytes: 1 << 20,
        session_timeout_seconds: 0,
        max_detached_sessions: 0,
    };
    let mut out = PulledFrames::default();
    let (drained, carried) = (history.last_id(), (*filter != Filter::All).then_some(carried));
    let view = PullView { at: 0, channel: "signals", filter, lag: &lag, drained, carried, room: ROOM, now_ms };
    pull.read(history, &view, &mut out)?;
    out.frames.iter().for_each(|frame| pull.took(frame, now_ms));
    out.complete.iter().for_each(|complete| pull.completed(complete));
    let skipped: u64 = out.frames.iter().filter(|frame| frame.is_notice).map(|frame| frame.messages).sum();
    let seqs = out.frames.iter().skip(if skipped > 0 { 2 } else { 0 }).filter_map(|frame| Some(frame.place?.1));
    Ok((seqs.collect(), skipped))
}

#[test]
fn what_was_promised_is_sent_whole_and_then_the_newest_only() {
    let (mut history, filter) = (history(), Filter::All);
    publish(&mut history, &["A"; 12]);
    let mut pull = begin(LATEST, &history);
    (pull.next, pull.is_catching_up, pull.whole_to) = (2, true, 12);
    publish(&mut history, &["A"; 5]);
    assert_eq!(turn(&mut pull, &history, &filter, 0, 0), Ok(((3..=12).collect(), 0)));
    publish(&mut history, &["A"; 5]);
    assert_eq!(turn(&mut pull, &history, &filter, 0, 0), Ok((vec![22], 0)));
    let mut late = begin(LATEST, &history);
    (late.next, late.whole_to) = (2, 12);
    publish(&mut history, &["A"; 300]);
    assert_eq!(turn(&mut late, &history, &filter, 0, 0), Err(FellOff), "not silently");
}

#[test]
fn numbers_of_another_epoch_leave_nothing_out() {
    let log = |seq| BTreeMap::from([(0, seq)]);
    for policy in [SlowPolicy::Drop, SlowPolicy::Skip, LATEST] {
        let mut history = history();
        history.follow_log("t".into(), &log(1000), false);
        let mut pull = begin(policy, &history);
        (pull.is_catching_up, pull.since) = (true, Some(Box::new(Seqs(log(1000)))));
        history.follow_log("u".into(), &log(0), false);
        append(&mut history, Some("A"), Some((0, 1)));
        assert_eq!(turn(&mut pull, &history, &Filter::All, 0, 0), Ok((vec![1], 0)), "{policy}");
    }
}

#[test]
fn who_has_caught_up_has_no_position_any_more() {
    let mut history = history();
    history.follow_log("t".into(), &BTreeMap::from([(0, 1000)]), false);
    let mut pull = begin(SlowPolicy::Skip, &history);
    (pull.is_catching_up, pull.since) = (true, Some(Box::new(Seqs(BTreeMap::from([(0, 1000)])))));
    assert_eq!(turn(&mut pull, &history, &Filter::All, 0, 0), Ok((vec![], 0)));
    assert_eq!((pull.is_catching_up, pull.since), (false, None));
}

#[test]
fn what_nobody_asked_for_is_neither_lag_nor_left_out() {
    let (mut history, filter) = (history(), Filter::of(["A"]));
    let mut pull = begin(SlowPolicy::Skip, &history);
    publish(&mut history, &["A"]);
    publish(&mut history, &["B"; 100]);
    assert_eq!(turn(&mut pull, &history, &filter, 1, 0), Ok((vec![1], 0)), "100 of B are no lag");
    publish(&mut history, &["B"; 1000]);
    publish(&mut history, &["A"]);
    assert_eq!(turn(&mut pull, &history, &filter, 2, 0), Ok((vec![1102], 0)), "only B fell off");
    publish(&mut history, &["A", "A", "A"]);
    publish(&mut history, &["B"; 1000]);
    publish(&mut history, &["A"]);
    assert_eq!(turn(&mut pull, &history, &filter, 6, 0), Ok((vec![2106], 3)), "three of A fell off unread");
}

#[test]
fn of_too_many_only_the_wanted_ones_are_left_out() {
    let (mut history, filter) = (history(), Filter::of(["A"]));
    let mut pull = begin(SlowPolicy::Skip, &history);
    (0..25).for_each(|_| publish(&mut history, &["A", "B"]));
    let (mut seqs, skipped) = turn(&mut pull, &history, &filter, 25, 0).unwrap();
    seqs.extend(turn(&mut pull, &history, &filter, 25, 0).unwrap().0);
    assert_eq!((seqs, skipped), ((15..25).map(|n| 2 * n + 1).collect(), 15));
}

#[test]
fn a_round_ends_where_it_was_decided_to_and_sends_each_symbol_once() {
    let (mut history, filter) = (history(), Filter::All);
    let mut pull = begin(SlowPolicy::Latest { interval_ms: 1000 }, &history);
    let symbols: Vec<String> = (0..25).map(|n| format!("S{n}")).collect();
    let symbols: Vec<&str> = symbols.iter().map(|symbol| &**symbol).collect();
    publish(&mut history, &symbols);
    let mut heard = Vec::new();
    for now_ms in 5000..5100 {
        heard.extend(turn(&mut pull, &history, &filter, 0, now_ms).unwrap().0);
        publish(&mut history, &symbols[..1]);
        publish(&mut history, &symbols[24..]);
    }
    assert_eq!(heard, (1..=25).collect::<Vec<u64>>(), "none of the 25 twice, and all of them");
    assert_eq!((pull.due_ms, turn(&mut pull, &history, &filter, 0, 5999)), (6000, Ok((vec![], 0))));
    assert_eq!(turn(&mut pull, &history, &filter, 0, 6000), Ok((vec![224, 225], 0)), "then the newest");
}

#[test]
fn asking_again_does_not_bring_the_next_round_forward() {
    let (mut history, filter) = (history(), Filter::All);
    let slow = SlowPolicy::Latest { interval_ms: 3_600_000 };
    let mut pull = begin(slow, &history);
    publish(&mut history, &["A"]);
    assert_eq!(turn(&mut pull, &history, &filter, 0, 5000), Ok((vec![1], 0)));
    publish(&mut history, &["A"]);
    let again = |policy, before: &Pull| {
        let mut pull = Pull::new(1, policy, before.next, 0, "e".into());
        pull.replace(before);
        pull
    };
    let mut same = again(slow, &pull);
    assert_eq!(turn(&mut same, &history, &filter, 0, 6000), Ok((vec![], 0)));
    let mut faster = again(SlowPolicy::Latest { interval_ms: 1000 }, &same);
    assert_eq!(turn(&mut faster, &history, &filter, 0, 5999), Ok((vec![], 0)));
    assert_eq!(turn(&mut faster, &history, &filter, 0, 6000), Ok((vec![2], 0)), "a second after the last send");
}
