//! The conformance suite of [`PageStore`], run by every implementation.

use std::ops::ControlFlow;

use super::{MAX_KEY, MAX_PAGE, PageBatch, PageError, PageStore};

/// Runs every case on a store of its own.
pub(super) fn run(mut store: impl FnMut() -> Box<dyn PageStore>) {
    let cases: &[fn(&dyn PageStore)] = &[
        a_batch_puts_and_deletes,
        the_later_change_of_a_key_counts,
        scans_are_in_order_and_stay_in_their_prefix,
        a_scan_stops_when_told_to,
        what_is_too_large_is_refused_whole,
        a_scan_sees_one_state,
        many_pages_of_all_sizes,
        portions_are_seen_together,
        what_is_not_committed_changes_nothing,
        of_portions_too_the_later_change_counts,
        a_portion_that_is_too_large_ends_the_transaction,
        transactions_exclude_one_another,
    ];
    for case in cases {
        case(&*store());
    }
}

fn put(store: &dyn PageStore, pages: &[(&[u8], &[u8])]) {
    store.commit(batch(pages)).unwrap();
}

fn batch(pages: &[(&[u8], &[u8])]) -> PageBatch {
    let mut batch = PageBatch::default();
    pages.iter().for_each(|(key, page)| batch.put(key.to_vec(), page.to_vec()));
    batch
}

fn keys(store: &dyn PageStore, prefix: &[u8], from: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    };
    store.scan(prefix, from, visit).unwrap();
    keys
}

fn a_batch_puts_and_deletes(store: &dyn PageStore) {
    assert_eq!(store.get(b"a").unwrap(), None);
    put(store, &[(b"b", b"2"), (b"a", b"1"), (b"", b"0"), (b"c", b"")]);
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"1");
    assert_eq!(store.get(b"").unwrap().unwrap(), b"0");
    assert_eq!(store.get(b"c").unwrap().unwrap(), b"");
    let mut batch = PageBatch::default();
    batch.delete(b"a".to_vec());
    batch.delete(b"absent".to_vec());
    batch.put(b"b".to_vec(), b"3".to_vec());
    assert_eq!((batch.len(), batch.bytes(), batch.is_empty()), (3, 9, false));
    store.commit(batch).unwrap();
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(store.get(b"b").unwrap().unwrap(), b"3");
    store.commit(PageBatch::default()).unwrap();
    assert_eq!(keys(store, b"", b""), [b"".as_slice(), b"b", b"c"]);
}

fn the_later_change_of_a_key_counts(store: &dyn PageStore) {
    let mut batch = PageBatch::default();
    batch.put(b"a".to_vec(), b"1".to_vec());
    batch.delete(b"b".to_vec());
    batch.put(b"a".to_vec(), b"2".to_vec());
    batch.put(b"b".to_vec(), b"1".to_vec());
    batch.put(b"c".to_vec(), b"1".to_vec());
    batch.delete(b"c".to_vec());
    store.commit(batch).unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"2");
    assert_eq!(store.get(b"b").unwrap().unwrap(), b"1");
    assert_eq!(store.get(b"c").unwrap(), None);
}

fn scans_are_in_order_and_stay_in_their_prefix(store: &dyn PageStore) {
    let all: [&[u8]; 7] = [b"", b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"\xff"];
    put(store, &all.map(|key| (key, key)));
    assert_eq!(keys(store, b"", b""), all);
    assert_eq!(keys(store, b"a", b""), all[1..5]);
    assert_eq!(keys(store, b"a\xff", b""), all[3..5]);
    assert_eq!(keys(store, b"\xff", b""), all[6..]);
    assert_eq!(keys(store, b"c", b""), [b""; 0]);
    assert_eq!(keys(store, b"a", b"a\x01"), all[3..5], "from a key that is not there");
    assert_eq!(keys(store, b"a", b"a\xff"), all[3..5], "and from one that is");
    assert_eq!(keys(store, b"a", b"b"), [b""; 0]);
    assert_eq!(keys(store, b"b", b"a"), all[5..6]);
}

fn a_scan_stops_when_told_to(store: &dyn PageStore) {
    put(store, &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]);
    let mut seen = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        seen += 1;
        Ok(if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    store.scan(b"", b"", visit).unwrap();
    assert_eq!(seen, 2);
    let failing = &mut |_: &[u8], _: &[u8]| Err(PageError::InUse { path: "the visitor's".into() });
    assert!(matches!(store.scan(b"", b"", failing), Err(PageError::InUse { .. })));
}

fn what_is_too_large_is_refused_whole(store: &dyn PageStore) {
    put(store, &[(&[1; MAX_KEY], &[2; MAX_PAGE])]);
    assert_eq!(store.get(&[1; MAX_KEY]).unwrap().unwrap(), [2; MAX_PAGE]);
    for (key, page) in [(vec![1; MAX_KEY + 1], vec![]), (vec![1], vec![2; MAX_PAGE + 1])] {
        let mut batch = PageBatch::default();
        batch.put(b"beside".to_vec(), vec![]);
        batch.put(key, page);
        assert!(matches!(store.commit(batch), Err(PageError::TooLarge { .. })));
        assert_eq!(store.get(b"beside").unwrap(), None);
    }
}

fn a_scan_sees_one_state(store: &dyn PageStore) {
    put(store, &[(b"a", b"1"), (b"b", b"1")]);
    let mut seen = Vec::new();
    let visit = &mut |_: &[u8], page: &[u8]| {
        seen.push(page.to_vec());
        if seen.len() == 1 {
            put(store, &[(b"a", b"2"), (b"b", b"2"), (b"c", b"2")]);
        }
        Ok(ControlFlow::Continue(()))
    };
    store.scan(b"", b"", visit).unwrap();
    assert_eq!(seen, [b"1", b"1"]);
    assert_eq!(keys(store, b"", b"").len(), 3);
}

fn many_pages_of_all_sizes(store: &dyn PageStore) {
    let page = |i: u32, round: u32| vec![(i + round) as u8; ((i * 37 + round * 1001) as usize) % MAX_PAGE];
    for round in 0..3 {
        let mut batch = PageBatch::default();
        for i in (0..2000u32).filter(|i| round == 0 || i % (round + 1) == 0) {
            batch.put(i.to_be_bytes().to_vec(), page(i, round));
        }
        store.commit(batch).unwrap();
    }
    let mut i = 0u32;
    let visit = &mut |key: &[u8], found: &[u8]| {
        let round = if i.is_multiple_of(3) { 2 } else { u32::from(i.is_multiple_of(2)) };
        assert_eq!((key, found), (i.to_be_bytes().as_slice(), page(i, round).as_slice()));
        i += 1;
        Ok(ControlFlow::Continue(()))
    };
    store.scan(b"", b"", visit).unwrap();
    assert_eq!(i, 2000);
}

fn portions_are_seen_together(store: &dyn PageStore) {
    put(store, &[(b"a", b"1"), (b"b", b"1")]);
    let mut transaction = store.begin().unwrap();
    for number in 0..200u32 {
        let number = number.to_be_bytes();
        transaction.put(&batch(&[(&number, &[7; MAX_PAGE]), (b"a", &number)])).unwrap();
        assert_eq!(store.get(b"a").unwrap().unwrap(), b"1", "read beside it");
        assert_eq!((store.get(&number).unwrap(), keys(store, b"", b"").len()), (None, 2));
    }
    let mut away = PageBatch::default();
    away.delete(b"b".to_vec());
    transaction.put(&away).unwrap();
    assert_eq!(keys(store, b"b", b""), [b"b"]);
    transaction.commit().unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap(), 199u32.to_be_bytes());
    assert_eq!((store.get(b"b").unwrap(), keys(store, b"", b"").len()), (None, 201));
    store.begin().unwrap().commit().unwrap();
    assert_eq!(keys(store, b"", b"").len(), 201);
}

fn what_is_not_committed_changes_nothing(store: &dyn PageStore) {
    put(store, &[(b"a", b"1")]);
    for _ in 0..3 {
        let mut transaction = store.begin().unwrap();
        for number in 0..200u32 {
            transaction.put(&batch(&[(&number.to_be_bytes(), &[7; MAX_PAGE]), (b"a", b"2")])).unwrap();
        }
        drop(transaction);
        assert_eq!(keys(store, b"", b""), [b"a"]);
        assert_eq!(store.get(b"a").unwrap().unwrap(), b"1");
    }
    put(store, &[(b"b", b"2")]);
    assert_eq!(keys(store, b"", b""), [b"a", b"b"]);
}

fn of_portions_too_the_later_change_counts(store: &dyn PageStore) {
    put(store, &[(b"c", b"0")]);
    let mut transaction = store.begin().unwrap();
    transaction.put(&batch(&[(b"b", b"1"), (b"a", b"1"), (b"c", b"1")])).unwrap();
    let mut second = batch(&[(b"a", b"2")]);
    second.delete(b"b".to_vec());
    second.delete(b"c".to_vec());
    transaction.put(&second).unwrap();
    transaction.put(&batch(&[(b"b", b"3")])).unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"2");
    assert_eq!(store.get(b"b").unwrap().unwrap(), b"3");
    assert_eq!(store.get(b"c").unwrap(), None);
}

fn a_portion_that_is_too_large_ends_the_transaction(store: &dyn PageStore) {
    let mut transaction = store.begin().unwrap();
    transaction.put(&batch(&[(b"a", b"1")])).unwrap();
    let refused = transaction.put(&batch(&[(b"b", b"1"), (b"c", &[2; MAX_PAGE + 1])]));
    assert!(matches!(refused, Err(PageError::TooLarge { .. })));
    assert!(matches!(transaction.put(&batch(&[(b"d", b"1")])), Err(PageError::Io { .. })));
    assert!(matches!(transaction.commit(), Err(PageError::Io { .. })));
    assert_eq!(keys(store, b"", b""), [b""; 0]);
    put(store, &[(b"a", b"2")]);
    assert_eq!(keys(store, b"", b""), [b"a"]);
}

fn transactions_exclude_one_another(store: &dyn PageStore) {
    let mut transaction = store.begin().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| put(store, &[(b"a", b"2")]));
        transaction.put(&batch(&[(b"a", b"1"), (b"b", b"1")])).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!other.is_finished() && keys(store, b"", b"").is_empty());
        transaction.commit().unwrap();
        other.join().unwrap();
    });
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"2");
    assert_eq!(store.get(b"b").unwrap().unwrap(), b"1");
}
