//! What is built of a block: its records, and their spot prices, in each form.

use crate::engine::frames::Form;
use crate::wire::gexbot::PayloadKind;
use crate::wire::payload::Profile;
use crate::wire::webpubsub::{PlainForm, Syntax};

/// A form of a block's frames: of the records themselves, or of their spot price.
///
/// Only orderflow differs between the profiles. All other payloads have one part per syntax, for both profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The records in a plain form.
    Record(PlainForm),
    /// Their spot prices in a syntax.
    Spot(Syntax),
}

/// A set of parts, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts(u8);

impl Part {
    /// How many there are.
    pub const COUNT: usize = PlainForm::ALL.len() + 2;

    /// What is built of a block, in the order of [`Part::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        let spot = [Self::Spot(Syntax::Protobuf), Self::Spot(Syntax::Json)];
        PlainForm::ALL.into_iter().map(Self::Record).chain(spot)
    }

    /// The part that serves a form of groups with this kind of payload.
    pub fn of(kind: PayloadKind, form: Form) -> Self {
        let form = PlainForm::ALL[form.index() % PlainForm::ALL.len()];
        match kind {
            PayloadKind::Orderflow => Self::Record(form),
            PayloadKind::Gex | PayloadKind::Greek => Self::Record(PlainForm { profile: Profile::V2026_04, ..form }),
            PayloadKind::Spot => Self::Spot(form.syntax),
        }
    }

    /// Position in [`Part::all`].
    pub const fn index(self) -> usize {
        match self {
            Self::Record(form) => form.index(),
            Self::Spot(Syntax::Protobuf) => PlainForm::ALL.len(),
            Self::Spot(Syntax::Json) => PlainForm::ALL.len() + 1,
        }
    }
}

impl Parts {
    /// The parts that serve some forms, a bit for each, of groups with this kind of payload.
    pub fn of(kind: PayloadKind, forms: u8) -> Self {
        let forms = (0..PlainForm::ALL.len()).map(Form::new).filter(|form| forms & form.bit() != 0);
        forms.map(|form| Part::of(kind, form)).collect()
    }

    /// The forms, a bit for each, that these parts serve in groups with this kind of payload.
    pub fn forms(self, kind: PayloadKind) -> u8 {
        let served = (0..PlainForm::ALL.len()).map(Form::new).filter(|&form| self.has(Part::of(kind, form)));
        served.fold(0, |forms, form| forms | form.bit())
    }

    /// Whether a part is among them.
    pub const fn has(self, part: Part) -> bool {
        self.0 & 1 << part.index() != 0
    }

    /// The parts of either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The parts of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The parts that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Part> for Parts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        Self(parts.into_iter().fold(0, |set, part| set | 1 << part.index()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(syntax: Syntax, profile: Profile) -> Form {
        Form::new(PlainForm { syntax, profile }.index())
    }

    #[test]
    fn only_orderflow_has_a_part_for_each_profile() {
        let both = Profile::ALL.map(|profile| form(Syntax::Json, profile).bit()).into_iter().sum();
        let parts = |kind| Part::all().filter(|part| Parts::of(kind, both).has(*part)).count();
        assert_eq!(
            [PayloadKind::Orderflow, PayloadKind::Gex, PayloadKind::Greek, PayloadKind::Spot].map(parts),
            [2, 1, 1, 1]
        );
        assert_eq!(
            Parts::of(PayloadKind::Gex, form(Syntax::Json, Profile::V2025_11).bit()).forms(PayloadKind::Gex),
            both
        );
    }
}
