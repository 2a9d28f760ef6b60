use super::*;
use proptest::prelude::*;

const AGE: Duration = Duration::from_secs(10);

fn history(messages: u64, bytes: u64) -> ChannelHistory {
    let options = HistoryOptions { history_messages: messages, history_bytes: bytes, history_age: AGE };
    ChannelHistory::new("e".into(), options, HistoryFigures::default())
}

fn publish(history: &mut ChannelHistory, subject: &str, bytes: usize, now_ms: u64) {
    let place = history.place(None);
    let (id, subject) = (10 * (history.head() + 1), Some(subject.as_bytes().into()));
    history.append(id, Arriving { place, subject, frame: vec![0; bytes].into(), is_reread: false, age_ms: 0 }, now_ms);
}

fn from_log(history: &mut ChannelHistory, id: u64, place: Option<(u32, u64)>) {
    let place = history.place(place);
    history.append(id, Arriving { place, subject: None, frame: Bytes::new(), is_reread: false, age_ms: 0 }, 0);
}

fn start(history: &ChannelHistory, epoch: &str, seq: u64) -> Result<u64, NotRecovered> {
    let since = Since { epoch: epoch.into(), seqs: Seqs(BTreeMap::from([(0, seq)])) };
    history.start_after(&since, 0)
}

#[test]
fn a_position_is_answered_with_everything_after_it_or_with_why_not() {
    let mut history = history(4, 1 << 20);
    assert_eq!(start(&history, "e", 0), Ok(0), "nothing was published, and nothing is missing");
    for _ in 0..6 {
        publish(&mut history, "A", 1, 0);
    }
    assert_eq!([6, 5, 2].map(|seq| start(&history, "e", seq)), [Ok(6), Ok(5), Ok(2)]);
    assert_eq!(start(&history, "e", 1), Err(NotRecovered::TooOld), "it is held still, but not offered");
    assert_eq!(start(&history, "e", 0), Err(NotRecovered::TooOld));
    assert_eq!(start(&history, "e", 7), Err(NotRecovered::Ahead));
    assert_eq!(start(&history, "f", 6), Err(NotRecovered::UnknownEpoch));
    let other = Since { epoch: "e".into(), seqs: Seqs(BTreeMap::from([(0, 6), (9, 1)])) };
    assert_eq!(history.start_after(&other, 0), Err(NotRecovered::Ahead), "there is no partition 9");
}

#[test]
fn a_history_of_nothing_still_knows_who_missed_nothing() {
    let mut history = history(0, 1 << 20);
    (0..3).for_each(|_| publish(&mut history, "A", 1, 0));
    assert_eq!([3, 2].map(|seq| start(&history, "e", seq)), [Ok(3), Err(NotRecovered::TooOld)]);
}

#[test]
fn old_messages_go_with_the_next_or_with_time() {
    let mut history = history(9, 1 << 20);
    (0..3).for_each(|at| publish(&mut history, "A", 1, 1000 * at));
    history.trim(40_500);
    assert_eq!((history.first(), history.head()), (1, 3));
    assert_eq!(history.figures.messages.load(Ordering::Relaxed), 2);
}

#[test]
fn the_newest_of_each_subject_is_known() {
    let mut history = history(4, 1 << 20);
    "A B A C".split(' ').for_each(|subject| publish(&mut history, subject, 1, 0));
    let newest = |history: &ChannelHistory, from| history.newest_from(from).map(|(index, _)| index).collect::<Vec<_>>();
    assert_eq!([newest(&history, 0), newest(&history, 2)], [vec![1, 2, 3], vec![2, 3]]);
    (0..300).for_each(|_| publish(&mut history, "A", 1, 0));
    assert_eq!(newest(&history, 0), [303]);
    assert_eq!(history.newest_of.len(), 1, "what fell off is forgotten");
}

#[test]
fn partitions_count_by_themselves() {
    let mut history = history(4, 1 << 20);
    history.await_log();
    publish(&mut history, "A", 1, 0);
    assert_eq!(start(&history, "e", 0), Err(NotRecovered::Unavailable), "until the log has answered");
    history.follow_log("t".into(), &BTreeMap::from([(0, 100), (1, 0)]), true);
    from_log(&mut history, 1, Some((0, 101)));
    assert_eq!(start(&history, "t", 100), Err(NotRecovered::Unavailable), "until everything is read back");
    history.filled();
    for (id, place) in [(2, (1, 1)), (3, (0, 102)), (4, (1, 2))] {
        from_log(&mut history, id, Some(place));
    }
    assert_eq!(history.place(None), None, "what is not in the log has no number");
    let start = |zero, one| {
        history.start_after(&Since { epoch: "t".into(), seqs: Seqs(BTreeMap::from([(0, zero), (1, one)])) }, 0)
    };
    assert_eq!([start(102, 2), start(101, 2), start(102, 0)], [Ok(5), Ok(3), Ok(2)]);
    assert_eq!([start(99, 2), start(103, 2)], [Err(NotRecovered::TooOld), Err(NotRecovered::Ahead)]);
}

#[test]
fn a_log_whose_numbers_fall_is_another_one() {
    let mut history = history(4, 1 << 20);
    history.follow_log("t".into(), &BTreeMap::from([(0, 100)]), false);
    from_log(&mut history, 1, Some((0, 101)));
    from_log(&mut history, 2, Some((0, 1)));
    assert_ne!(&**history.epoch(), "t");
    assert_eq!((history.seqs().of(0), history.first(), history.head()), (1, 1, 2));
    history.follow_log("u".into(), &BTreeMap::from([(0, 1)]), false);
    from_log(&mut history, 3, Some((0, 2)));
    assert_eq!([start(&history, "u", 1), start(&history, "u", 0)], [Ok(2), Err(NotRecovered::TooOld)]);
}

proptest! {
    #[test]
    fn an_answer_is_whole_or_none(
        lengths in prop::collection::vec(0usize..9000, 0..300), messages in 0u64..400, bytes in 0u64..2_000_000,
        seq in 0u64..310
    ) {
        let mut history = history(messages, bytes);
        for &length in &lengths {
            publish(&mut history, "A", length, 0);
        }
        prop_assert!(history.kept.len() as u64 <= (messages + messages / 4).max(LEAST_MESSAGES));
        prop_assert!(history.behind(0).1 <= (bytes + bytes / 4).max(LEAST_BYTES));
        if let Ok(start) = start(&history, "e", seq) {
            let seqs: Vec<u64> = history.range(start..history.head()).map(|(_, kept)| kept.place.unwrap().1).collect();
            prop_assert_eq!(seqs, (seq + 1..=lengths.len() as u64).collect::<Vec<_>>());
        } else {
            prop_assert!(seq != lengths.len() as u64);
        }
    }
}

#[test]
fn the_newest_of_each_subject_is_known_as_it_was() {
    let mut history = history(9, 1 << 20);
    "A B A C A B".split(' ').for_each(|subject| publish(&mut history, subject, 1, 0));
    let newest = |indexes| history.newest_in(indexes).map(|(index, _)| index).collect::<Vec<_>>();
    assert_eq!([newest(0..4), newest(2..5), newest(0..6)], [vec![1, 2, 3], vec![3, 4], vec![3, 4, 5]]);
}

#[test]
fn of_a_position_only_the_partitions_that_exist_are_kept() {
    let mut history = history(9, 1 << 20);
    history.follow_log("t".into(), &BTreeMap::from([(0, 5), (3, 7)]), false);
    let named = Seqs((0..6500).map(|partition| (partition, 0)).chain([(3, 7)]).collect());
    assert_eq!(history.known(&named), Seqs(BTreeMap::from([(0, 0), (3, 7)])));
}
