//! The patterns of a topic exchange: which of them match a routing key.
//!
//! A pattern is a path of words from the root. A key is walked through all paths at once, one word after the other: a node is active if
//! the words so far lead to it. A `#` node that is active stays so until the key ends, and every other node is reached from its parent
//! alone, so no node is active twice and a key costs at most its words times the nodes that are active, however patterns are made.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::counted_set::CountedSet;
use crate::words::{KeyError, KeySyntax, PatternWord, pattern, words};

const NONE: u32 = u32::MAX;

/// Where patterns begin.
const ROOT: u32 = 0;

/// Where slashed patterns begin whose first level is a wildcard: they do not match a key that begins with `$`.
const WILD_ROOT: u32 = 1;

/// Patterns, each with the numbers it leads to.
#[derive(Debug)]
pub struct Trie {
    nodes: Vec<TrieNode>,
    free: Vec<u32>,
    /// Nodes by their parent and their word, where the parent has several such children.
    edges: HashTable<u32>,
    /// Clients choose the words, so their hash has a key that clients do not know.
    hasher: RandomState,
}

/// In a cache line of its own: a walk looks at nodes all over memory, at each once.
#[derive(Debug)]
#[repr(align(64))]
struct TrieNode {
    parent: u32,
    one: u32,
    any: u32,
    /// Children by a word.
    literals: u32,
    /// If there is one such child: part of its word's hash, and the child. Once there were several, all are in `edges` until there
    /// is none.
    only: (u32, u32),
    step: Step,
    values: CountedSet,
}

/// How a node is reached from its parent.
#[derive(Debug)]
enum Step {
    Root,
    One,
    Any,
    Word(ShortWord),
}

/// A word, in place if it is as short as nearly all are.
#[derive(Debug)]
enum ShortWord {
    Inline(u8, [u8; INLINE]),
    Boxed(Box<[u8]>),
}

/// Bytes of a word that fit in a node.
const INLINE: usize = 14;

/// No child.
const NO_CHILD: (u32, u32) = (0, NONE);

/// A word that is looked for.
#[derive(Debug, Clone, Copy)]
struct Sought<'a> {
    text: &'a [u8],
    hash: u64,
}

/// What a walk needs, kept so that the next one allocates nothing.
#[derive(Debug, Default)]
pub struct TrieScratch {
    active: Vec<u32>,
    next: Vec<u32>,
    /// Active `#` nodes.
    anys: Vec<u32>,
    /// A bit for each node: whether it is in `anys`.
    marks: Vec<u64>,
}

impl Default for Trie {
    fn default() -> Self {
        Self::new()
    }
}

impl Trie {
    /// No patterns.
    pub fn new() -> Self {
        let nodes = vec![TrieNode::new(NONE, Step::Root), TrieNode::new(NONE, Step::Root)];
        Self { nodes, free: Vec::new(), edges: HashTable::new(), hasher: RandomState::new() }
    }

    /// Has a pattern lead to `value`, once more if it does so already.
    pub fn insert(&mut self, key: &[u8], syntax: KeySyntax, value: u32) -> Result<(), KeyError> {
        let pattern = pattern(key, syntax)?;
        let mut node = root(&pattern, syntax);
        for word in &pattern {
            node = match self.child(node, word) {
                NONE => self.add(node, word),
                child => child,
            };
        }
        self.node_mut(node).values.insert(value);
        Ok(())
    }

    /// Takes back one [`Trie::insert`]; whether there was one.
    pub fn remove(&mut self, key: &[u8], syntax: KeySyntax, value: u32) -> bool {
        let Ok(pattern) = pattern(key, syntax) else { return false };
        let mut node = root(&pattern, syntax);
        for word in &pattern {
            node = self.child(node, word);
            if node == NONE {
                return false;
            }
        }
        let found = self.node_mut(node).values.remove(value);
        self.prune(node);
        found
    }

    /// Appends the numbers of every pattern that matches a dotted key. A number that several patterns lead to may appear several times.
    pub fn matches(&self, key: &[u8], scratch: &mut TrieScratch, out: &mut Vec<u32>) -> Result<(), KeyError> {
        let words = words(key)?;
        scratch.begin(self.nodes.len());
        self.enter(ROOT, scratch);
        if !key.starts_with(b"$") {
            self.enter(WILD_ROOT, scratch);
        }
        for word in words {
            self.walk(self.sought(word), scratch);
            if scratch.active.is_empty() && scratch.anys.is_empty() {
                break;
            }
        }
        for node in scratch.active.iter().chain(&scratch.anys) {
            self.node(*node).values.extend_into(out);
        }
        scratch.end();
        Ok(())
    }

    /// Nodes in use, as a measure of memory.
    pub fn nodes(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Goes on by a word from every active node.
    fn walk(&self, word: Sought<'_>, scratch: &mut TrieScratch) {
        std::mem::swap(&mut scratch.active, &mut scratch.next);
        scratch.active.clear();
        // A `#` node that becomes active by this word begins with the next one.
        let anys = scratch.anys.len();
        for at in 0..scratch.next.len() {
            self.advance(scratch.next[at], word, scratch);
        }
        for at in 0..anys {
            self.advance(scratch.anys[at], word, scratch);
        }
    }

    fn advance(&self, node: u32, word: Sought<'_>, scratch: &mut TrieScratch) {
        for child in [self.literal(node, word), self.node(node).one] {
            if child != NONE {
                self.enter(child, scratch);
            }
        }
    }

    fn enter(&self, node: u32, scratch: &mut TrieScratch) {
        scratch.active.push(node);
        let any = self.node(node).any;
        if any != NONE && scratch.mark(any) {
            scratch.anys.push(any);
        }
    }

    fn node(&self, node: u32) -> &TrieNode {
        &self.nodes[node as usize]
    }

    fn node_mut(&mut self, node: u32) -> &mut TrieNode {
        &mut self.nodes[node as usize]
    }

    fn sought<'a>(&self, text: &'a [u8]) -> Sought<'a> {
        Sought { text, hash: self.hasher.hash_one(text) }
    }

    fn child(&self, node: u32, word: &PatternWord<'_>) -> u32 {
        match word {
            PatternWord::One => self.node(node).one,
            PatternWord::Any => self.node(node).any,
            PatternWord::Literal(word) => self.literal(node, self.sought(word)),
        }
    }

    /// The child by a word.
    fn literal(&self, parent: u32, word: Sought<'_>) -> u32 {
        let TrieNode { literals, only: (tag, only), .. } = *self.node(parent);
        if only != NONE {
            let found = tag == word.tag() && self.is_at(only, parent, word);
            return if found { only } else { NONE };
        }
        if literals == 0 {
            return NONE;
        }
        let found = self.edges.find(word.edge(parent), |child| self.is_at(*child, parent, word));
        found.copied().unwrap_or(NONE)
    }

    fn is_at(&self, node: u32, parent: u32, word: Sought<'_>) -> bool {
        let node = self.node(node);
        node.parent == parent && node.word() == Some(word.text)
    }

    fn add(&mut self, parent: u32, word: &PatternWord<'_>) -> u32 {
        match word {
            PatternWord::One => {
                let node = self.place(TrieNode::new(parent, Step::One));
                self.node_mut(parent).one = node;
                node
            }
            PatternWord::Any => {
                let node = self.place(TrieNode::new(parent, Step::Any));
                self.node_mut(parent).any = node;
                node
            }
            PatternWord::Literal(word) => {
                let node = self.place(TrieNode::new(parent, Step::Word(ShortWord::new(word))));
                self.link(parent, self.sought(word).hash, node);
                node
            }
        }
    }

    fn place(&mut self, node: TrieNode) -> u32 {
        if let Some(free) = self.free.pop() {
            self.nodes[free as usize] = node;
            return free;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Has `parent` lead to `child` by its word.
    fn link(&mut self, parent: u32, hash: u64, child: u32) {
        let word = Sought { text: b"", hash };
        let node = self.node_mut(parent);
        node.literals += 1;
        if node.literals == 1 {
            node.only = (word.tag(), child);
            return;
        }
        let (_, only) = std::mem::replace(&mut node.only, NO_CHILD);
        for child in [only, child] {
            if child != NONE {
                let Self { nodes, edges, hasher, .. } = self;
                edges.insert_unique(edge(nodes, hasher, child), child, |child| edge(nodes, hasher, *child));
            }
        }
    }

    /// Has the parent of `node` no longer lead to it.
    fn unlink(&mut self, node: u32) {
        let parent = self.node(node).parent;
        match self.node(node).step {
            Step::Root => {}
            Step::One => self.node_mut(parent).one = NONE,
            Step::Any => self.node_mut(parent).any = NONE,
            Step::Word(_) => {
                let hash = edge(&self.nodes, &self.hasher, node);
                if let Ok(entry) = self.edges.find_entry(hash, |other| *other == node) {
                    entry.remove();
                }
                self.node_mut(parent).literals -= 1;
                self.node_mut(parent).only = NO_CHILD;
            }
        }
    }

    /// Frees `node` and what is above it, as far as nothing needs them.
    fn prune(&mut self, mut node: u32) {
        while self.node(node).is_idle() {
            self.unlink(node);
            let parent = self.node(node).parent;
            self.nodes[node as usize] = TrieNode::new(NONE, Step::Root);
            self.free.push(node);
            node = parent;
        }
    }
}

/// The hash of the edge to a node, if a word leads to it.
fn edge(nodes: &[TrieNode], hasher: &RandomState, node: u32) -> u64 {
    let node = &nodes[node as usize];
    let text = node.word().unwrap_or_default();
    Sought { text, hash: hasher.hash_one(text) }.edge(node.parent)
}

impl Sought<'_> {
    fn tag(self) -> u32 {
        self.hash as u32
    }

    fn edge(self, parent: u32) -> u64 {
        self.hash ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl ShortWord {
    fn new(word: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..word.len()) {
            Some(held) => held.copy_from_slice(word),
            None => return Self::Boxed(word.into()),
        }
        Self::Inline(word.len() as u8, bytes)
    }

    fn text(&self) -> &[u8] {
        match self {
            Self::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Self::Boxed(word) => word,
        }
    }
}

impl TrieNode {
    fn new(parent: u32, step: Step) -> Self {
        Self { parent, one: NONE, any: NONE, literals: 0, only: NO_CHILD, step, values: CountedSet::None }
    }

    fn word(&self) -> Option<&[u8]> {
        match &self.step {
            Step::Word(word) => Some(word.text()),
            Step::Root | Step::One | Step::Any => None,
        }
    }

    fn is_idle(&self) -> bool {
        let childless = self.one == NONE && self.any == NONE && self.literals == 0;
        childless && self.values.is_empty() && !matches!(self.step, Step::Root)
    }
}

impl TrieScratch {
    fn begin(&mut self, nodes: usize) {
        self.active.clear();
        self.next.clear();
        if self.marks.len() * 64 < nodes {
            self.marks.resize(nodes.next_power_of_two().div_ceil(64), 0);
        }
    }

    /// Marks a node; whether it was not marked before.
    fn mark(&mut self, node: u32) -> bool {
        let (word, bit) = (node as usize / 64, 1 << (node % 64));
        let fresh = self.marks[word] & bit == 0;
        self.marks[word] |= bit;
        fresh
    }

    fn end(&mut self) {
        for node in self.anys.drain(..) {
            self.marks[node as usize / 64] = 0;
        }
    }
}

fn root(pattern: &[PatternWord<'_>], syntax: KeySyntax) -> u32 {
    let wild = matches!(pattern.first(), Some(PatternWord::One | PatternWord::Any));
    if wild && syntax == KeySyntax::Slashed { WILD_ROOT } else { ROOT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_a_cache_line() {
        assert_eq!(size_of::<TrieNode>(), 64);
    }

    #[test]
    fn words_of_any_length_are_told_apart() {
        let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
        for length in 0..40 {
            trie.insert(&vec![b'a'; length], KeySyntax::Dotted, length as u32).expect("short");
        }
        for length in 0..40 {
            let mut out = Vec::new();
            trie.matches(&vec![b'a'; length], &mut scratch, &mut out).expect("short");
            assert_eq!(out, [length as u32]);
        }
    }

    #[test]
    fn the_same_word_below_other_nodes_is_another_edge() {
        let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
        for at in 0..2_000u32 {
            for word in if at % 2 == 0 { ["x", "y"] } else { ["v", "w"] } {
                trie.insert(format!("{at}.{word}").as_bytes(), KeySyntax::Dotted, at).expect("short");
            }
        }
        for at in 0..2_000u32 {
            let mut out = Vec::new();
            trie.matches(format!("{at}.x").as_bytes(), &mut scratch, &mut out).expect("short");
            assert_eq!(out, if at % 2 == 0 { vec![at] } else { vec![] });
        }
    }

    #[test]
    fn what_is_removed_leaves_no_node_and_no_edge() {
        let mut trie = Trie::new();
        let patterns: [&[u8]; 5] = [b"a.b.c", b"a.*.c", b"#.x.#", b"", b"a.b"];
        for (value, pattern) in patterns.iter().enumerate() {
            trie.insert(pattern, KeySyntax::Dotted, value as u32).expect("valid");
        }
        assert!(!trie.remove(b"a.b.c", KeySyntax::Dotted, 9), "another value");
        assert!(!trie.remove(b"a.b.d", KeySyntax::Dotted, 0), "another pattern");
        for (value, pattern) in patterns.iter().enumerate() {
            assert!(trie.remove(pattern, KeySyntax::Dotted, value as u32));
        }
        assert_eq!((trie.nodes(), trie.edges.len()), (2, 0));
    }
}
