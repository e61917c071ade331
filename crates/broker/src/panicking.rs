//! Panics where a test wants one.

use parking_lot::Mutex;

/// Where, and what the bytes at hand must contain.
static WANTED: Mutex<Vec<(&str, &str)>> = Mutex::new(Vec::new());

/// Has the next work at this place panic that has these bytes at hand: `apply` an entry's body, `push` one, `group` an id,
/// `carry` and `finish` a topic's name, `route` an exchange's.
pub fn panic_once(place: &'static str, mark: &'static str) {
    WANTED.lock().push((place, mark));
}

pub(crate) fn panic_if_wanted(place: &str, bytes: &[u8]) {
    let mut wanted = WANTED.lock();
    let meant = |(at, mark): &(&str, &str)| {
        *at == place && bytes.windows(mark.len()).any(|some| some == mark.as_bytes())
    };
    if let Some(found) = wanted.iter().position(meant) {
        wanted.swap_remove(found);
        drop(wanted);
        panic!("wanted by a test, at {place}");
    }
}
