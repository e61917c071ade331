//! `sabir doctor`.

use sabir_server::config::ServerConfig;
use sabir_server::doctor::{Finding, Verdict, examine};
use sabir_server::protocols;
use serde_json::{Value, json};

use super::config::sources;
use crate::args::DoctorArgs;
use crate::color::Color;
use crate::failure::{CliError, Exit};
use crate::output::{Show, Table, print};

pub fn run(args: DoctorArgs) -> Result<(), CliError> {
    let config = ServerConfig::load(&sources(&args.serve.config, args.serve.data), protocols())?;
    let findings = Findings(examine(&config));
    print(args.output.output, &findings)?;
    match findings.0.iter().filter(|f| f.verdict == Verdict::Bad).count() {
        0 => Ok(()),
        bad => Err(CliError::new(Exit::Failed, format!("{bad} of {} checks failed", findings.0.len()))),
    }
}

struct Findings(Vec<Finding>);

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Poor => "poor",
        Verdict::Bad => "BAD",
    }
}

impl Show for Findings {
    fn json(&self) -> Value {
        let one = |f: &Finding| {
            let verdict = word(f.verdict).to_lowercase();
            json!({"check": f.subject, "verdict": verdict, "found": f.found, "advice": f.advice})
        };
        self.0.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |f: &Finding| vec![f.subject.into(), word(f.verdict).into(), f.found.clone()];
        let rows = self.0.iter().map(row).collect();
        let mut tables = vec![Table { title: None, head: vec!["CHECK", "VERDICT", "FOUND"], rows }];
        let advice = self.0.iter().filter(|f| !f.advice.is_empty());
        let rows: Vec<_> = advice.map(|f| vec![f.subject.into(), f.advice.clone()]).collect();
        if !rows.is_empty() {
            tables.push(Table { title: None, head: vec!["CHECK", "WHAT TO DO"], rows });
        }
        tables
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|f| f.subject.into()).collect()
    }

    fn color(&self, cell: &str) -> Option<Color> {
        match cell {
            "ok" => Some(Color::Green),
            "poor" => Some(Color::Yellow),
            "BAD" => Some(Color::Red),
            _ => None,
        }
    }
}
