//! Texts of clients, as an operator may see them.

/// A client's text, at most so many characters and without control characters. Anything else stays: who shows it must
/// take it as text, never as markup.
pub fn shown(text: &str, limit: usize) -> String {
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    match text.char_indices().nth(limit) {
        None => text.chars().map(plain).collect(),
        Some((end, _)) => text[..end].chars().map(plain).chain(['…']).collect(),
    }
}

/// A credential: its first four characters, which tell clients apart and open nothing.
pub fn shown_key(key: &str) -> String {
    shown(key, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_call_themselves_is_cut_and_has_no_control_characters() {
        assert_eq!(shown("<script>\u{202e}é", 64), "<script>\u{202e}é");
        assert_eq!(shown("a\u{1b}[2J\n", 64), "a\u{fffd}[2J\u{fffd}");
        assert_eq!(shown("éééé", 3), "ééé…");
        assert_eq!((shown_key("k42"), shown_key("secret")), ("k42".to_owned(), "secr…".to_owned()));
    }
}
