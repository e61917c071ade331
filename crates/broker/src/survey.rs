//! What a start finds of the shards before it opens any: whether they belong together, and whether all are there.
//!
//! Every shard's slot says which cluster it is of, its number, how many there are, and two starts: the last one that it has *entered*,
//! and the last one that is known to have been entered by every shard. Each start takes the next number; nothing is served before
//! every shard has entered it and every shard says so. So whatever the crash, a shard whose last entered start is below one that
//! another shard calls complete is an older copy; and a shard may be made anew only while no start was ever complete. Within a run
//! slots say how far other shards were durable: one that ends before that is an older copy, too. A data directory is made only where nothing
//! is: the directory itself says that it was made, too, for its shards may all be on file systems that are not mounted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sabir_journal::{JournalFound, ShardIdentity, StartId};
use sabir_model::{Sequence, ShardId};

use crate::directory::DirectoryIdentity;

/// Why the shards of a data directory cannot be started together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardsError {
    /// A shard's folder is not there, or is empty.
    #[error(
        "the folder of shard {missing} is missing or empty, though the data directory has {data_shards} data shards and a catalog: \
         is its file system mounted? Nothing was made in its place"
    )]
    Missing {
        /// Which one.
        missing: ShardId,
        /// How many data shards the directory was made with.
        data_shards: u32,
    },
    /// The catalog's shard is not there, or has never held anything, while others do.
    #[error(
        "shard 0, which holds the catalog, is missing or empty, though shard {witness} is there: is its file system mounted? Nothing was \
         made in its place"
    )]
    NoCatalog {
        /// A shard that is there.
        witness: ShardId,
    },
    /// The data directory was made, and no shard is there.
    #[error(
        "the data directory was made with {data_shards} data shards, as its file `identity` says, and no shard is there: are their file \
         systems mounted? Nothing was made in their place. To make a new data directory here, remove that file"
    )]
    NoShards {
        /// How many data shards the directory was made with.
        data_shards: u32,
    },
    /// No shard is there, but something that no start leaves which makes a new data directory.
    #[error(
        "{path} is there, and no shard is: is the file system of a shard not mounted? No shard was made. For a new data directory remove it; \
         a shard that is to have a file system of its own is moved there after the first start"
    )]
    Unexpected {
        /// The folder of a shard, or what is in it.
        path: PathBuf,
    },
    /// The shards are not those of which the data directory says that they were made.
    #[error(
        "the shards are of another data directory: they say {found}, where the file `identity` beside them says {expected}. Put back the \
         shards that belong here, or remove that file to take these"
    )]
    OfAnother {
        /// The cluster and number of data shards that the shards say.
        found: String,
        /// Those that the directory says.
        expected: String,
    },
    /// The folder of one shard holds another.
    #[error(
        "the folder of shard {folder} holds shard {holds}: folders, or their files `journal/slots`, were swapped or copied"
    )]
    Swapped {
        /// The folder's number.
        folder: ShardId,
        /// The number that its journal was made with.
        holds: ShardId,
    },
    /// A shard of another data directory.
    #[error(
        "shard {shard} is of another data directory: its file `journal/slots` says {found}, where that of shard 0 says {expected}. Put back the \
         shard that belongs here, or that file, if it alone was replaced"
    )]
    Foreign {
        /// Which one.
        shard: ShardId,
        /// Its cluster and number of data shards.
        found: String,
        /// Those of the catalog's shard.
        expected: String,
    },
    /// A shard that has not seen a start which others have completed.
    #[error(
        "shard {shard} is an older copy: by its file `journal/slots` it last took part in start {entered} of the data directory, and shard \
         {witness} was there at start {completed}. Put back the copy that belongs to the others, or that file, if it alone was replaced"
    )]
    Older {
        /// Which one.
        shard: ShardId,
        /// The last start it entered.
        entered: u64,
        /// A shard that knows of a later one.
        witness: ShardId,
        /// The start that every shard entered.
        completed: u64,
    },
    /// A shard that took part in another start of the same number.
    #[error(
        "shard {shard} and shard {witness} both took part in start {run} of the data directory, as their files `journal/slots` say, but not in \
         the same one: a copy of the whole directory was started by itself, and one of the two is of the copy. Put back the one that belongs \
         to the others, or its file, if that alone was replaced"
    )]
    Forked {
        /// Which one.
        shard: ShardId,
        /// A shard that was in the other start.
        witness: ShardId,
        /// The number of both starts.
        run: u64,
    },
    /// A shard that ends before what another one knows of it.
    #[error(
        "shard {shard} is an older copy, or has lost its end: it ends at block {end}, and shard {witness} knows that it had {known}. Put \
         back the copy that belongs to the others"
    )]
    Behind {
        /// Which one.
        shard: ShardId,
        /// Its last block.
        end: Sequence,
        /// A shard that knows of a later one.
        witness: ShardId,
        /// A block that it had, durable.
        known: Sequence,
    },
    /// A partition that the catalog never made.
    #[error(
        "shard {shard} holds partition {partition}, which the catalog in shard 0 never made: shard 0 is an older copy, or not the one that \
         belongs here. Nothing was deleted"
    )]
    UnknownPartition {
        /// Where it is.
        shard: ShardId,
        /// Its id.
        partition: u64,
    },
    /// A partition lies in a shard where the catalog has not put it.
    #[error(
        "shard {shard} holds partition {partition}, which the catalog has in shard {home}: folders were swapped or copied"
    )]
    MisplacedPartition {
        /// Where it is.
        shard: ShardId,
        /// Its id.
        partition: u64,
        /// Where it belongs.
        home: ShardId,
    },
}

/// The shards' folders that are there, each with what its journal says; `None` for one without a journal.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) found: BTreeMap<ShardId, Option<JournalFound>>,
    /// What the data directory itself says; `None` before it was made, and where a version made it that did not write it down.
    pub(crate) identity: Option<DirectoryIdentity>,
    /// What no start leaves that ended before it had made a journal.
    pub(crate) unexpected: Option<PathBuf>,
}

impl Survey {
    /// Those with a journal.
    fn journals(&self) -> impl Iterator<Item = (ShardId, &JournalFound)> {
        self.found.iter().filter_map(|(shard, found)| Some((*shard, found.as_ref()?)))
    }

    /// Whether no shard has a journal: a new data directory.
    pub(crate) fn is_new(&self) -> bool {
        self.journals().next().is_none()
    }

    /// What shard 0 says of the data directory, if it was written down.
    pub(crate) fn catalog(&self) -> Option<ShardIdentity> {
        self.found.get(&ShardId::CATALOG)?.as_ref()?.identity
    }

    /// The number of the start that is to begin.
    pub(crate) fn next_run(&self) -> u64 {
        1 + self.journals().map(|(_, found)| found.run).max().unwrap_or(0)
    }

    /// Checks what can be told before the catalog is read.
    pub(crate) fn check(&self) -> Result<(), ShardsError> {
        if self.is_new() {
            return self.check_new();
        }
        if let Some((witness, _)) = self.journals().next()
            && witness != ShardId::CATALOG
        {
            return Err(ShardsError::NoCatalog { witness });
        }
        for (folder, found) in self.journals() {
            self.check_identity(folder, found)?;
        }
        self.check_directory()?;
        self.check_runs()?;
        self.check_starts()
    }

    /// Checks that a data directory may be made: only where nothing is.
    fn check_new(&self) -> Result<(), ShardsError> {
        match (self.identity, &self.unexpected) {
            (Some(DirectoryIdentity { data_shards, .. }), _) => Err(ShardsError::NoShards { data_shards }),
            (None, Some(path)) => Err(ShardsError::Unexpected { path: path.clone() }),
            (None, None) => Ok(()),
        }
    }

    /// Checks that the shards are those that the data directory was made with.
    fn check_directory(&self) -> Result<(), ShardsError> {
        let (Some(directory), Some(shards)) = (self.identity, self.catalog()) else { return Ok(()) };
        let (of_shards, of_directory) =
            ((shards.cluster, shards.data_shards), (directory.cluster, directory.data_shards));
        if of_shards == of_directory {
            return Ok(());
        }
        let (found, expected) = (describe(of_shards), describe(of_directory));
        Err(ShardsError::OfAnother { found, expected })
    }

    /// Checks that starts of one number are one start. What entered it with an older version has no id, and is taken as it is.
    fn check_starts(&self) -> Result<(), ShardsError> {
        let mut starts: BTreeMap<u64, (ShardId, StartId)> = BTreeMap::new();
        for (shard, found) in self.journals() {
            let Some(start) = found.start else { continue };
            let &mut (witness, first) = starts.entry(found.run).or_insert((shard, start));
            if first != start {
                return Err(ShardsError::Forked { shard, witness, run: found.run });
            }
        }
        Ok(())
    }

    fn check_identity(&self, folder: ShardId, found: &JournalFound) -> Result<(), ShardsError> {
        let Some(says) = found.identity else { return Ok(()) };
        if let Some(catalog) = self.catalog()
            && (catalog.cluster, catalog.data_shards) != (says.cluster, says.data_shards)
        {
            let found = describe((says.cluster, says.data_shards));
            let expected = describe((catalog.cluster, catalog.data_shards));
            return Err(ShardsError::Foreign { shard: folder, found, expected });
        }
        if says.shard == folder { Ok(()) } else { Err(ShardsError::Swapped { folder, holds: says.shard }) }
    }

    fn check_runs(&self) -> Result<(), ShardsError> {
        let latest = self.journals().max_by_key(|(_, found)| found.confirmed_run);
        let Some((witness, completed)) = latest.map(|(shard, found)| (shard, found.confirmed_run)) else {
            return Ok(());
        };
        match self.journals().find(|(_, found)| found.run < completed) {
            Some((shard, found)) => Err(ShardsError::Older { shard, entered: found.run, witness, completed }),
            None => Ok(()),
        }
    }

    /// Checks that no shard ends before what another one says of it; once they are recovered, for the slot of the one that wrote
    /// last knows more of the others than theirs.
    pub(crate) fn check_ends(&self, end_of: impl Fn(ShardId) -> Option<Sequence>) -> Result<(), ShardsError> {
        for (witness, found) in self.journals() {
            for &(shard, known) in &found.notes.ends {
                let Some(end) = end_of(shard).filter(|end| *end < known) else { continue };
                return Err(ShardsError::Behind { shard, end, witness, known });
            }
        }
        Ok(())
    }

    /// Checks that all shards are there, once the catalog has said how many; `made` if they were ever complete.
    pub(crate) fn check_complete(&self, data_shards: u32, made: bool) -> Result<(), ShardsError> {
        let has = |shard| self.found.get(&shard).is_some_and(Option::is_some);
        if !made {
            // The making of the directory was interrupted: what there is of the others can hold nothing yet.
            return match self.journals().find(|(shard, found)| *shard != ShardId::CATALOG && found.begun) {
                Some((witness, found)) if found.confirmed_run > 0 || found.identity.is_none() => {
                    Err(ShardsError::NoCatalog { witness })
                }
                _ => Ok(()),
            };
        }
        let missing = (1..=data_shards).map(ShardId).find(|shard| !has(*shard));
        missing.map_or(Ok(()), |missing| Err(ShardsError::Missing { missing, data_shards }))
    }
}

fn describe((cluster, data_shards): ([u8; 16], u32)) -> String {
    let cluster: String = cluster.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("cluster {cluster} with {data_shards} data shards")
}

#[cfg(test)]
mod tests {
    use sabir_journal::SlotNotes;

    use super::*;

    const CLUSTER: [u8; 16] = [7; 16];

    fn found(shard: u32, run: u64, confirmed_run: u64) -> Option<JournalFound> {
        let identity = Some(ShardIdentity { cluster: CLUSTER, shard: ShardId(shard), data_shards: 2 });
        Some(JournalFound {
            journal: 1,
            identity,
            run,
            start: None,
            confirmed_run,
            begun: true,
            notes: SlotNotes::default(),
        })
    }

    fn survey(shards: [Option<JournalFound>; 3]) -> Survey {
        Survey { found: (0..).map(ShardId).zip(shards).collect(), ..Survey::default() }
    }

    #[test]
    fn shards_that_belong_together_may_start() {
        for (runs, next) in
            [([(5, 5), (5, 5), (5, 5)], 6), ([(6, 5), (5, 5), (5, 5)], 7), ([(7, 6), (6, 5), (6, 6)], 8)]
        {
            let mut shard = 0;
            let all = survey(runs.map(|(run, confirmed)| {
                shard += 1;
                found(shard - 1, run, confirmed)
            }));
            assert_eq!(all.check(), Ok(()), "{runs:?}");
            assert_eq!(all.check_complete(2, true), Ok(()));
            assert_eq!(all.next_run(), next);
        }
        assert!(survey([None, None, None]).is_new());
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = survey([found(0, 5, 5), found(1, 5, 5), None]);
        assert_eq!(without.check(), Ok(()), "how many there are, the catalog says");
        let missing = ShardsError::Missing { missing: ShardId(2), data_shards: 2 };
        assert_eq!(without.check_complete(2, true), Err(missing));
        let no_catalog = survey([None, found(1, 5, 5), found(2, 5, 5)]);
        assert_eq!(no_catalog.check(), Err(ShardsError::NoCatalog { witness: ShardId(1) }));
    }

    #[test]
    fn what_was_swapped_or_is_foreign_is_named() {
        let swapped = survey([found(0, 5, 5), found(2, 5, 5), found(1, 5, 5)]);
        let first = ShardsError::Swapped { folder: ShardId(1), holds: ShardId(2) };
        assert_eq!(swapped.check(), Err(first));
        let mut foreign = survey([found(0, 5, 5), found(1, 5, 5), found(2, 5, 5)]);
        let one = foreign.found.get_mut(&ShardId(1)).unwrap().as_mut().unwrap();
        one.identity.as_mut().unwrap().cluster[0] = 8;
        assert!(matches!(foreign.check(), Err(ShardsError::Foreign { shard: ShardId(1), .. })));
    }

    #[test]
    fn an_older_copy_is_named_whichever_shard_it_is_of() {
        for old in 0..3 {
            let mut shards = [found(0, 9, 9), found(1, 9, 9), found(2, 9, 9)];
            shards[old as usize] = found(old, 8, 8);
            let error = survey(shards).check().unwrap_err();
            let ShardsError::Older { shard, entered: 8, completed: 9, .. } = error else { panic!("{error}") };
            assert_eq!(shard, ShardId(old));
        }
    }

    #[test]
    fn two_starts_of_one_number_are_told_apart() {
        let with = |starts: [u8; 3], runs: [u64; 3]| {
            let mut shards = [found(0, runs[0], 4), found(1, runs[1], 4), found(2, runs[2], 4)];
            for (shard, start) in shards.iter_mut().flatten().zip(starts) {
                shard.start = (start > 0).then_some(StartId([start; 16]));
            }
            survey(shards).check()
        };
        let forked =
            |shard, witness| ShardsError::Forked { shard: ShardId(shard), witness: ShardId(witness), run: 5 };
        assert_eq!(with([7, 8, 7], [5, 5, 5]), Err(forked(1, 0)));
        assert_eq!(with([0, 8, 7], [5, 5, 5]), Err(forked(2, 1)));
        for (starts, runs) in
            [([7, 7, 7], [5, 5, 5]), ([0, 7, 0], [5, 5, 5]), ([8, 7, 7], [5, 4, 4]), ([8, 8, 7], [5, 5, 4])]
        {
            assert_eq!(with(starts, runs), Ok(()), "{starts:?} {runs:?}");
        }
    }

    #[test]
    fn a_shard_that_ends_before_what_another_knows_of_it_is_named() {
        let mut shards = survey([found(0, 9, 9), found(1, 9, 9), found(2, 9, 9)]);
        let two = shards.found.get_mut(&ShardId(2)).unwrap().as_mut().unwrap();
        (two.notes.ends[0], two.notes.ends[1]) = ((ShardId(0), Sequence(5)), (ShardId(1), Sequence(7)));
        assert_eq!(shards.check_ends(|_| Some(Sequence(7))), Ok(()));
        let error = shards.check_ends(|shard| Some(Sequence(if shard.0 == 1 { 6 } else { 7 }))).unwrap_err();
        let (shard, witness) = (ShardId(1), ShardId(2));
        assert_eq!(error, ShardsError::Behind { shard, end: Sequence(6), witness, known: Sequence(7) });
    }

    #[test]
    fn an_interrupted_first_start_may_go_on_and_a_lost_catalog_may_not() {
        let begun = survey([found(0, 1, 0), found(1, 1, 0), None]);
        assert_eq!(begun.check(), Ok(()));
        assert_eq!(begun.check_complete(2, false), Ok(()));
        let lost = survey([found(0, 1, 0), found(1, 1, 1), found(2, 1, 1)]);
        assert_eq!(lost.check(), Ok(()));
        assert_eq!(lost.check_complete(2, false), Err(ShardsError::NoCatalog { witness: ShardId(1) }));
    }

    #[test]
    fn shards_of_the_first_form_need_all_the_catalog_lists() {
        let notes = SlotNotes::default();
        let old = |begun| {
            Some(JournalFound {
                journal: 1,
                identity: None,
                run: 0,
                start: None,
                confirmed_run: 0,
                begun,
                notes,
            })
        };
        let all = survey([old(true), old(true), old(true)]);
        assert_eq!((all.check(), all.check_complete(2, true)), (Ok(()), Ok(())));
        assert!(survey([old(true), old(true), None]).check_complete(2, true).is_err());
        assert!(
            survey([old(true), old(true), None]).check_complete(2, false).is_err(),
            "no catalog, but data"
        );
    }
}
