//! Is a body of POST or PATCH negotiate ever a panic, or a set of groups that it may not ask for?
//!
//! Whatever is accepted is within the limits and on hubs that carry it, spot and analytics have each other, and
//! written as a PATCH it means the same. What is refused is answered with a short text whatever came.
#![no_main]

use flowcast::wire::gexbot::{GroupName, HubTopic, Series};
use flowcast::wire::wanted_groups::{WantedGroups, WantedLimits};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const LIMITS: WantedLimits<'static> = WantedLimits { prefix: "blue", memberships: 12, groups_of_hub: 8 };

fuzz_target!(|body: &[u8]| {
    for parse in [WantedGroups::of_post, WantedGroups::of_patch] {
        match parse(body, &LIMITS) {
            Ok(wanted) => check(&wanted),
            Err(error) => assert!(error.to_string().chars().count() <= 1000, "{error}"),
        }
    }
});

fn check(wanted: &WantedGroups) {
    assert!((1..=LIMITS.memberships).contains(&wanted.memberships()));
    let mut pairs = Vec::new();
    for topic in HubTopic::ALL {
        assert!(wanted.groups(topic).len() <= LIMITS.groups_of_hub);
        let hub = topic.hub(wanted.is_v2());
        let groups: Vec<GroupName<'_>> =
            wanted.groups(topic).map(|name| GroupName::parse_unprefixed(name).unwrap()).collect();
        for group in &groups {
            assert!(hub.carries(&group.series), "{group:?} on {hub}");
            let is_spot = group.series == Series::Spot;
            let has_other =
                groups.iter().any(|other| other.ticker == group.ticker && (other.series == Series::Spot) != is_spot);
            assert_eq!(has_other, wanted.is_v2(), "{group:?} on {hub}");
            pairs.push(json!({ "hub": hub.name(), "group": group.series.unprefixed(group.ticker) }));
        }
    }
    let patch = json!({ "groups": pairs }).to_string();
    assert_eq!(WantedGroups::of_patch(patch.as_bytes(), &LIMITS).as_ref(), Ok(wanted));
}
