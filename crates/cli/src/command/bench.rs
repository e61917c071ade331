//! `sabir bench`.

use std::io::IsTerminal;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sabir_server::client::{ClientError, ClientOptions, Failure, Load, LoadPlan, LoadProgress, LoadReport};
use sabir_server::config_value::Span;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{Chosen, about_topic, block_on};
use crate::args::ClientArgs;
use crate::args::bench::{BenchArgs, BenchCommand, LoadArgs, PublishLoad};
use crate::args::declared::LoadFlags;
use crate::failure::{CliError, Exit};
use crate::output::{Show, Table, grouped, print};

/// How long a load runs if nothing ends it.
const DURATION: Duration = Duration::from_secs(10);
/// How long it is asked which topics there are, where a load's is not.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(200);

pub fn run(args: &BenchArgs) -> Result<(), CliError> {
    let (plan, common) = (args.load.plan(), args.load.common());
    // Leaked on purpose: the load's connections count into it from wherever they run, until the process ends.
    let progress: &'static LoadProgress = Box::leak(Box::default());
    let quiet = common.quiet || !std::io::stderr().is_terminal();
    let report = block_on(async {
        let Chosen { connector, broker, .. } = args.target.choose().await?;
        if let Some(flags) = args.load.flags() {
            flags.known_to(connector.load_options())?;
        }
        let load = connector.bench(broker, plan.clone(), progress);
        tokio::pin!(load);
        let bar = bar(&plan, quiet);
        let mut tick = tokio::time::interval(TICK);
        let (mut interrupts, mut terminations) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let report = loop {
            tokio::select! {
                report = &mut load => break report,
                _ = interrupts.recv() => stop(progress),
                _ = terminations.recv() => stop(progress),
                _ = tick.tick() => advance(&bar, &plan, progress),
            }
        };
        bar.finish_and_clear();
        about_load(args, &plan.topic, report).await
    })?;
    let (errors, first_error) = (report.errors, report.first_error.clone());
    print(common.output.output, &Outcome { plan, report })?;
    if errors > 0 {
        let first = first_error.unwrap_or_else(|| "no reason given".into());
        return Err(CliError::new(Exit::Failed, format!("{errors} requests failed; the first: {first}")));
    }
    Ok(())
}

/// What came of a load. Where its topic is not there, the failure says so and names the nearest.
async fn about_load(
    args: &BenchArgs,
    topic: &str,
    outcome: Result<LoadReport, ClientError>,
) -> Result<LoadReport, CliError> {
    match outcome {
        Err(error) if error.failure == Failure::NotFound => {
            let args = ClientArgs { target: args.target.clone(), admin: None, timeout: Span(PATIENCE) };
            let mut client = args.connect().await?;
            about_topic(&mut *client, &args, topic, Err(error)).await
        }
        outcome => Ok(outcome?),
    }
}

/// Ends the load with the figures so far; a user who asks again does not want to wait for what is under way.
fn stop(progress: &LoadProgress) {
    if progress.stop.swap(true, Relaxed) {
        std::process::exit(130);
    }
    eprintln!("ending the load; once more ends it without figures");
}

impl BenchCommand {
    fn common(&self) -> &LoadArgs {
        match self {
            BenchCommand::Produce(publish) | BenchCommand::E2e(publish) => &publish.load,
            BenchCommand::Consume(load) => load,
        }
    }

    fn flags(&self) -> Option<&LoadFlags> {
        match self {
            BenchCommand::Produce(publish) | BenchCommand::E2e(publish) => Some(&publish.options),
            BenchCommand::Consume(_) => None,
        }
    }

    fn plan(&self) -> LoadPlan {
        match self {
            BenchCommand::Produce(publish) => publish.plan(Load::Produce),
            BenchCommand::E2e(publish) => publish.plan(Load::EndToEnd),
            BenchCommand::Consume(load) => load.plan(Load::Consume),
        }
    }
}

impl LoadArgs {
    /// A plan with nothing to say about publishing.
    fn plan(&self, load: Load) -> LoadPlan {
        let no_end = self.count.is_none() && self.duration.is_none();
        LoadPlan {
            load,
            topic: self.topic.clone(),
            size: 0,
            rate: None,
            count: self.count,
            duration: self.duration.map(|d| d.0).or(no_end.then_some(DURATION)),
            warmup: self.warmup.0,
            clients: self.clients.into(),
            options: ClientOptions::default(),
        }
    }
}

impl PublishLoad {
    fn plan(&self, load: Load) -> LoadPlan {
        LoadPlan {
            size: self.size.0 as usize,
            rate: self.rate,
            options: self.options.0.clone(),
            ..self.load.plan(load)
        }
    }
}

fn bar(plan: &LoadPlan, quiet: bool) -> ProgressBar {
    let length = plan.count.or(plan.duration.map(|d| (d + plan.warmup).as_millis() as u64));
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(length, target);
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {elapsed}  {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn advance(bar: &ProgressBar, plan: &LoadPlan, progress: &LoadProgress) {
    let messages = progress.messages.load(Relaxed);
    let elapsed = bar.elapsed();
    let done = if plan.count.is_some() { messages } else { elapsed.as_millis() as u64 };
    bar.set_position(done);
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = grouped((messages as f64 / seconds) as u64);
    let mb = progress.bytes.load(Relaxed) as f64 / 1e6 / seconds;
    let errors = match progress.errors.load(Relaxed) {
        0 => String::new(),
        n => format!("  {n} errors"),
    };
    bar.set_message(format!("{rate} msg/s  {mb:.1} MB/s{errors}"));
}

struct Outcome {
    plan: LoadPlan,
    report: LoadReport,
}

impl Outcome {
    fn seconds(&self) -> f64 {
        self.report.elapsed.as_secs_f64().max(1e-9)
    }

    fn rate(&self) -> f64 {
        self.report.messages as f64 / self.seconds()
    }

    fn megabytes(&self) -> f64 {
        self.report.bytes as f64 / 1e6 / self.seconds()
    }

    /// Milliseconds at a quantile.
    fn ms(&self, quantile: f64) -> f64 {
        self.report.latency_us.value_at_quantile(quantile) as f64 / 1e3
    }
}

impl Show for Outcome {
    fn json(&self) -> Value {
        let histogram = &self.report.latency_us;
        json!({
            "load": self.plan.load.to_string(),
            "topic": self.plan.topic,
            "size": (self.plan.load != Load::Consume).then_some(self.plan.size),
            "clients": self.plan.clients,
            "messages": self.report.messages,
            "bytes": self.report.bytes,
            "errors": self.report.errors,
            "seconds": self.report.elapsed.as_secs_f64(),
            "messages_per_second": self.rate(),
            "megabytes_per_second": self.megabytes(),
            "latency_ms": {
                "samples": histogram.len(),
                "mean": histogram.mean() / 1e3,
                "p50": self.ms(0.5),
                "p90": self.ms(0.9),
                "p99": self.ms(0.99),
                "p99.9": self.ms(0.999),
                "max": histogram.max() as f64 / 1e3,
            },
        })
    }

    fn tables(&self) -> Vec<Table> {
        let ms = |value: f64| format!("{value:.3} ms");
        let row = vec![
            self.plan.load.to_string(),
            grouped(self.report.messages),
            grouped(self.rate() as u64),
            format!("{:.1}", self.megabytes()),
            ms(self.ms(0.5)),
            ms(self.ms(0.99)),
            ms(self.ms(0.999)),
            ms(self.report.latency_us.max() as f64 / 1e3),
        ];
        let head = vec!["LOAD", "MESSAGES", "MSG/S", "MB/S", "P50", "P99", "P99.9", "MAX"];
        vec![Table { title: None, head, rows: vec![row] }]
    }

    fn names(&self) -> Vec<String> {
        vec![self.plan.topic.clone()]
    }
}
