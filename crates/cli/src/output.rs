//! Answers in the form that was asked for: a table for people, JSON or YAML for programs, bare names for shells.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::color::{self, Color};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// JSON for programs
    Json,
    /// YAML
    Yaml,
    /// Only the names, one a line
    Name,
}

/// The form of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ConfigFormat {
    /// Columns for people
    Table,
    /// JSON for programs
    Json,
    /// A configuration file that says the same
    Toml,
}

/// The form of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PageFormat {
    /// Markdown for people
    Markdown,
    /// A configuration file in which every key stands as a comment, explained
    Toml,
    /// JSON for programs
    Json,
}

/// Something that can be shown in every form.
pub trait Show {
    /// The whole of it.
    fn json(&self) -> Value;
    /// What people want to see.
    fn tables(&self) -> Vec<Table>;
    /// What it is called.
    fn names(&self) -> Vec<String>;
    /// The colour of a cell of a table.
    fn color(&self, _cell: &str) -> Option<Color> {
        None
    }
}

/// Rows under headings, the last column as wide as it likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub title: Option<String>,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// Shows an answer on stdout.
pub fn print(format: Format, what: &impl Show) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Json => {
            writeln!(out, "{}", visible_json(&format!("{:#}", what.json())))?;
        }
        Format::Yaml => out.write_all(yaml(&what.json()).as_bytes())?,
        Format::Name => {
            for name in what.names() {
                writeln!(out, "{}", visible(&name))?;
            }
        }
        Format::Table => {
            for (i, table) in what.tables().iter().enumerate() {
                if i > 0 {
                    writeln!(out)?;
                }
                let colored = color::wanted(out.is_terminal());
                let paint = |cell: &str| what.color(cell).filter(|_| colored);
                out.write_all(table.text(&paint).as_bytes())?;
            }
        }
    }
    out.flush()
}

impl Table {
    fn text(&self, paint: &dyn Fn(&str) -> Option<Color>) -> String {
        let mut text = self.title.as_ref().map(|t| format!("{}\n", visible(t))).unwrap_or_default();
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|r| r[column].chars().count());
            cells.max().unwrap_or(0).max(self.head[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        text += &line(self.head.iter().copied(), &widths, &|_| None);
        for row in &rows {
            text += &line(row.iter().map(String::as_str), &widths, paint);
        }
        text
    }
}

fn line<'a>(
    cells: impl Iterator<Item = &'a str>,
    widths: &[usize],
    paint: &dyn Fn(&str) -> Option<Color>,
) -> String {
    let padded = cells.zip(widths).map(|(cell, width)| {
        let padded = format!("{cell:<width$}");
        paint(cell).map_or(padded.clone(), |color| color::painted(&padded, color))
    });
    format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
}

/// A text with its control characters escaped: no name that a client gave itself can talk to the terminal.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(c),
            c if controls(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// JSON that says the same, with control characters escaped within its texts. Those below a space are in any JSON.
pub fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if c > '~' && controls(c) => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out
}

/// Whether it is a control character, or one that has a terminal begin a line or change the direction of what it shows.
fn controls(c: char) -> bool {
    let directs =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || directs || matches!(c, '\u{2028}' | '\u{2029}')
}

/// YAML 1.2, in which every JSON scalar is a scalar.
fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0, true);
    out
}

/// Writes a value behind `key:` or `- `. `fresh` says that the cursor stands at the right column already.
fn block(out: &mut String, value: &Value, indent: usize, fresh: bool) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                begin(out, indent, fresh && i == 0);
                out.push_str("- ");
                block(out, item, indent + 2, true);
            }
        }
        Value::Object(map) if !map.is_empty() => {
            for (i, (key, item)) in map.iter().enumerate() {
                begin(out, indent, fresh && i == 0);
                out.push_str(&scalar(key));
                out.push(':');
                match nests(item) {
                    true => {
                        out.push('\n');
                        block(out, item, indent + 2, false);
                    }
                    false => {
                        out.push(' ');
                        block(out, item, 0, true);
                    }
                }
            }
        }
        Value::String(text) => *out += &format!("{}\n", scalar(text)),
        other => *out += &format!("{other}\n"),
    }
}

fn nests(value: &Value) -> bool {
    value.as_array().is_some_and(|a| !a.is_empty()) || value.as_object().is_some_and(|o| !o.is_empty())
}

fn begin(out: &mut String, indent: usize, fresh: bool) {
    if !fresh {
        out.extend(std::iter::repeat_n(' ', indent));
    }
}

/// Plain where nothing can be misread, else in double quotes as JSON has them.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
    let means_something = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    if plain && !means_something.contains(&text.to_lowercase().as_str()) {
        return text.to_owned();
    }
    visible_json(&Value::from(text).to_string())
}

/// A text for programs: null where it is not known.
pub fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A number with separators: 1234567 as 1,234,567.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_line_up() {
        let table = Table {
            title: None,
            head: vec!["NAME", "N"],
            rows: vec![vec!["a".into(), "1".into()], vec!["longer".into(), "22".into()]],
        };
        assert_eq!(table.text(&|_| None), "NAME    N\na       1\nlonger  22\n");
        let painted = table.text(&|cell| (cell == "a").then_some(Color::Red));
        assert_eq!(painted, "NAME    N\n\x1b[31ma     \x1b[0m  1\nlonger  22\n");
    }

    #[test]
    fn names_cannot_reach_the_terminal() {
        let rows = vec![vec!["red \x1b[31m".into()], vec!["two\nlines".into()]];
        let table = Table { title: Some("\x07".into()), head: vec!["NAME"], rows };
        assert_eq!(table.text(&|_| None), "\\u{7}\nNAME\nred \\u{1b}[31m\ntwo\\nlines\n");
    }

    #[test]
    fn what_changes_lines_or_directions_is_escaped_in_every_form() {
        let (text, escaped) =
            ("a\u{202e}b\u{2028}c\u{2066}\u{9b}\u{7f}é", "a\\u202eb\\u2028c\\u2066\\u009b\\u007fé");
        assert_eq!(visible(text), "a\\u{202e}b\\u{2028}c\\u{2066}\\u{9b}\\u{7f}é");
        let shown = visible_json(&json!([text, "\n"]).to_string());
        assert_eq!(shown, format!("[\"{escaped}\",\"\\n\"]"));
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), json!([text, "\n"]));
        assert_eq!(yaml(&json!([text])), format!("- \"{escaped}\"\n"));
    }

    #[test]
    fn yaml_is_indented() {
        let value =
            json!({"topics": [{"name": "a b", "size": 1, "none": []}, {"name": "no", "in": {"x": null}}]});
        let want = "topics:\n  - name: \"a b\"\n    size: 1\n    none: []\n  - name: \"no\"\n    in:\n      x: null\n";
        assert_eq!(yaml(&value), want);
        assert_eq!(yaml(&json!([[1, 2], "x"])), "- - 1\n  - 2\n- x\n");
    }

    #[test]
    fn numbers_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), text);
        }
    }
}
