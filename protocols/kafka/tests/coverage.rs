//! The README's coverage table against what is served.

use sabir_kafka::wire::ApiKey;
use sabir_kafka::wire::api::SUPPORTED;

const README: &str = include_str!("../README.md");

fn row(key: i16) -> &'static str {
    let start = format!("| {key} | ");
    let mut rows = README.lines().filter(|line| line.starts_with(&start));
    let row = rows.next().unwrap_or_else(|| panic!("key {key} is not in the table"));
    assert!(rows.next().is_none(), "key {key} is in the table twice");
    row
}

#[test]
fn every_api_is_listed_with_the_versions_served() {
    for key in 0..=92 {
        let cells: Vec<_> = row(key).split('|').map(str::trim).collect();
        let (name, versions, tested) = (cells[2], cells[4], cells[6]);
        if let Some(api) = ApiKey::from_i16(key) {
            assert_eq!(name, api.name());
        }
        let served = SUPPORTED.iter().find(|(api, ..)| *api as i16 == key);
        let expected = match served {
            None => "–".to_owned(),
            Some((_, min, max)) if min == max => min.to_string(),
            Some((_, min, max)) => format!("{min}–{max}"),
        };
        assert_eq!(versions, expected, "{name}");
        let by_version = served.is_none() || tested.contains("`every_version`");
        assert!(!tested.is_empty() && by_version, "{name}");
    }
}
