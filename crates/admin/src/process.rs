//! What the operating system knows of this process. Where there is no `/proc`, nothing is shown rather than zeros.

use sabir_base::metrics::Exposition;

/// Writes memory, CPU time, threads and open files.
pub fn figures(out: &mut Exposition) {
    if let Some(stat) = read_stat() {
        out.counter_f64(
            "process_cpu_seconds",
            "CPU time of the process, user and system.",
            &[],
            stat.cpu_seconds,
        );
        out.gauge("process_resident_memory_bytes", "Resident memory.", &[], stat.resident_bytes);
        out.gauge("process_threads", "Threads.", &[], stat.threads);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", "Open files and sockets.", &[], files.count() as i64);
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        out.gauge("process_max_fds", "Files and sockets that may be open.", &[], limit as i64);
    }
}

struct Stat {
    cpu_seconds: f64,
    resident_bytes: i64,
    threads: i64,
}

fn read_stat() -> Option<Stat> {
    parse_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Fields as proc(5) numbers them: 14 utime, 15 stime, 20 num_threads, 24 rss. The name in field 2 may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let behind_name = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        resident_bytes: field(24)? * rustix::param::page_size() as i64,
        threads: field(20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let text = "1 (a) b) S 0 0 0 0 0 0 0 0 0 0 200 100 0 0 20 0 7 0 5 1000 3 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat.threads, 7);
        assert_eq!(stat.resident_bytes, 3 * rustix::param::page_size() as i64);
        assert!(stat.cpu_seconds > 0.0);
        assert!(parse_stat("1 (a").is_none());
    }
}
