//! The filter of a consumer that names tags: `a || b`, or `*` for all.

use thiserror::Error;

/// Most tags that a filter may name.
const MOST_TAGS: usize = 1_024;

/// Most bytes of a filter.
const MOST_BYTES: usize = 32_767;

/// What a consumer wants, by tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter {
    /// Sorted by hash; none means that every message is wanted.
    tags: Option<Box<[HashedTag]>>,
}

type HashedTag = (i32, Box<str>);

/// Why a filter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TagError {
    /// There are only separators.
    #[error("the filter names no tag; * is for all messages")]
    NoTag,
    /// More tags than a filter may name.
    #[error("the filter names {0} tags; at most {MOST_TAGS} are allowed")]
    TooMany(usize),
    /// A longer text than is read.
    #[error("the filter has {0} bytes; at most {MOST_BYTES} are allowed")]
    TooLong(usize),
}

/// The number that stands for a tag: Java's hash of the string, which clients of the original reckon too.
pub fn tag_hash(tag: &str) -> i32 {
    tag.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

impl TagFilter {
    /// The filter that a text states; an empty one is for all messages.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        if text.len() > MOST_BYTES {
            return Err(TagError::TooLong(text.len()));
        }
        if matches!(text.trim(), "" | "*") {
            return Ok(Self { tags: None });
        }
        let tags = text.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let mut tags: Vec<HashedTag> = tags.map(|tag| (tag_hash(tag), tag.into())).collect();
        tags.sort();
        tags.dedup();
        match tags.len() {
            0 => Err(TagError::NoTag),
            many @ MOST_TAGS.. if many > MOST_TAGS => Err(TagError::TooMany(many)),
            _ => Ok(Self { tags: Some(tags.into()) }),
        }
    }

    /// Whether a message whose tag has this hash may be wanted: [`TagFilter::matches`] tells tags of one hash apart.
    pub fn may_match(&self, hash: Option<i32>) -> bool {
        let Some(tags) = &self.tags else { return true };
        hash.is_some_and(|hash| tags.binary_search_by_key(&hash, |(hash, _)| *hash).is_ok())
    }

    /// Whether a message with this tag is wanted.
    pub fn matches(&self, tag: Option<&str>) -> bool {
        let Some(tags) = &self.tags else { return true };
        tag.is_some_and(|tag| {
            let hash = tag_hash(tag);
            let from = tags.partition_point(|(other, _)| *other < hash);
            tags[from..].iter().take_while(|(other, _)| *other == hash).any(|(_, other)| **other == *tag)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_javas_strings() {
        for (tag, hash) in [("", 0), ("a", 97), ("TagA", 2_598_919), ("Aa", 2_112), ("BB", 2_112)] {
            assert_eq!(tag_hash(tag), hash, "{tag}");
        }
        assert_eq!(tag_hash("polygenelubricants"), i32::MIN);
        assert_eq!(tag_hash("\u{1f600}"), 31 * 0xd83d + 0xde00, "by the units of UTF-16");
    }

    #[test]
    fn a_filter_names_tags_or_takes_all() {
        for all in ["", "*", " * "] {
            let filter = TagFilter::parse(all).expect("valid");
            assert!(filter.matches(None) && filter.matches(Some("x")) && filter.may_match(None));
        }
        let filter = TagFilter::parse(" Aa|| b ||||Aa").expect("valid");
        assert!(filter.matches(Some("Aa")) && filter.matches(Some("b")));
        assert!(!filter.matches(Some("BB")) && !filter.matches(Some("c")) && !filter.matches(None));
        assert!(filter.may_match(Some(tag_hash("BB"))), "the hash alone cannot tell");
        assert!(!filter.may_match(Some(tag_hash("c"))) && !filter.may_match(None));
    }

    #[test]
    fn a_filter_without_a_tag_or_with_too_many_is_refused() {
        assert_eq!(TagFilter::parse("||"), Err(TagError::NoTag));
        let many: Vec<_> = (0..=MOST_TAGS).map(|tag| tag.to_string()).collect();
        assert!(TagFilter::parse(&many[1..].join("||")).is_ok());
        assert_eq!(TagFilter::parse(&many.join("||")), Err(TagError::TooMany(MOST_TAGS + 1)));
        assert!(matches!(TagFilter::parse(&"a".repeat(MOST_BYTES + 1)), Err(TagError::TooLong(_))));
    }
}
