//! The patterns of a topic exchange: which of them match a routing key.
//!
//! A pattern is a path of words from the root. A key is walked through all paths at once, one word after the other: a node is active if
//! the words so far lead to it. A `#` node that is active stays so until the key ends, and every other node is reached from its parent
//! alone, so no node is active twice and a key costs at most its words times the nodes that are active, however patterns are made.
//!
//! The end of a pattern that no other pattern shares is one node, and is parted where another one comes to share it. A `#` has a node of its
//! own always, so that such an end matches as many words as it has.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::counted_set::CountedSet;
use crate::words::{KeyError, KeySyntax, PatternWord, dotted, pattern, words};

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
    /// Bytes of the words that do not lie in nodes.
    text_bytes: usize,
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
    /// Several words, dotted, the first of which is literal. Nothing is below such a node.
    Words(Box<[u8]>),
}

/// A word, in place if it is as short as nearly all are.
#[derive(Debug)]
enum ShortWord {
    Inline(u8, [u8; INLINE]),
    Boxed(Box<[u8]>),
}

/// Free nodes that are kept for others to come, whatever there is beside them.
const FEW_FREE: usize = 64;

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
    /// Nodes of several words that match the key to its end.
    ends: Vec<u32>,
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
        Self { nodes, free: Vec::new(), edges: HashTable::new(), hasher: RandomState::new(), text_bytes: 0 }
    }

    /// Has a pattern lead to `value`, once more if it does so already.
    pub fn insert(&mut self, key: &[u8], syntax: KeySyntax, value: u32) -> Result<(), KeyError> {
        let pattern = pattern(key, syntax)?;
        let mut node = root(&pattern, syntax);
        for (at, word) in pattern.iter().enumerate() {
            let child = self.child(node, word);
            if child == NONE {
                node = self.hang(node, &pattern[at..]);
                break;
            }
            node = child;
            match self.words_of(node) {
                Some(words) if is_end(words, &pattern[at..]) => break,
                Some(_) => self.part(node),
                None => {}
            }
        }
        self.node_mut(node).values.insert(value);
        Ok(())
    }

    /// Takes back one [`Trie::insert`]; whether there was one.
    pub fn remove(&mut self, key: &[u8], syntax: KeySyntax, value: u32) -> bool {
        let Ok(pattern) = pattern(key, syntax) else { return false };
        let mut node = root(&pattern, syntax);
        for (at, word) in pattern.iter().enumerate() {
            node = self.child(node, word);
            if node == NONE {
                return false;
            }
            match self.words_of(node) {
                Some(words) if is_end(words, &pattern[at..]) => break,
                Some(_) => return false,
                None => {}
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
        self.enter(ROOT, None, scratch);
        if !key.starts_with(b"$") {
            self.enter(WILD_ROOT, None, scratch);
        }
        let mut at = 0;
        for word in words {
            at += word.len() + 1;
            self.walk(self.sought(word), key.get(at..), scratch);
            if scratch.active.is_empty() && scratch.anys.is_empty() {
                break;
            }
        }
        for node in scratch.active.iter().chain(&scratch.anys).chain(&scratch.ends) {
            self.node(*node).values.extend_into(out);
        }
        scratch.end();
        Ok(())
    }

    /// Nodes in use.
    pub fn nodes(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Bytes of memory that it takes, what it keeps free included; that of the numbers that patterns lead to aside.
    pub fn bytes(&self) -> usize {
        const EDGE: usize = 2 * (size_of::<u32>() + 1);
        let nodes = self.nodes.capacity() * size_of::<TrieNode>() + self.free.capacity() * size_of::<u32>();
        nodes + self.edges.len() * EDGE + self.text_bytes
    }

    /// Goes on by a word from every active node; `rest` is what of the key is behind it, if there is more.
    fn walk(&self, word: Sought<'_>, rest: Option<&[u8]>, scratch: &mut TrieScratch) {
        std::mem::swap(&mut scratch.active, &mut scratch.next);
        scratch.active.clear();
        // A `#` node that becomes active by this word begins with the next one.
        let anys = scratch.anys.len();
        for at in 0..scratch.next.len() {
            self.advance(scratch.next[at], word, rest, scratch);
        }
        for at in 0..anys {
            self.advance(scratch.anys[at], word, rest, scratch);
        }
    }

    fn advance(&self, node: u32, word: Sought<'_>, rest: Option<&[u8]>, scratch: &mut TrieScratch) {
        for child in [self.literal(node, word), self.node(node).one] {
            if child != NONE {
                self.enter(child, rest, scratch);
            }
        }
    }

    fn enter(&self, node: u32, rest: Option<&[u8]>, scratch: &mut TrieScratch) {
        let TrieNode { step, any, .. } = self.node(node);
        if let Step::Words(words) = step {
            if rest.is_some_and(|rest| is_match(words, rest)) {
                scratch.ends.push(node);
            }
            return;
        }
        scratch.active.push(node);
        let any = *any;
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
            PatternWord::Literal(word) => self.add_step(parent, word, Step::Word(ShortWord::new(word))),
        }
    }

    /// Adds a node that `first` leads to.
    fn add_step(&mut self, parent: u32, first: &[u8], step: Step) -> u32 {
        let node = self.place(TrieNode::new(parent, step));
        self.link(parent, self.sought(first).hash, node);
        node
    }

    /// Adds the words of a pattern below a node that leads to none of them; gives the node of the last one.
    fn hang(&mut self, parent: u32, pattern: &[PatternWord<'_>]) -> u32 {
        let plain = pattern.iter().rposition(|word| written(word).is_none()).map_or(0, |last| last + 1);
        let mut node = parent;
        for (at, word) in pattern.iter().enumerate() {
            let rest = &pattern[at..];
            if let PatternWord::Literal(first) = word
                && at >= plain
                && rest.len() > 1
            {
                let words: Vec<&[u8]> = rest.iter().filter_map(written).collect();
                return self.add_step(node, first, Step::Words(words.join(&b'.').into()));
            }
            node = self.add(node, word);
        }
        node
    }

    /// Has a node of several words be one of the first of them, with the others below it.
    fn part(&mut self, node: u32) {
        let TrieNode { step, values, .. } = self.node_mut(node);
        let (step, values) = (std::mem::replace(step, Step::Root), std::mem::take(values));
        self.text_bytes -= step.text_bytes();
        let Step::Words(words) = step else { unreachable!("only nodes of several words are parted") };
        let mut words = words.split(|byte| *byte == b'.');
        let first = Step::Word(ShortWord::new(words.next().unwrap_or_default()));
        self.text_bytes += first.text_bytes();
        self.node_mut(node).step = first;
        let rest: Vec<PatternWord<'_>> = words.map(dotted).collect();
        let last = self.hang(node, &rest);
        self.node_mut(last).values = values;
    }

    /// The words of a node that has several.
    fn words_of(&self, node: u32) -> Option<&[u8]> {
        match &self.node(node).step {
            Step::Words(words) => Some(words),
            _ => None,
        }
    }

    fn place(&mut self, node: TrieNode) -> u32 {
        self.text_bytes += node.step.text_bytes();
        if let Some(free) = self.free.pop() {
            self.nodes[free as usize] = node;
            return free;
        }
        if self.nodes.len() == self.nodes.capacity() {
            // Not twice as many: there may be very many, and what is not used yet counts.
            self.nodes.reserve_exact(self.nodes.len() / 8 + 8);
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
            Step::Word(_) | Step::Words(_) => {
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
            self.text_bytes -= self.node(node).step.text_bytes();
            self.nodes[node as usize] = TrieNode::new(NONE, Step::Root);
            self.free.push(node);
            node = parent;
        }
        if self.free.len() > FEW_FREE && self.free.len() > self.nodes.len() / 2 {
            self.compact();
        }
    }

    /// Gives up the memory of free nodes: the others get new numbers.
    fn compact(&mut self) {
        let mut moved = vec![NONE; self.nodes.len()];
        let mut nodes = Vec::with_capacity(self.nodes());
        for (at, node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            if at <= WILD_ROOT as usize || !matches!(node.step, Step::Root) {
                moved[at] = nodes.len() as u32;
                nodes.push(node);
            }
        }
        let now = |node: u32| if node == NONE { NONE } else { moved[node as usize] };
        for node in &mut nodes {
            (node.parent, node.one, node.any) = (now(node.parent), now(node.one), now(node.any));
            node.only.1 = now(node.only.1);
        }
        (self.nodes, self.free) = (nodes, Vec::new());
        let Self { nodes, edges, hasher, .. } = self;
        for child in std::mem::take(edges).into_iter().map(now) {
            edges.insert_unique(edge(nodes, hasher, child), child, |child| edge(nodes, hasher, *child));
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
            Step::Words(words) => words.split(|byte| *byte == b'.').next(),
            Step::Root | Step::One | Step::Any => None,
        }
    }

    fn is_idle(&self) -> bool {
        let childless = self.one == NONE && self.any == NONE && self.literals == 0;
        childless && self.values.is_empty() && !matches!(self.step, Step::Root)
    }
}

impl Step {
    /// Bytes of its words that lie elsewhere, with what an allocation takes.
    fn text_bytes(&self) -> usize {
        const ALLOCATION: usize = 16;
        match self {
            Self::Word(ShortWord::Boxed(words)) | Self::Words(words) => words.len() + ALLOCATION,
            Self::Root | Self::One | Self::Any | Self::Word(ShortWord::Inline(..)) => 0,
        }
    }
}

impl TrieScratch {
    fn begin(&mut self, nodes: usize) {
        self.active.clear();
        self.ends.clear();
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

/// A word as it stands in a node of several; none if it cannot.
fn written<'a>(word: &'a PatternWord<'_>) -> Option<&'a [u8]> {
    match word {
        PatternWord::One => Some(b"*"),
        PatternWord::Any => None,
        // A slashed pattern has stars that are no wildcards.
        PatternWord::Literal(word) => Some(&**word).filter(|word| *word != b"*"),
    }
}

/// Whether the words of a node are those of a pattern.
fn is_end(words: &[u8], pattern: &[PatternWord<'_>]) -> bool {
    let mut words = words.split(|byte| *byte == b'.');
    let same = |word: &PatternWord<'_>| words.next().is_some_and(|own| written(word) == Some(own));
    pattern.iter().all(same) && words.next().is_none()
}

/// Whether the words of a node behind its first one match the rest of a key, to its end.
fn is_match(words: &[u8], rest: &[u8]) -> bool {
    let mut rest = rest.split(|byte| *byte == b'.');
    let mut words = words.split(|byte| *byte == b'.').skip(1);
    let same = |word: &[u8]| rest.next().is_some_and(|found| word == b"*" || word == found);
    words.all(same) && rest.next().is_none()
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
    fn a_long_end_that_is_nobody_elses_is_one_node() {
        let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
        let key = |at: u32| format!("{at}.{}*.z", "ab.".repeat(78));
        for at in 0..1_000 {
            trie.insert(key(at).as_bytes(), KeySyntax::Dotted, at).expect("short");
        }
        assert_eq!(trie.nodes(), 2 + 1_000);
        assert!(trie.bytes() < 400 * 1_000, "{}", trie.bytes());
        // Another one shares all but the last word of one of them: so much of it is by the word.
        let other = key(7).replace("*.z", "*.y");
        trie.insert(other.as_bytes(), KeySyntax::Dotted, 7_000).expect("short");
        assert_eq!(trie.nodes(), 2 + 999 + 80 + 2);
        let mut out = Vec::new();
        for (key, found) in [(key(6), 6), (key(7), 7), (other, 7_000)] {
            trie.matches(key.replace('*', "any").as_bytes(), &mut scratch, &mut out).expect("short");
            assert_eq!(std::mem::take(&mut out), [found]);
        }
    }

    #[test]
    fn memory_of_patterns_that_went_is_given_up() {
        let (mut trie, mut scratch) = (Trie::new(), TrieScratch::default());
        let key = |at: u32| format!("{}.#.{at}.b.c.#.a word of some length.{}.*", at % 10, at / 3);
        for at in 0..3_000 {
            trie.insert(key(at).as_bytes(), KeySyntax::Dotted, at).expect("short");
        }
        let full = trie.bytes();
        for at in (0..3_000).filter(|at| at % 100 != 0) {
            assert!(trie.remove(key(at).as_bytes(), KeySyntax::Dotted, at));
        }
        assert!(trie.bytes() < full / 20, "{} of {full}", trie.bytes());
        for at in 0..3_000 {
            let mut out = Vec::new();
            let key = key(at).replace("#.", "").replace('*', "any");
            trie.matches(key.as_bytes(), &mut scratch, &mut out).expect("short");
            assert_eq!(out, if at % 100 == 0 { vec![at] } else { vec![] });
        }
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
