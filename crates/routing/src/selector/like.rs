//! The pattern of a LIKE: `_` is one character, `%` any number of them.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Like {
    /// The runs between `%`; the first is at the beginning of the text, the last at its end.
    runs: Box<[Box<[One]>]>,
}

/// A character of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum One {
    Any,
    This(char),
}

impl Like {
    /// The pattern that a text states. What follows `escape` stands for itself, and something has to.
    pub(crate) fn parse(text: &str, escape: Option<char>) -> Option<Self> {
        let (mut runs, mut run) = (Vec::new(), Vec::new());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                c if Some(c) == escape => run.push(One::This(chars.next()?)),
                '%' => runs.push(std::mem::take(&mut run).into()),
                '_' => run.push(One::Any),
                c => run.push(One::This(c)),
            }
        }
        runs.push(run.into());
        Some(Self { runs: runs.into() })
    }

    /// Whether a text is as the pattern says.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.runs.split_first() else { return false };
        let Some(text) = begins(text, first) else { return false };
        match rest.split_last() {
            None => text.is_empty(),
            Some((last, between)) => find_all(text, between).is_some_and(|text| ends(text, last)),
        }
    }
}

/// What is left of a text that begins with a run.
fn begins<'a>(text: &'a str, run: &[One]) -> Option<&'a str> {
    let mut chars = text.chars();
    let all = run.iter().all(|one| match (one, chars.next()) {
        (One::Any, Some(_)) => true,
        (One::This(this), Some(c)) => *this == c,
        (_, None) => false,
    });
    all.then_some(chars.as_str())
}

/// What is left behind all runs, each found as early as can be.
fn find_all<'a>(text: &'a str, runs: &[Box<[One]>]) -> Option<&'a str> {
    runs.iter().try_fold(text, |text, run| find(text, run))
}

fn find<'a>(text: &'a str, run: &[One]) -> Option<&'a str> {
    let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    starts.into_iter().find_map(|at| begins(&text[at..], run))
}

fn ends(text: &str, run: &[One]) -> bool {
    let mut chars = text.chars();
    run.iter().rev().all(|one| match (one, chars.next_back()) {
        (One::Any, Some(_)) => true,
        (One::This(this), Some(c)) => *this == c,
        (_, None) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(pattern: &str, text: &str) -> bool {
        Like::parse(pattern, Some('\\')).expect("valid").matches(text)
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text) in [
            ("", ""),
            ("%", ""),
            ("%%", "a"),
            ("a%", "a"),
            ("%a", "a"),
            ("a%a", "aa"),
            ("12%3", "12993"),
            ("l_se", "lose"),
            ("_", "\u{1f600}"),
            ("%a_c%", "xxabcabc"),
            (r"\_%", "_foo"),
            (r"\%", "%"),
            (r"\\", r"\"),
            ("%ab", "aab"),
            ("a%b%c", "abbbc"),
            ("_%_", "ab"),
            (".*", ".*"),
        ] {
            assert!(like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a%a", "a"),
            ("12%3", "1234"),
            ("l_se", "loose"),
            ("_", ""),
            (r"\_%", "bar"),
            ("a%b", "abc"),
            ("_%_", "a"),
            (".*", "ab"),
            ("a", "A"),
            ("a%b%c", "acb"),
        ] {
            assert!(!like(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn an_escape_stands_before_what_it_escapes() {
        assert_eq!(Like::parse(r"a\", Some('\\')), None);
        assert!(like(r"\a\%", "a%"));
        assert!(Like::parse(r"a\", None).expect("no escape").matches(r"a\"));
    }
}
