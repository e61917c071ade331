//! `sabir topic config`.

use sabir_server::client::{Client, ClientError, Failure, SettingChange, TopicSetting};
use sabir_server::config_value::nearest;
use serde_json::{Value, json};

use super::super::{about_topic, in_time, topic_admin};
use crate::args::topic::TopicConfigCommand;
use crate::args::{ClientArgs, OutputArg};
use crate::failure::CliError;
use crate::output::{Show, Table, print};

pub async fn run(
    client: &mut dyn Client,
    args: &ClientArgs,
    command: TopicConfigCommand,
) -> Result<(), CliError> {
    match command {
        TopicConfigCommand::Show { topic, all, output } => {
            let outcome = in_time(args.timeout.0, topic_admin(client)?.settings(&topic)).await;
            let mut settings = about_topic(client, args, &topic, outcome).await?;
            settings.retain(|s| all || s.own);
            Ok(print(output.output, &Settings { topic, settings })?)
        }
        TopicConfigCommand::Set { topic, settings, dry_run, output } => {
            let set = |(name, value)| SettingChange { name, value: Some(value) };
            let changes = settings.into_iter().map(set).collect();
            change(client, args, Changes { topic, changes, dry_run }, output).await
        }
        TopicConfigCommand::Unset { topic, settings, dry_run, output } => {
            let unset = |name| SettingChange { name, value: None };
            let changes = settings.into_iter().map(unset).collect();
            change(client, args, Changes { topic, changes, dry_run }, output).await
        }
    }
}

async fn change(
    client: &mut dyn Client,
    args: &ClientArgs,
    wanted: Changes,
    output: OutputArg,
) -> Result<(), CliError> {
    let Changes { topic, changes, dry_run } = &wanted;
    let outcome = in_time(args.timeout.0, topic_admin(client)?.change(topic, changes, *dry_run)).await;
    match outcome {
        Err(error) if error.failure == Failure::Refused => Err(refused(client, args, &wanted, error).await),
        outcome => {
            about_topic(client, args, topic, outcome).await?;
            Ok(print(output.output, &wanted)?)
        }
    }
}

/// The settings there are explain a refusal.
async fn refused(
    client: &mut dyn Client,
    args: &ClientArgs,
    wanted: &Changes,
    error: ClientError,
) -> CliError {
    let refused = CliError::from(error);
    let Some(topics) = client.topics() else { return refused };
    let Ok(known) = in_time(args.timeout.0, topics.settings(&wanted.topic)).await else { return refused };
    let all = format!("`sabir topic config show {} --all` lists the settings and what holds.", wanted.topic);
    let unknown = wanted.changes.iter().find(|c| known.iter().all(|k| k.name != c.name));
    let near = unknown.and_then(|c| nearest(&c.name, known.iter().map(|k| k.name.as_str())));
    match near {
        Some(near) => refused.advise(format!("Did you mean `{near}`? {all}")),
        None => refused.advise(all),
    }
}

/// What was changed, or would be.
struct Changes {
    topic: String,
    changes: Vec<SettingChange>,
    dry_run: bool,
}

impl Changes {
    fn outcome(&self, change: &SettingChange) -> &'static str {
        match (&change.value, self.dry_run) {
            (Some(_), false) => "set",
            (Some(_), true) => "would be set",
            (None, false) => "unset",
            (None, true) => "would be unset",
        }
    }
}

impl Show for Changes {
    fn json(&self) -> Value {
        let one = |c: &SettingChange| json!({"topic": self.topic, "name": c.name, "value": c.value, "outcome": self.outcome(c)});
        self.changes.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |c: &SettingChange| {
            let value = c.value.clone().unwrap_or_else(|| "-".into());
            vec![c.name.clone(), value, self.outcome(c).into()]
        };
        let rows = self.changes.iter().map(row).collect();
        vec![Table { title: None, head: vec!["NAME", "VALUE", "OUTCOME"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.changes.iter().map(|c| c.name.clone()).collect()
    }
}

struct Settings {
    topic: String,
    settings: Vec<TopicSetting>,
}

/// Where a setting comes from, and whether it can be changed.
fn source(setting: &TopicSetting) -> &'static str {
    match (setting.own, setting.read_only) {
        (true, _) => "topic",
        (false, false) => "default",
        (false, true) => "fixed",
    }
}

impl Show for Settings {
    fn json(&self) -> Value {
        let one = |s: &TopicSetting| json!({"topic": self.topic, "name": s.name, "value": s.value, "source": source(s), "help": s.help});
        self.settings.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |s: &TopicSetting| {
            let value = s.value.clone().unwrap_or_else(|| "(kept secret)".into());
            vec![s.name.clone(), value, source(s).into(), s.help.clone().unwrap_or_default()]
        };
        let rows = self.settings.iter().map(row).collect();
        vec![Table { title: None, head: vec!["NAME", "VALUE", "SOURCE", "WHAT IT DOES"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.settings.iter().map(|s| s.name.clone()).collect()
    }
}
