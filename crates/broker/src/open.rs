//! Opening a broker: the lock, the shards, the definitions, and into service.

use std::cell::Cell;
use std::fmt::Display;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use parking_lot::Mutex;
use sabir_base::buf::BufPool;
use sabir_base::clock::Clock;
use sabir_base::node_time::NodeClock;
use sabir_journal::disk::WatchedDisk;
use sabir_journal::pages::stored_entries;
use sabir_journal::{JournalError, JournalOptions, Priority, ShardIdentity, SlotForm, StartId, TailBudget};
use sabir_model::{DEFAULT_NAMESPACE, FrontendNo, ShardFailure, ShardId, TopicId};
use tracing::{info, warn};

use crate::answer::Answer;
use crate::backend::{Backend, Folders, shard_number};
use crate::broker::{Broker, Inner};
use crate::dead_letter::{DeadLetterDriver, RedriveDriver};
use crate::definitions::{self, Definitions};
use crate::directory::DirectoryIdentity;
use crate::disk_watch;
use crate::entry::{Body, DataShardsFixed, ExchangeDeclared, FormatLevelRaised, FrontendRegistered};
use crate::exchange::{Exchanges, PredeclaredExchange};
use crate::front_ends;
use crate::group::{GroupDrivers, GroupShard};
use crate::housekeeper::{Housekeeper, Maintenance};
use crate::level::FormatLevel;
use crate::lock::DataLock;
use crate::mismatch;
use crate::notes;
use crate::options::{BrokerOptions, StartError};
use crate::private;
use crate::projection::ProjectionFactory;
use crate::queue::Queues;
use crate::shard::{OpenError, Parts, Settings, Shard};
use crate::start_keeper::StartKeeper;
use crate::state::{EntryOutcome, prefixes};
use crate::strays;
use crate::timer::{GoneDriver, TimerDriver};
use crate::traffic::TrafficBook;

/// Bytes of block buffers that wait for reuse, at the most.
const POOL_BYTES: usize = 64 << 20;

impl Broker {
    /// Opens the data directory, recovers every shard and leads it. Blocking; returns when reads and writes are taken.
    ///
    /// # Errors
    /// What [`StartError`] lists: the directory is in use, cannot be used, or holds damaged data.
    pub fn open(options: BrokerOptions, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        check_options(&options)?;
        options.progress.enter(&options.data, "taking the data directory's lock");
        refuse_foreign(&options.data)?;
        let lock = take_lock(&options.data)?;
        let backend = Folders::of(&options);
        Self::open_on(options, clock, &backend, Some(lock))
    }

    /// Opens a broker on any ground, with options that were checked.
    pub(crate) fn open_on(
        mut options: BrokerOptions,
        clock: Arc<dyn Clock>,
        backend: &dyn Backend,
        lock: Option<DataLock>,
    ) -> Result<Self, StartError> {
        let clock = Arc::new(NodeClock::new(clock));
        let pool = BufPool::new(POOL_BYTES);
        let tail = TailBudget::new(options.tail_cache_bytes);
        let opener = Opener {
            options: &options,
            clock: &clock,
            backend,
            pool: pool.clone(),
            tail: tail.clone(),
            told_partitions: Cell::new(false),
            began: Instant::now(),
        };
        let (shards, cluster, keeper) = opener.shards()?;
        let began = opener.began;
        options.data_shards = shards.len() as u32 - 1;
        options.progress.enter(&options.data, "announcing the start in every shard");
        take_up_leadership(&shards)?;
        raise_level(&shards, options.format_level)?;
        number_front_ends(&shards[0], &options.front_ends)?;
        let projections = number_projections(&shards[0], &options.projections)?;
        predeclare(&shards[0], &options.exchanges.predeclared)?;
        let definitions = Definitions::new(shards.clone(), TrafficBook::new(options.counted_topics_max));
        shards.iter().for_each(|shard| shard.lead_with(definitions.leading()));
        definitions.take_unsettled();
        definitions.reconcile()?;
        definitions.follow(&options.defaults, options.durability);
        let data_shards = || shards.iter().skip(1);
        let group_shards = data_shards().map(|shard| shard.clone() as Arc<dyn GroupShard>).collect();
        let groups = GroupDrivers::new(group_shards, &options.groups, &(clock.clone() as Arc<dyn Clock>));
        for (shard, driver) in data_shards().zip(groups.each()) {
            shard.lead_with(driver.leading());
        }
        let queues = Queues::new(shards.clone(), definitions.clone());
        let exchanges = Exchanges::new(shards[0].clone(), definitions.clone(), &options.exchanges);
        let timers = TimerDriver::new(
            shards.clone(),
            definitions.clone(),
            exchanges.clone(),
            options.converters.clone(),
            clock.clone(),
        );
        let dead_letters = DeadLetterDriver::new(
            shards.clone(),
            definitions.clone(),
            exchanges.clone(),
            options.converters.clone(),
            clock.clone(),
        );
        let redrives = RedriveDriver::new(dead_letters.clone());
        let maintenance = Maintenance {
            shards: shards.clone(),
            definitions: definitions.clone(),
            groups: groups.clone(),
            delays_gone: GoneDriver::new(timers.clone()),
            timers: timers.clone(),
            dead_letters,
            redrives: redrives.clone(),
            queue_alarm: queues.alarm.clone(),
            clock: clock.clone(),
            retention_interval: options.retention_interval,
            idle_check: options.idle_check,
            producer_expiry: options.producer_expiry,
            partition_producers_max: options.partition_producers_max,
            producers_max: options.producers_max,
            pool,
            began,
        };
        drop(keeper);
        disk_watch::tell_need(&shards);
        take_space(&shards);
        let housekeeper = Housekeeper::start(&maintenance).map_err(|source| StartError::Io {
            op: "start a thread for",
            path: options.data.clone(),
            source,
        })?;
        let inner = Inner {
            options,
            clock,
            cluster,
            shards,
            tail,
            definitions,
            groups,
            queues,
            exchanges,
            redrives,
            timers,
            housekeeper,
            on_the_way: Arc::default(),
            changing: tokio::sync::Mutex::default(),
            producer_ids: Mutex::new((0, 0)),
            projections,
            lock: Mutex::new(lock),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Refuses a folder that holds other files and no shard: they would be mixed with ours. One that is not there is none.
///
/// # Errors
/// [`StartError::NotOurs`].
pub fn refuse_foreign(data: &Path) -> Result<(), StartError> {
    let names = names_in(data);
    if names.iter().any(|name| shard_number(name).is_some()) {
        return Ok(());
    }
    // What a file system puts into its root, what is left of a start that ended before it had made a shard, and what says that shards were made.
    match names.into_iter().find(|name| name != "lost+found" && !strays::is_of_directory(name)) {
        Some(found) => Err(StartError::NotOurs { path: data.to_owned(), found }),
        None => Ok(()),
    }
}

fn take_lock(data: &Path) -> Result<DataLock, StartError> {
    let io = |op| move |source| StartError::Io { op, path: data.to_owned(), source };
    private::make_folder(data).map_err(io("make"))?;
    DataLock::take(data)
}

/// Refuses what can be no broker's options, before anything is made.
fn check_options(options: &BrokerOptions) -> Result<(), StartError> {
    let (shards, partitions) = (options.data_shards, options.partitions_max);
    let (most_shards, most_partitions) = (BrokerOptions::MOST_DATA_SHARDS, BrokerOptions::MOST_PARTITIONS);
    if shards == 0 || shards > most_shards {
        return Err(StartError::Options(format!("{shards} data shards: 1 to {most_shards} can be")));
    }
    if partitions > most_partitions {
        let problem = format!("{partitions} partitions of a topic: there can be {most_partitions}");
        return Err(StartError::Options(problem));
    }
    let defaults = options.defaults.clone().validate(options.durability);
    defaults.map_err(|error| StartError::Options(format!("the defaults of topics: {error}")))?;
    front_ends::check(&options.projections).map_err(StartError::Options)?;
    // A new directory has the newest level; that of another one is known when its catalog is open.
    let is_new = !names_in(&options.data).iter().any(|name| shard_number(name).is_some());
    check_level(options.format_level, if is_new { FormatLevel::NEWEST } else { FormatLevel::OLDEST })
}

/// The names of a folder's entries; of one that is not there, or cannot be read, none.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Refuses a level that this version does not write, and one below that of the data directory.
fn check_level(asked: Option<u32>, has: FormatLevel) -> Result<(), StartError> {
    let Some(asked) = asked else { return Ok(()) };
    let (oldest, newest) = (FormatLevel::OLDEST, FormatLevel::NEWEST);
    let Some(asked) = FormatLevel::written(asked) else {
        let problem = format!("data.format_level: this version writes the levels from {oldest} to {newest}");
        return Err(StartError::Options(problem));
    };
    if asked < has {
        return Err(StartError::Options(format!(
            "the data directory has format level {has}, which cannot go down to {asked}: set data.format_level to \"auto\""
        )));
    }
    Ok(())
}

struct Opener<'a> {
    options: &'a BrokerOptions,
    clock: &'a Arc<NodeClock>,
    backend: &'a dyn Backend,
    pool: Arc<BufPool>,
    tail: Arc<TailBudget>,
    /// Whether it was said that there are more partitions than may be made.
    told_partitions: Cell<bool>,
    /// What the replicators' time counts from.
    began: Instant,
}

impl Opener<'_> {
    /// Opens all shards, those of a new data directory as of an old one, and gives the cluster's id with them, and what sees to them until
    /// the housekeeper does.
    fn shards(&self) -> Result<(Vec<Arc<Shard>>, TopicId, StartKeeper), StartError> {
        self.options.progress.enter(&self.options.data, "looking at its shards");
        let survey = self.backend.survey()?;
        survey.check()?;
        if survey.is_new() {
            info!(
                data = %self.options.data.display(),
                data_shards = self.options.data_shards,
                "making a new data directory; each shard takes space for its journal ahead"
            );
        }
        let catalog = self.shard(ShardId::CATALOG)?;
        self.tell_partitions(catalog.state.read().catalog.topics().map(|topic| topic.partitions.len()).sum());
        let made = catalog.state.read().catalog.made_with();
        let begun = survey.catalog().map(|says| (says.data_shards, TopicId(says.cluster)));
        let (data_shards, cluster) =
            made.or(begun).unwrap_or_else(|| (self.options.data_shards, random_id()));
        survey.check_complete(data_shards, made.is_some())?;
        private::tighten(&self.options.data);
        self.tell_shards(data_shards);
        strays::tell(&self.options.data, data_shards);
        let mut shards = vec![catalog];
        for number in 1..=data_shards {
            shards.push(self.shard(ShardId(number))?);
        }
        self.options.progress.enter(&self.options.data, "writing down that a start began");
        survey.check_ends(|shard| Some(shards.get(shard.0 as usize)?.journal.last()))?;
        // Before anything is written of this start: where it is refused, what it found is as it was.
        definitions::check(&shards)?;
        let level = shards[0].state.read().catalog.level();
        check_level(self.options.format_level, if made.is_some() { level } else { FormatLevel::NEWEST })?;
        self.start_clock(&shards);
        notes::keep(&shards, self.clock);
        write_level(&shards);
        let io =
            |source| StartError::Io { op: "start a thread for", path: self.options.data.clone(), source };
        let keeper = StartKeeper::begin(&shards, self.options.progress.clone(), self.began).map_err(io)?;
        begin_run(&shards, survey.next_run(), data_shards, cluster)?;
        if survey.identity.is_none() {
            let identity = DirectoryIdentity { cluster: cluster.0, data_shards };
            self.backend.write_identity(identity)?;
        }
        Ok((shards, cluster, keeper))
    }

    /// Says if there are not as many data shards as were asked for.
    fn tell_shards(&self, data_shards: u32) {
        let asked = self.options.data_shards;
        match asked == data_shards {
            true => {}
            false if self.options.data_shards_auto => info!(
                data_shards,
                suited = asked,
                "the data directory keeps the number of data shards that it was made with; `auto` would make another one here"
            ),
            false => warn!(
                configured = asked,
                data_shards, "the data directory keeps the number of data shards that it was made with"
            ),
        }
    }

    /// Says, before all of them are loaded, that there are more partitions than may be made. Where the memory is too little for them the
    /// system may end this process without a word.
    fn tell_partitions(&self, held: usize) {
        let most = self.options.partitions_total_max;
        if held > most && !self.told_partitions.replace(true) {
            warn!(
                held,
                most,
                "the data directory holds more partitions than topic.max_total_partitions, which follows the memory unless it is set: they are \
                 loaded, some 3 KiB each where a topic has one, and no more are made. Give the broker more memory if it does not last"
            );
        }
    }

    /// Goes on from what the shards know of the time.
    fn start_clock(&self, shards: &[Arc<Shard>]) {
        let notes: Vec<_> = shards.iter().filter_map(|shard| shard.journal.found().notes.clock).collect();
        if let Some(last) = shards.iter().filter_map(|shard| shard.last_block_ms()).max() {
            self.clock.start(last, &notes);
        }
    }

    fn shard(&self, id: ShardId) -> Result<Arc<Shard>, StartError> {
        let folder = self.options.data.join(format!("shard-{id}"));
        let opened = self.open(id, &folder);
        opened.map_err(|error| mismatch::explain(error, &folder, self.backend).of_shard(id, &folder))
    }

    fn open(&self, id: ShardId, folder: &Path) -> Result<Arc<Shard>, OpenError> {
        let options = self.options;
        let journal = folder.join("journal");
        options.progress.enter(&journal, "opening the journal's folder");
        let disk = WatchedDisk::over(self.backend.disk(id)?);
        options.progress.enter(folder, "opening the shard");
        options.progress.begin("pages.redb", "opening the page store", None);
        let pages = self.backend.pages(id)?;
        options.progress.enter(&journal, "loading the checkpoint");
        if let Some(pages) = pages.as_ref().filter(|_| id == ShardId::CATALOG) {
            // Each has a partition or more.
            let topics = stored_entries(prefixes::TOPICS, &**pages)?;
            self.tell_partitions(usize::try_from(topics).unwrap_or(usize::MAX));
        }
        let parts = Parts {
            disk,
            pages,
            make_pages: &|| self.backend.make_pages(id),
            pool: self.pool.clone(),
            journal: JournalOptions {
                segment_bytes: options.segment_bytes,
                tail: self.tail.clone(),
                keep_free: options.keep_free,
                progress: options.progress.clone(),
                ..JournalOptions::default()
            },
            projections: options.projections.as_slice().into(),
            replicate: &|journal| self.backend.replicator(id, journal),
        };
        let settings = Settings {
            node: options.node_id,
            durability: options.durability,
            open_bytes_max: options.open_bytes_max,
            checkpoint_bytes: options.checkpoint_bytes,
            checkpoint_entries: options.checkpoint_entries,
            segment_bytes: options.segment_bytes,
            keep_free: options.keep_free,
            recycle: options.recycle,
        };
        Shard::open(id, parts, settings, self.clock.clone())
    }
}

/// Has each journal take the space that it needs, before anything else of the disk's is taken.
fn take_space(shards: &[Arc<Shard>]) {
    for shard in shards {
        if let Err(error) = shard.journal.take_space() {
            warn!(shard = %shard.id, %error, "a segment could not be made ready");
        }
    }
}

/// Waits until each shard has applied what earlier leaders committed: before that, what it lacks may still come.
fn take_up_leadership(shards: &[Arc<Shard>]) -> Result<(), StartError> {
    shards.iter().for_each(|shard| shard.take_up());
    for shard in shards {
        if let Err(error) = shard.await_leadership() {
            if shard.is_stopped() {
                let reason =
                    shard.journal.stopped().map_or_else(|| error.to_string(), |stop| stop.to_string());
                return Err(StartError::Shard { shard: shard.id.0, reason: reason.into() });
            }
            warn!(shard = %shard.id, %error, "the start could not be announced");
        }
    }
    Ok(())
}

/// Asks again for as long as what was asked is cut off and this node leads.
fn ask_until_taken<T, E>(shard: &Shard, mut ask: impl FnMut() -> Answer<Result<T, E>>) -> Result<T, E>
where
    Result<T, E>: EntryOutcome,
    E: PartialEq + From<ShardFailure>,
{
    let cut = E::from(ShardFailure::NotLeader);
    loop {
        match block_on(ask()) {
            Err(error) if error == cut && shard.replicator.is_leader() => {}
            done => return done,
        }
    }
}

/// Has every shard write down its identity and that this start began, and the catalog how many there are: then that every shard has.
fn begin_run(shards: &[Arc<Shard>], run: u64, data_shards: u32, cluster: TopicId) -> Result<(), StartError> {
    let failed =
        |shard: &Shard, error: JournalError| StartError::Shard { shard: shard.id.0, reason: error.into() };
    let start = Some(StartId(random_id().0));
    for shard in shards {
        let identity = ShardIdentity { cluster: cluster.0, shard: shard.id, data_shards };
        shard.journal.enter_run(identity, run, start).map_err(|error| failed(shard, error))?;
    }
    fix_shards(shards, data_shards, cluster)?;
    for shard in shards {
        shard.journal.confirm_run().map_err(|error| failed(shard, error))?;
    }
    Ok(())
}

/// Has every shard write down that this run ended in order, as one that it entered after it: a copy of one of them that was taken
/// meanwhile is an older one from then on. It has the id of the run's start.
pub(crate) fn end_run(shards: &[Arc<Shard>]) {
    let found: Vec<_> = shards.iter().map(|shard| (shard, shard.journal.found())).collect();
    let whole = shards.iter().all(|shard| !shard.is_stopped());
    let ended = found.iter().map(|(_, found)| found.run).max().filter(|_| whole).map(|run| run + 1);
    let Some(ended) = ended else { return };
    let entered = found.iter().all(|(shard, found)| {
        found.identity.is_some_and(|identity| shard.journal.enter_run(identity, ended, found.start).is_ok())
    });
    let confirmed = entered && shards.iter().all(|shard| shard.journal.confirm_run().is_ok());
    if !confirmed {
        tracing::warn!("the end of the run could not be written down in every shard");
    }
}

/// Has the catalog say how many data shards there are, and the cluster's id.
fn fix_shards(shards: &[Arc<Shard>], data_shards: u32, cluster: TopicId) -> Result<(), StartError> {
    let catalog = &shards[0];
    if catalog.state.read().catalog.made_with().is_some() {
        return Ok(());
    }
    // Before the number: a directory that has one and no level is an old one.
    ask_catalog(catalog, &FormatLevelRaised { level: FormatLevel::NEWEST })?;
    write_level(shards);
    ask_catalog(catalog, &DataShardsFixed { shards: data_shards, cluster })?;
    let made_with = catalog.state.read().catalog.made_with();
    let reason = "the number of data shards was not recorded".into();
    made_with.map(drop).ok_or(StartError::Shard { shard: 0, reason })
}

fn ask_catalog<T, E>(catalog: &Shard, body: &impl Body<Outcome = Result<T, E>>) -> Result<T, StartError>
where
    Result<T, E>: EntryOutcome,
    E: PartialEq + From<ShardFailure> + Display,
{
    let done = ask_until_taken(catalog, || catalog.ask(Priority::Ordinary, body));
    done.map_err(|error| StartError::Shard { shard: 0, reason: error.to_string().into() })
}

/// Raises the format level, if a higher one is asked for.
fn raise_level(shards: &[Arc<Shard>], asked: Option<u32>) -> Result<(), StartError> {
    let level = shards[0].state.read().catalog.level();
    let (oldest, newest) = (FormatLevel::OLDEST, FormatLevel::NEWEST);
    // One that cannot be was refused before anything was written.
    let asked = asked.and_then(FormatLevel::written).unwrap_or(oldest).max(level);
    if asked > level {
        ask_catalog(&shards[0], &FormatLevelRaised { level: asked })?;
        info!(from = %level, to = %asked, "the format level of the data directory was raised: older versions do not open it any more");
    }
    if asked < newest {
        warn!(
            level = %asked,
            %newest,
            "the data directory keeps to the forms of an older version, which still opens it; data.format_level raises it"
        );
    }
    write_level(shards);
    Ok(())
}

/// Has the catalog number the front ends' projections, if the format level lets them have entries.
fn number_projections(
    catalog: &Shard,
    factories: &[ProjectionFactory],
) -> Result<Vec<(FrontendNo, &'static str)>, StartError> {
    let names: Vec<_> = factories.iter().map(|factory| factory.name).collect();
    number_front_ends(catalog, &names)
}

/// Has the catalog number front ends, if the format level lets them have anything of their own.
fn number_front_ends(
    catalog: &Shard,
    names: &[&'static str],
) -> Result<Vec<(FrontendNo, &'static str)>, StartError> {
    let known = |name: &str| catalog.state.read().catalog.front_end(name);
    if catalog.state.read().catalog.level() < FormatLevel::FRONT_ENDS {
        return Ok(Vec::new());
    }
    let mut numbered = Vec::new();
    for &name in names {
        if known(name).is_none() {
            ask_catalog(catalog, &FrontendRegistered { name: name.to_owned() })?;
        }
        numbered.extend(known(name).map(|number| (number, name)));
    }
    Ok(numbered)
}

/// Has the catalog have the exchanges of front ends in the default namespace, if the format level lets it have any. One that is there with
/// other settings stays as it is.
fn predeclare(catalog: &Shard, exchanges: &[PredeclaredExchange]) -> Result<(), StartError> {
    if catalog.state.read().catalog.level() < FormatLevel::QUEUES {
        return Ok(());
    }
    for PredeclaredExchange { name, by, spec } in exchanges {
        let there = catalog.state.read().exchanges.spec(DEFAULT_NAMESPACE, name).is_some();
        if !there {
            let made_by =
                number_front_ends(catalog, &[by])?.first().map_or(FrontendNo::NONE, |(number, _)| *number);
            let (namespace, name) = (DEFAULT_NAMESPACE.to_owned(), (*name).to_owned());
            ask_catalog(catalog, &ExchangeDeclared { namespace, name, made_by, spec: spec.clone() })?;
        }
    }
    Ok(())
}

/// Has all shards write the forms of the catalog's level.
fn write_level(shards: &[Arc<Shard>]) {
    let level = shards[0].state.read().catalog.level();
    for shard in shards {
        shard.write_level(level);
        if let Some(form) = slot_form(level) {
            shard.journal.raise_slot(form);
        }
    }
}

/// The newest form that slots may have.
fn slot_form(level: FormatLevel) -> Option<SlotForm> {
    match level {
        level if level >= FormatLevel::QUEUES => Some(SlotForm::Start),
        level if level >= FormatLevel::FRONT_ENDS => Some(SlotForm::Ages),
        level if level >= FormatLevel::LISTED => Some(SlotForm::Notes),
        _ => None,
    }
}

/// A random UUID of version 4.
pub(crate) fn random_id() -> TopicId {
    let mut id = [0; 16];
    let seeds = std::array::from_fn::<_, 2, _>(|_| random_u64().to_le_bytes());
    id.copy_from_slice(seeds.as_flattened());
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    TopicId(id)
}

/// The standard library seeds its hash maps from the system's randomness.
fn random_u64() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::Instant::now())
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread until that moment; none if it takes longer.
pub(crate) fn block_on_until<T>(future: impl Future<Output = T>, until: Instant) -> Option<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return Some(value);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

/// Waits for a future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        std::thread::park();
    }
}
