//! Fetch sessions (KIP-227): what a consumer reads is kept here, so that it names only what changes, and is told only of
//! partitions with news.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::server::names::LONGEST_SHOWN;
use crate::wire::messages::fetch::{FetchRequest, PartitionData};
use crate::wire::{ErrorCode, Str, Uuid};

/// Asks for no session, or ends one.
const FINAL_EPOCH: i32 = -1;
/// Asks for a new session.
const INITIAL_EPOCH: i32 = 0;
/// No session.
pub(crate) const NO_SESSION: i32 = 0;
/// A session used within this time is not given up for a new one.
const KEPT: Duration = Duration::from_secs(120);
/// A session takes at most this part of the memory for all.
const SHARE: usize = 4;

/// A topic as the client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Name(Str),
    Id(Uuid),
}

impl TopicKey {
    fn name_bytes(&self) -> usize {
        match self {
            Self::Name(name) => name.len(),
            Self::Id(_) => 0,
        }
    }
}

/// What a client wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub topic: TopicKey,
    /// The name of a topic that is named by its id, once there was one: it tells one that was deleted, or made again, from one that
    /// never was.
    pub known_as: Option<Arc<str>>,
    pub partition: i32,
    pub fetch_offset: i64,
    pub leader_epoch: i32,
    pub last_fetched_epoch: i32,
    pub max_bytes: i32,
}

impl Wanted {
    fn known_bytes(&self) -> usize {
        self.known_as.as_ref().map_or(0, |name| name.len())
    }
}

/// The names of topics by their ids.
pub(crate) type Names<'a> = dyn Fn(Uuid) -> Option<Arc<str>> + 'a;

/// Gives topics named by id their names. They come in runs.
struct Resolve<'a> {
    names: &'a Names<'a>,
    last: Option<(Uuid, Option<Arc<str>>)>,
}

impl<'a> Resolve<'a> {
    fn new(names: &'a Names<'a>) -> Self {
        Self { names, last: None }
    }

    /// Whether it has learned the name.
    fn name(&mut self, wanted: &mut Wanted) -> bool {
        let TopicKey::Id(id) = wanted.topic else { return false };
        if wanted.known_as.is_some() {
            return false;
        }
        if self.last.as_ref().is_none_or(|(last, _)| *last != id) {
            self.last = Some((id, (self.names)(id)));
        }
        wanted.known_as = self.last.as_ref().and_then(|(_, name)| name.clone());
        wanted.known_as.is_some()
    }
}

fn resolved<'a>(wanted: impl Iterator<Item = Wanted>, names: &'a Names<'a>) -> impl Iterator<Item = Wanted> {
    let mut find = Resolve::new(names);
    wanted.map(move |mut wanted| {
        find.name(&mut wanted);
        wanted
    })
}

/// Each partition once, where it was named first, and as it was named last: as Kafka reads a request.
fn each_once(wanted: impl Iterator<Item = Wanted>) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = wanted.collect();
    if all.len() < 2 {
        return all;
    }
    let place = |wanted: &Wanted| (wanted.topic.clone(), wanted.partition);
    let mut last: FxHashMap<_, usize> = all.iter().enumerate().map(|(at, w)| (place(w), at)).collect();
    if last.len() < all.len() {
        let once = all.iter().filter_map(|first| Some(all[last.remove(&place(first))?].clone()));
        all = once.collect();
    }
    all
}

/// What a fetch is to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What to read, in turn.
    pub wanted: Vec<Wanted>,
    /// The session it belongs to, and the epoch in which.
    session: Option<(i32, i32)>,
    /// Whether everything is answered, or only what is news.
    full: bool,
}

impl Plan {
    /// Bytes of the topics' names at the most: each is counted for all its partitions.
    pub fn name_bytes(&self) -> usize {
        self.wanted.iter().map(|wanted| wanted.topic.name_bytes()).sum()
    }

    /// Reads from that place on, in a circle, where no session says where to begin.
    pub fn begin_at(&mut self, first: usize) -> usize {
        if self.session.is_some() || self.wanted.is_empty() {
            return 0;
        }
        let first = first % self.wanted.len();
        self.wanted.rotate_left(first);
        first
    }

    /// The session's number for the response.
    pub fn session_id(&self) -> i32 {
        self.session.map_or(NO_SESSION, |(id, _)| id)
    }
}

/// What the client was last told of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    told: Option<Told>,
}

#[derive(Debug)]
struct FetchSession {
    /// The epoch that the next request must have.
    epoch: i32,
    by_id: bool,
    used: Instant,
    entries: Vec<Entry>,
    places: FxHashMap<(TopicKey, i32), usize>,
    /// Where the next fetch begins, so that partitions behind busy ones get their turn.
    first: usize,
    /// The memory it takes, about.
    bytes: usize,
}

/// What the sessions are, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionStats {
    pub sessions: usize,
    pub partitions: usize,
    pub bytes: usize,
    /// Sessions asked for or grown beyond what there is room for, since the start.
    pub refused: u64,
}

/// All sessions of the node, in bounded number and memory.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    sessions: FxHashMap<i32, FetchSession>,
    max: usize,
    max_bytes: usize,
    bytes: usize,
    last_id: i32,
    refused: u64,
}

impl FetchSessions {
    /// Room for `max` sessions that take `max_bytes` together.
    pub fn new(max: usize, max_bytes: usize) -> Self {
        Self { sessions: FxHashMap::default(), max, max_bytes, bytes: 0, last_id: 0, refused: 0 }
    }

    pub fn stats(&self) -> SessionStats {
        SessionStats {
            sessions: self.sessions.len(),
            partitions: self.sessions.values().map(|session| session.entries.len()).sum(),
            bytes: self.bytes,
            refused: self.refused,
        }
    }

    /// Forgets all of them; their clients begin anew.
    pub fn clear(&mut self) {
        self.sessions.clear();
        self.bytes = 0;
    }

    /// Takes a request and says what to read for it.
    ///
    /// # Errors
    /// What the whole request is answered with.
    pub fn begin(
        &mut self,
        request: &FetchRequest,
        version: i16,
        names: &Names<'_>,
        now: Instant,
    ) -> Result<Plan, ErrorCode> {
        let by_id = version >= 13;
        let all = || resolved(each_once(wanted(request, by_id)).into_iter(), names).collect();
        match request.session_epoch {
            FINAL_EPOCH => {
                self.remove(request.session_id);
                Ok(Plan { wanted: all(), session: None, full: true })
            }
            INITIAL_EPOCH => {
                self.remove(request.session_id);
                Ok(self.create(all(), by_id, now))
            }
            _ => self.go_on(request, by_id, names, now),
        }
    }

    /// Says which of the answers are sent, and remembers what the client has been told.
    pub fn end(&mut self, plan: &Plan, answers: &mut Vec<(usize, PartitionData)>) {
        let Some((id, epoch)) = plan.session else { return };
        // The session may have gone, or have been begun anew, while the fetch waited.
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.epoch == epoch) else { return };
        let mut served_last = None;
        answers.retain(|(at, answer)| {
            let wanted = &plan.wanted[*at];
            let Some(&place) = session.places.get(&(wanted.topic.clone(), wanted.partition)) else {
                return true;
            };
            let has_records = answer.records.as_ref().is_some_and(|r| !r.is_empty());
            if has_records {
                served_last = Some(place);
            }
            let news = session.entries[place].tell(answer);
            plan.full || news || has_records
        });
        if let Some(place) = served_last {
            session.first = place + 1;
        }
    }

    fn create(&mut self, wanted: Vec<Wanted>, by_id: bool, now: Instant) -> Plan {
        let bytes = SESSION_BYTES + wanted.iter().map(bytes_of).sum::<usize>();
        let room = wanted.iter().all(is_kept) && self.make_room(bytes, now);
        if !room {
            self.refused += 1;
            return Plan { wanted, session: None, full: true };
        }
        let id = self.free_id();
        let mut session = FetchSession {
            epoch: 1,
            by_id,
            used: now,
            entries: Vec::with_capacity(wanted.len()),
            places: FxHashMap::default(),
            first: 0,
            bytes: SESSION_BYTES,
        };
        wanted.iter().cloned().for_each(|w| session.put(w));
        session.shrink();
        self.bytes += session.bytes;
        self.sessions.insert(id, session);
        Plan { wanted, session: Some((id, 1)), full: true }
    }

    fn go_on(
        &mut self,
        request: &FetchRequest,
        by_id: bool,
        names: &Names<'_>,
        now: Instant,
    ) -> Result<Plan, ErrorCode> {
        let id = request.session_id;
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.used = now;
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        let before = session.bytes;
        let kept = wanted(request, by_id).all(|w| {
            let kept = is_kept(&w);
            if kept {
                session.put(w);
            }
            kept
        });
        for forgotten in &request.forgotten_topics_data {
            let topic = key(&forgotten.topic, forgotten.topic_id, by_id);
            forgotten.partitions.iter().for_each(|p| session.forget(&topic, *p));
        }
        session.shrink();
        session.resolve(names);
        let bytes = session.bytes;
        self.bytes = self.bytes - before + bytes;
        if !kept || bytes > self.max_bytes / SHARE || self.bytes > self.max_bytes {
            // Its client names everything anew, and is given no session if there is still no room for one.
            self.remove(id);
            self.refused += 1;
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        let Some(session) = self.sessions.get(&id) else { return Err(ErrorCode::FetchSessionIdNotFound) };
        let plan = Plan { wanted: session.in_turn(), session: Some((id, session.epoch)), full: false };
        if plan.wanted.is_empty() {
            self.remove(id);
            return Ok(Plan { session: None, ..plan });
        }
        Ok(plan)
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.bytes -= session.bytes;
        }
    }

    /// Makes room for a session of so many bytes by giving up the one that was not used for longest.
    fn make_room(&mut self, bytes: usize, now: Instant) -> bool {
        if bytes > self.max_bytes / SHARE {
            return false;
        }
        let full = |s: &Self| s.sessions.len() >= s.max || s.bytes + bytes > s.max_bytes;
        if full(self) {
            let oldest = self.sessions.iter().min_by_key(|(_, s)| s.used).map(|(id, s)| (*id, s.used));
            if let Some((id, _)) = oldest.filter(|(_, used)| now - *used >= KEPT) {
                self.remove(id);
            }
        }
        !full(self)
    }

    /// Ids are not secrets: a client that guesses another's gets what it could have asked for.
    fn free_id(&mut self) -> i32 {
        loop {
            self.last_id = if self.last_id == i32::MAX { 1 } else { self.last_id + 1 };
            if !self.sessions.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

impl FetchSession {
    fn put(&mut self, wanted: Wanted) {
        let name = (wanted.topic.clone(), wanted.partition);
        match self.places.get(&name) {
            Some(&place) => {
                let known = &mut self.entries[place].wanted;
                *known = Wanted { known_as: known.known_as.take(), ..wanted };
            }
            None => {
                self.bytes += bytes_of(&wanted);
                self.places.insert(name, self.entries.len());
                self.entries.push(Entry { wanted, told: None });
            }
        }
    }

    /// Learns the names of topics that have come since their ids were named.
    fn resolve(&mut self, names: &Names<'_>) {
        let mut find = Resolve::new(names);
        for entry in &mut self.entries {
            if find.name(&mut entry.wanted) {
                self.bytes += entry.wanted.known_bytes();
            }
        }
    }

    fn forget(&mut self, topic: &TopicKey, partition: i32) {
        if let Some(place) = self.places.remove(&(topic.clone(), partition)) {
            self.bytes -= bytes_of(&self.entries.swap_remove(place).wanted);
            if let Some(moved) = self.entries.get(place) {
                self.places.insert((moved.wanted.topic.clone(), moved.wanted.partition), place);
            }
        }
    }

    /// Gives back memory that it no longer counts.
    fn shrink(&mut self) {
        let kept = self.entries.len();
        if self.entries.capacity() > 2 * kept {
            self.entries.shrink_to_fit();
        }
        // Of a table, seven eighths of a power of two can be filled.
        if self.places.capacity() > 4 * kept {
            self.places.shrink_to_fit();
        }
    }

    fn in_turn(&self) -> Vec<Wanted> {
        let first = self.first % self.entries.len().max(1);
        let (head, tail) = self.entries.split_at(first);
        tail.iter().chain(head).map(|e| e.wanted.clone()).collect()
    }
}

impl Entry {
    /// Notes what the client is told; says whether any of it is new to it.
    fn tell(&mut self, answer: &PartitionData) -> bool {
        if answer.error_code != 0 {
            // Tell it again once it is over.
            self.told = None;
            return true;
        }
        let now = Told {
            high_watermark: answer.high_watermark,
            last_stable: answer.last_stable_offset,
            log_start: answer.log_start_offset,
        };
        self.told.replace(now) != Some(now)
    }
}

/// What a session takes beside its partitions, about.
const SESSION_BYTES: usize = 512;

/// What a session takes for a partition: its place in a list that grows by doubling, and in a table of which a good half is filled. What the
/// allocator has beside that, and who shares the names, comes to a quarter more, as measured.
fn bytes_of(wanted: &Wanted) -> usize {
    let entry = 2 * (size_of::<Entry>() + size_of::<((TopicKey, i32), usize)>());
    let bytes = entry + wanted.topic.name_bytes() + wanted.known_bytes();
    bytes + bytes / 4
}

/// Whether a topic may have this name. One that none can have is told so, and not remembered.
fn is_kept(wanted: &Wanted) -> bool {
    wanted.topic.name_bytes() <= LONGEST_SHOWN
}

fn key(name: &Str, id: Uuid, by_id: bool) -> TopicKey {
    // Copied: the name must not hold the request's frame.
    if by_id { TopicKey::Id(id) } else { TopicKey::Name(name.detached()) }
}

fn wanted(request: &FetchRequest, by_id: bool) -> impl Iterator<Item = Wanted> {
    request.topics.iter().flat_map(move |topic| {
        let topic_key = key(&topic.topic, topic.topic_id, by_id);
        topic.partitions.iter().map(move |p| Wanted {
            topic: topic_key.clone(),
            known_as: None,
            partition: p.partition,
            fetch_offset: p.fetch_offset,
            leader_epoch: p.current_leader_epoch,
            last_fetched_epoch: p.last_fetched_epoch,
            max_bytes: p.partition_max_bytes,
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::messages::fetch::{FetchPartition, FetchTopic, ForgottenTopic};

    fn topics(partitions: &[i32]) -> Vec<FetchTopic> {
        let partition = |&partition: &i32| FetchPartition { partition, ..Default::default() };
        vec![FetchTopic {
            topic: "t".into(),
            partitions: partitions.iter().map(partition).collect(),
            ..Default::default()
        }]
    }

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> FetchRequest {
        FetchRequest { session_id, session_epoch, topics: topics(partitions), ..Default::default() }
    }

    fn forgetting(session_id: i32, session_epoch: i32, partitions: &[i32]) -> FetchRequest {
        let forgotten =
            ForgottenTopic { topic: "t".into(), partitions: partitions.to_vec(), ..Default::default() };
        FetchRequest {
            session_id,
            session_epoch,
            forgotten_topics_data: vec![forgotten],
            ..Default::default()
        }
    }

    fn unnamed(_: Uuid) -> Option<Arc<str>> {
        None
    }

    fn read(plan: &Plan) -> Vec<i32> {
        plan.wanted.iter().map(|w| w.partition).collect()
    }

    fn answer(high_watermark: i64, records: &'static [u8]) -> PartitionData {
        PartitionData {
            high_watermark,
            records: Some(Bytes::from_static(records).into()),
            ..Default::default()
        }
    }

    /// Ends a fetch with these answers; gives the partitions that are sent.
    fn end(sessions: &mut FetchSessions, plan: &Plan, answers: Vec<PartitionData>) -> Vec<i32> {
        let mut answers = answers.into_iter().enumerate().collect();
        sessions.end(plan, &mut answers);
        answers.iter().map(|(at, _)| plan.wanted[*at].partition).collect()
    }

    #[test]
    fn what_is_forgotten_takes_no_memory() {
        let (mut sessions, now) = (FetchSessions::new(10, 64 << 20), Instant::now());
        let all: Vec<i32> = (0..20_000).collect();
        let id = sessions.begin(&request(0, 0, &all), 12, &unnamed, now).expect("new").session_id();
        sessions.begin(&forgetting(id, 1, &all[1..]), 12, &unnamed, now).expect("goes on");
        let session = &sessions.sessions[&id];
        assert!(session.entries.capacity() <= 4 && session.places.capacity() <= 8);
        assert_eq!(sessions.stats().bytes, session.bytes);
        sessions.begin(&request(id, 2, &all[..100]), 12, &unnamed, now).expect("grows again");
        assert_eq!(sessions.stats().partitions, 100);
    }

    #[test]
    fn only_news_is_sent() {
        let (mut sessions, now) = (FetchSessions::new(10, 1 << 20), Instant::now());
        let plan = sessions.begin(&request(0, 0, &[1, 2, 3]), 12, &unnamed, now).expect("new");
        let id = plan.session_id();
        assert_ne!(id, 0);
        assert_eq!(read(&plan), [1, 2, 3]);
        assert_eq!(
            end(&mut sessions, &plan, vec![answer(5, b""), answer(5, b"x"), answer(5, b"")]),
            [1, 2, 3]
        );

        // Partition 2 had records, so the one behind it has its turn first.
        let plan = sessions.begin(&request(id, 1, &[]), 12, &unnamed, now).expect("goes on");
        assert_eq!(read(&plan), [3, 1, 2]);
        assert_eq!(end(&mut sessions, &plan, vec![answer(5, b""), answer(6, b""), answer(5, b"y")]), [1, 2]);

        let failed = PartitionData { error_code: 6, ..answer(-1, b"") };
        let plan = sessions.begin(&request(id, 2, &[]), 12, &unnamed, now).expect("goes on");
        assert_eq!(end(&mut sessions, &plan, vec![failed, answer(6, b""), answer(5, b"")]), [3]);
        let plan = sessions.begin(&request(id, 3, &[]), 12, &unnamed, now).expect("goes on");
        assert_eq!(end(&mut sessions, &plan, vec![answer(5, b""), answer(6, b""), answer(5, b"")]), [3]);
    }

    #[test]
    fn partitions_come_and_go() {
        let (mut sessions, now) = (FetchSessions::new(10, 1 << 20), Instant::now());
        let id = sessions.begin(&request(0, 0, &[1, 2, 3]), 12, &unnamed, now).expect("new").session_id();
        let plan = sessions.begin(&forgetting(id, 1, &[1]), 12, &unnamed, now).expect("goes on");
        assert_eq!(read(&plan), [3, 2]);
        let plan = sessions.begin(&request(id, 2, &[9, 2]), 12, &unnamed, now).expect("goes on");
        assert_eq!(read(&plan), [3, 2, 9]);
        assert_eq!(sessions.stats().partitions, 3);
        let plan = sessions.begin(&forgetting(id, 3, &[2, 3, 9, 7]), 12, &unnamed, now).expect("ends");
        assert_eq!((plan.session_id(), sessions.stats().partitions), (0, 0));
        let gone = sessions.begin(&request(id, 4, &[1]), 12, &unnamed, now).expect_err("gone");
        assert_eq!(gone, ErrorCode::FetchSessionIdNotFound);
    }

    #[test]
    fn a_partition_named_several_times_is_read_once_and_as_it_was_named_last() {
        let (mut sessions, now) = (FetchSessions::new(10, 1 << 20), Instant::now());
        for epoch in [FINAL_EPOCH, INITIAL_EPOCH] {
            let mut request = request(0, epoch, &[4, 1, 4, 2, 1]);
            for (at, partition) in request.topics[0].partitions.iter_mut().enumerate() {
                partition.fetch_offset = at as i64;
            }
            let plan = sessions.begin(&request, 12, &unnamed, now).expect("read");
            let offsets: Vec<_> = plan.wanted.iter().map(|w| w.fetch_offset).collect();
            assert_eq!((read(&plan), offsets), (vec![4, 1, 2], vec![2, 4, 3]));
        }
    }

    #[test]
    fn a_session_may_begin_with_no_partition() {
        let (mut sessions, now) = (FetchSessions::new(10, 1 << 20), Instant::now());
        let id = sessions.begin(&request(0, 0, &[]), 12, &unnamed, now).expect("new").session_id();
        let plan = sessions.begin(&request(id, 1, &[7]), 12, &unnamed, now).expect("goes on");
        assert_eq!((id, plan.session_id(), read(&plan)), (1, 1, vec![7]));
    }

    #[test]
    fn epochs_and_ids_must_fit() {
        let (mut sessions, now) = (FetchSessions::new(10, 1 << 20), Instant::now());
        let id = sessions.begin(&request(0, 0, &[1]), 12, &unnamed, now).expect("new").session_id();
        let refused = |r: Result<Plan, ErrorCode>| r.expect_err("refused");
        let unknown = refused(sessions.begin(&request(id + 1, 1, &[]), 12, &unnamed, now));
        assert_eq!(unknown, ErrorCode::FetchSessionIdNotFound);
        let early = refused(sessions.begin(&request(id, 2, &[]), 12, &unnamed, now));
        assert_eq!(early, ErrorCode::InvalidFetchSessionEpoch);
        let by_id = refused(sessions.begin(&request(id, 1, &[]), 13, &unnamed, now));
        assert_eq!(by_id, ErrorCode::FetchSessionTopicIdError);
        let last = sessions.begin(&request(id, -1, &[1]), 12, &unnamed, now).expect("without a session");
        assert_eq!((last.session_id(), read(&last)), (0, vec![1]));
        assert!(sessions.sessions.is_empty());
    }

    fn named(session_id: i32, session_epoch: i32, name: &str) -> FetchRequest {
        let mut request = request(session_id, session_epoch, &[1]);
        request.topics[0].topic = name.into();
        request
    }

    #[test]
    fn names_that_no_topic_can_have_are_not_remembered() {
        let (mut sessions, now) = (FetchSessions::new(10, 1 << 20), Instant::now());
        let (longest, longer) = ("x".repeat(LONGEST_SHOWN), "x".repeat(LONGEST_SHOWN + 1));
        for _ in 0..30 {
            let plan =
                sessions.begin(&named(0, 0, &longer), 12, &unnamed, now).expect("it is read all the same");
            assert_eq!((plan.session_id(), read(&plan)), (0, vec![1]));
        }
        assert_eq!(sessions.stats(), SessionStats { sessions: 0, partitions: 0, bytes: 0, refused: 30 });
        let id = sessions.begin(&named(0, 0, &longest), 12, &unnamed, now).expect("new").session_id();
        assert_ne!(id, 0);
        let ended =
            sessions.begin(&named(id, 1, &longer), 12, &unnamed, now).expect_err("it ends the session");
        assert_eq!(ended, ErrorCode::FetchSessionIdNotFound);
        assert_eq!((sessions.stats().sessions, sessions.stats().bytes), (0, 0));
    }

    #[test]
    fn what_sessions_hold_is_counted_and_given_back() {
        let (mut sessions, now) = (FetchSessions::new(100, 64 << 10), Instant::now());
        let few: Vec<i32> = (0..10).collect();
        let id = sessions.begin(&request(0, 0, &few), 12, &unnamed, now).expect("new").session_id();
        let bytes = sessions.stats().bytes;
        assert!(bytes > SESSION_BYTES + 10 * (size_of::<Entry>() + "t".len()));
        // Naming it again costs nothing; what is forgotten is given back.
        sessions.begin(&request(id, 1, &few), 12, &unnamed, now).expect("goes on");
        assert_eq!(sessions.stats().bytes, bytes);
        sessions.begin(&forgetting(id, 2, &few[1..]), 12, &unnamed, now).expect("goes on");
        assert_eq!(sessions.stats().bytes, SESSION_BYTES + (bytes - SESSION_BYTES) / 10);
        // One takes a quarter at most, whether it begins so or grows.
        let many: Vec<i32> = (0..100).collect();
        assert_eq!(sessions.begin(&request(0, 0, &many), 12, &unnamed, now).expect("read").session_id(), 0);
        let grown = sessions.begin(&request(id, 3, &many), 12, &unnamed, now).expect_err("too large");
        assert_eq!((grown, sessions.stats().bytes), (ErrorCode::FetchSessionIdNotFound, 0));
        // All of them together take what they may, and idle ones give way.
        let mut open =
            |at| sessions.begin(&request(0, 0, &few), 12, &unnamed, at).expect("read").session_id();
        let opened = (0..30).filter(|_| open(now) != 0).count();
        assert!((5..30).contains(&opened), "{opened}");
        assert_ne!(open(now + KEPT), 0);
        assert!(sessions.stats().bytes <= 64 << 10);
        sessions.clear();
        assert_eq!((sessions.stats().sessions, sessions.stats().bytes), (0, 0));
    }

    #[test]
    fn there_are_only_so_many_sessions() {
        let (mut sessions, now) = (FetchSessions::new(2, 1 << 20), Instant::now());
        let mut open =
            |at| sessions.begin(&request(0, 0, &[1]), 12, &unnamed, at).expect("read anyway").session_id();
        assert_eq!((open(now), open(now + KEPT / 2), open(now + KEPT / 2)), (1, 2, 0));
        assert_eq!(open(now + KEPT), 3);
        let gone = sessions.begin(&request(1, 1, &[]), 12, &unnamed, now + KEPT).expect_err("given up");
        assert_eq!(gone, ErrorCode::FetchSessionIdNotFound);
    }

    #[test]
    fn an_answer_to_a_session_begun_anew_changes_nothing_in_it() {
        let (mut sessions, now) = (FetchSessions::new(10, 1 << 20), Instant::now());
        let plan = sessions.begin(&request(0, 0, &[1]), 12, &unnamed, now).expect("new");
        sessions.begin(&request(plan.session_id(), 1, &[2]), 12, &unnamed, now).expect("goes on");
        assert_eq!(end(&mut sessions, &plan, vec![answer(5, b"")]), [1]);
        let next = sessions.begin(&request(plan.session_id(), 2, &[]), 12, &unnamed, now).expect("goes on");
        assert_eq!(end(&mut sessions, &next, vec![answer(5, b""), answer(5, b"")]), [1, 2]);
    }

    fn by_id(session_id: i32, session_epoch: i32, ids: &[u8]) -> FetchRequest {
        let topic = |&id: &u8| FetchTopic {
            topic_id: [id; 16],
            partitions: vec![FetchPartition::default()],
            ..Default::default()
        };
        let topics = ids.iter().map(topic).collect();
        FetchRequest { session_id, session_epoch, topics, ..Default::default() }
    }

    fn known(plan: &Plan) -> Vec<Option<&str>> {
        plan.wanted.iter().map(|w| w.known_as.as_deref()).collect()
    }

    #[test]
    fn a_session_remembers_what_a_topic_was_called() {
        let (mut sessions, now) = (FetchSessions::new(10, 1 << 20), Instant::now());
        let both = |id: Uuid| Some(Arc::from(if id[0] == 1 { "a" } else { "bcd" }));
        let only_a = |id: Uuid| (id[0] == 1).then(|| Arc::from("a"));
        let plan = sessions.begin(&by_id(0, 0, &[1, 2]), 13, &only_a, now).expect("new");
        assert_eq!(known(&plan), [Some("a"), None]);
        let (id, bytes) = (plan.session_id(), sessions.stats().bytes);
        // The second one comes, and both go again.
        let plan = sessions.begin(&by_id(id, 1, &[]), 13, &both, now).expect("goes on");
        assert_eq!((known(&plan), sessions.stats().bytes), (vec![Some("a"), Some("bcd")], bytes + 3));
        let plan = sessions.begin(&by_id(id, 2, &[2]), 13, &unnamed, now).expect("goes on");
        assert_eq!((known(&plan), sessions.stats().bytes), (vec![Some("a"), Some("bcd")], bytes + 3));
        let plan = sessions.begin(&by_id(0, 0, &[1, 2]), 13, &unnamed, now).expect("a new one");
        assert_eq!(known(&plan), [None, None]);
    }
}
