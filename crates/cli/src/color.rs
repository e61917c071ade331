//! Colours, where a person looks at a terminal that has them.

/// A colour of the terminal's own palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    Red,
    Green,
    Yellow,
}

/// Whether a stream is to have colours: not where no user looks, and not where they are not wanted (<https://no-color.org>).
pub fn wanted(is_terminal: bool) -> bool {
    is_terminal && sabir_server::log::colors_allowed()
}

/// A text in a colour.
pub fn painted(text: &str, color: Color) -> String {
    let code = match color {
        Color::Red => 31,
        Color::Green => 32,
        Color::Yellow => 33,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
