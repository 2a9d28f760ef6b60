//! Waiting until frames are built, where an answer says that groups are joined: what comes begins with the next
//! tick. A client's own join needs none of this, since its ack waits.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::frames::Form;
use crate::engine::group::Group;
use crate::engine::hub::Hub;
use crate::engine::wanted_form::WantedForm;

/// After that the answer comes anyway, and its groups begin as soon as they can.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(2);

/// Has a form of these groups built, for a client that will join them. Groups that nobody has declared or joined
/// have no frames to wait for. Hold the result until the client has joined.
pub async fn build_ahead(hub: &Hub, groups: impl Iterator<Item = String>, form: Form) -> WantedForm {
    let wanted = WantedForm::new(groups.filter_map(|group| hub.find(&group)).collect(), form);
    wait_until(|| wanted.is_ready()).await;
    wanted
}

/// Waits until these groups have frames in every form that their subscribers get.
pub async fn until_served(hub: &Hub, groups: impl Iterator<Item = String>) {
    let groups: Vec<Arc<Group>> = groups.filter_map(|group| hub.find(&group)).collect();
    wait_until(|| groups.iter().all(|group| group.is_served())).await;
}

async fn wait_until(is_ready: impl Fn() -> bool) {
    let look = async {
        while !is_ready() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, look).await;
}
