//! Groups that will be joined in a form: their frames are built before the first lane is opened.

use std::sync::Arc;

use super::frames::Form;
use super::group::Group;

/// Wants a form of groups as a lane does, until it is dropped.
pub struct WantedForm {
    groups: Vec<Arc<Group>>,
    form: Form,
}

impl WantedForm {
    /// From now on the sources of these groups build this form.
    pub fn new(groups: Vec<Arc<Group>>, form: Form) -> Self {
        for group in &groups {
            group.want(form);
        }
        Self { groups, form }
    }

    /// Whether the frames of the next publications exist, in all of the groups.
    pub fn is_ready(&self) -> bool {
        self.groups.iter().all(|group| group.is_ready(self.form))
    }
}

impl Drop for WantedForm {
    fn drop(&mut self) {
        for group in &self.groups {
            group.unwant(self.form);
        }
    }
}
