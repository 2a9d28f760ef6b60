//! How data is written: syntaxes, the subprotocols' names, and the forms that frames are built in.

use crate::wire::payload::Profile;

/// How a subprotocol writes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// Text frames of JSON.
    Json,
    /// Binary frames of protobuf.
    Protobuf,
}

/// What is built once per record and shared by plain and reliable connections: a syntax in a
/// profile. The reliable frame is the plain one with a sequence id, see [`finish`](super::PubSubWire::finish).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainForm {
    /// JSON in text frames, or protobuf in binary ones.
    pub syntax: Syntax,
    /// The scale of the numbers.
    pub profile: Profile,
}

impl PlainForm {
    /// Every form, in the order of [`PlainForm::index`].
    pub const ALL: [Self; 4] = [
        Self { syntax: Syntax::Protobuf, profile: Profile::V2025_11 },
        Self { syntax: Syntax::Protobuf, profile: Profile::V2026_04 },
        Self { syntax: Syntax::Json, profile: Profile::V2025_11 },
        Self { syntax: Syntax::Json, profile: Profile::V2026_04 },
    ];

    /// 0 to 3: its position in [`PlainForm::ALL`], by which frames are kept.
    pub const fn index(self) -> usize {
        let syntax = match self.syntax {
            Syntax::Protobuf => 0,
            Syntax::Json => 2,
        };
        syntax + self.profile.index()
    }

    /// The syntax's name in metrics and `inspect`.
    pub const fn syntax_name(self) -> &'static str {
        match self.syntax {
            Syntax::Protobuf => "protobuf",
            Syntax::Json => "json",
        }
    }
}

/// The subprotocol names, each with its syntax and whether it is reliable (`docs/protocols/webpubsub.md`,
/// "Subprotocols").
pub const SUBPROTOCOLS: [(&str, Syntax, bool); 4] = [
    ("json.webpubsub.azure.v1", Syntax::Json, false),
    ("json.reliable.webpubsub.azure.v1", Syntax::Json, true),
    ("protobuf.webpubsub.azure.v1", Syntax::Protobuf, false),
    ("protobuf.reliable.webpubsub.azure.v1", Syntax::Protobuf, true),
];
