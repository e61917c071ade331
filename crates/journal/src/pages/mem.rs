//! A page store in memory, for tests and simulation.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::{PageBatch, PageError, PageStore, PageTransaction, Visit, ended};

type Pages = BTreeMap<Vec<u8>, Vec<u8>>;

/// How a commit goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// Nothing of it was done.
    NotDone,
    /// All of it was done, and yet it answers an error.
    Done,
    /// There was no space.
    Full,
}

/// How a page cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageFault {
    /// The disk does not give it.
    Io,
    /// It is not what was written.
    Corrupt,
}

/// Pages in memory. What a commit put there stays; what was being committed at a crash is there as a whole or not at all.
#[derive(Debug, Default)]
pub struct MemPages {
    committed: Mutex<Arc<Pages>>,
    faults: Mutex<Vec<CommitFault>>,
    unreadable: Mutex<BTreeMap<Vec<u8>, PageFault>>,
    /// Held by the transaction that is open.
    open: Mutex<()>,
}

/// What was put and is not committed.
struct MemTransaction<'a> {
    store: &'a MemPages,
    /// `None` once it has failed.
    changes: Option<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    _alone: MutexGuard<'a, ()>,
}

const PATH: &str = "pages in memory";

impl MemPages {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The store as a crash at this moment leaves it: another one, with what has been committed.
    pub fn crash(&self) -> Arc<Self> {
        let committed = Mutex::new(self.committed.lock().clone());
        Arc::new(Self { committed, ..Self::default() })
    }

    /// Makes the next commit fail; of several, the one set last comes first.
    pub fn fail_commit(&self, fault: CommitFault) {
        self.faults.lock().push(fault);
    }

    /// Has a page fail whenever it is read alone, until [`Self::end_page_faults`].
    pub fn fail_page(&self, key: Vec<u8>, fault: PageFault) {
        self.unreadable.lock().insert(key, fault);
    }

    /// Gives all pages again.
    pub fn end_page_faults(&self) {
        self.unreadable.lock().clear();
    }

    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.committed.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.committed.lock().is_empty()
    }

    fn failed(fault: CommitFault) -> PageError {
        let path = String::from(PATH);
        match fault {
            CommitFault::Full => PageError::Full { path },
            CommitFault::NotDone | CommitFault::Done => {
                PageError::Io { path, source: Arc::new(std::io::Error::other("a simulated fault")) }
            }
        }
    }
}

impl PageStore for MemPages {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PageError> {
        let path = String::from(PATH);
        match self.unreadable.lock().get(key) {
            Some(PageFault::Io) => {
                Err(PageError::Io { path, source: Arc::new(std::io::Error::other("a simulated fault")) })
            }
            Some(PageFault::Corrupt) => Err(PageError::Corrupt { path, detail: "a simulated fault".into() }),
            None => Ok(self.committed.lock().get(key).cloned()),
        }
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), PageError> {
        let pages = self.committed.lock().clone();
        let start = prefix.max(from).to_vec();
        for (key, page) in pages.range(start..).take_while(|(key, _)| key.starts_with(prefix)) {
            if visit(key, page)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<Box<dyn PageTransaction + '_>, PageError> {
        let alone = self.open.lock();
        Ok(Box::new(MemTransaction { store: self, changes: Some(BTreeMap::new()), _alone: alone }))
    }

    fn stored_bytes(&self) -> Result<u64, PageError> {
        Ok(self.committed.lock().iter().map(|(key, page)| (key.len() + page.len()) as u64).sum())
    }
}

impl PageTransaction for MemTransaction<'_> {
    fn put(&mut self, portion: &PageBatch) -> Result<(), PageError> {
        let mut changes = self.changes.take().ok_or_else(|| ended(PATH.into()))?;
        let sorted = portion.sorted()?.into_iter();
        changes.extend(sorted.map(|change| (change.key.clone(), change.page.clone())));
        self.changes = Some(changes);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), PageError> {
        let changes = self.changes.ok_or_else(|| ended(PATH.into()))?;
        let fault = self.store.faults.lock().pop();
        if let Some(fault @ (CommitFault::NotDone | CommitFault::Full)) = fault {
            return Err(MemPages::failed(fault));
        }
        let mut committed = self.store.committed.lock();
        let pages = Arc::make_mut(&mut committed);
        for (key, page) in changes {
            match page {
                Some(page) => pages.insert(key, page),
                None => pages.remove(&key),
            };
        }
        fault.map_or(Ok(()), |fault| Err(MemPages::failed(fault)))
    }
}

#[cfg(test)]
mod tests {
    use super::{CommitFault, MemPages};
    use crate::pages::{PageBatch, PageError, PageStore, suite};

    #[test]
    fn conforms() {
        suite::run(|| Box::<MemPages>::default());
    }

    #[test]
    fn a_crash_keeps_what_was_committed_and_faults_do_what_they_say() {
        let store = MemPages::new();
        let put = |value: u8| {
            let mut batch = PageBatch::default();
            batch.put(b"k".to_vec(), vec![value]);
            store.commit(batch)
        };
        put(1).unwrap();
        let found = store.crash();
        store.fail_commit(CommitFault::NotDone);
        assert!(matches!(put(2), Err(PageError::Io { .. })));
        store.fail_commit(CommitFault::Full);
        assert!(matches!(put(3), Err(PageError::Full { .. })));
        assert_eq!(store.get(b"k").unwrap().unwrap(), [1]);
        store.fail_commit(CommitFault::Done);
        assert!(matches!(put(4), Err(PageError::Io { .. })));
        assert_eq!(store.get(b"k").unwrap().unwrap(), [4]);
        assert_eq!(found.get(b"k").unwrap().unwrap(), [1]);
        assert_eq!((found.len(), found.is_empty()), (1, false));
    }
}
