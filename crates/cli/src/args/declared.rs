//! Flags that the protocols declare: the grammar knows none of them.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use sabir_server::client::{ClientOption, ClientOptions, Connector};
use sabir_server::protocols;

use crate::failure::{CliError, Exit};

/// What is said of publishing.
#[derive(Debug, Clone, Default)]
pub struct PublishFlags(pub ClientOptions);

/// What is said of a load that publishes.
#[derive(Debug, Clone, Default)]
pub struct LoadFlags(pub ClientOptions);

impl PublishFlags {
    fn declared() -> Vec<&'static ClientOption> {
        declared(|connector| connector.publish_options())
    }

    /// Refuses what the protocol that was chosen has no such option for.
    pub fn known_to(&self, options: &[ClientOption]) -> Result<(), CliError> {
        known(&self.0, options)
    }
}

impl LoadFlags {
    fn declared() -> Vec<&'static ClientOption> {
        declared(|connector| connector.load_options())
    }

    /// [`PublishFlags::known_to`].
    pub fn known_to(&self, options: &[ClientOption]) -> Result<(), CliError> {
        known(&self.0, options)
    }
}

/// The options of all protocols, each name once: as the first protocol that has it declares it.
fn declared(of: fn(&dyn Connector) -> &'static [ClientOption]) -> Vec<&'static ClientOption> {
    let mut all: Vec<&ClientOption> = Vec::new();
    for option in protocols().iter().flat_map(|protocol| of(protocol.connector())) {
        if all.iter().all(|known| known.name != option.name) {
            all.push(option);
        }
    }
    all
}

fn known(given: &ClientOptions, options: &[ClientOption]) -> Result<(), CliError> {
    match given.names().find(|name| options.iter().all(|option| option.name != *name)) {
        None => Ok(()),
        Some(name) => {
            let names: Vec<_> = options.iter().map(|option| format!("--{}", option.name)).collect();
            let problem = format!("--{name}: the protocol spoken there has no such option");
            let advice = match names.is_empty() {
                true => "It has none.".to_owned(),
                false => format!("It has: {}.", names.join(", ")),
            };
            Err(CliError::new(Exit::Usage, problem).advise(advice))
        }
    }
}

fn flag(option: &'static ClientOption) -> Arg {
    let flag = Arg::new(option.name).long(option.name).help(option.help);
    let Some(value) = option.value else { return flag.action(ArgAction::SetTrue) };
    let check = option.check;
    let parse = move |text: &str| check(text).map(|()| text.to_owned());
    flag.value_name(value).default_value(option.default).allow_hyphen_values(true).value_parser(parse)
}

/// What was given of these options: defaults are the protocol's own.
fn given(matches: &ArgMatches, options: &[&'static ClientOption]) -> ClientOptions {
    let mut given = ClientOptions::default();
    let was_given =
        |name| matches.value_source(name).is_some_and(|source| source != ValueSource::DefaultValue);
    for option in options.iter().filter(|option| was_given(option.name)) {
        let text = match option.value {
            Some(_) => matches.get_one::<String>(option.name).cloned().unwrap_or_default(),
            None => matches.get_flag(option.name).to_string(),
        };
        given.set(option, text);
    }
    given
}

macro_rules! flags {
    ($flags:ty) => {
        impl Args for $flags {
            fn augment_args(command: Command) -> Command {
                command.args(Self::declared().into_iter().map(flag))
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $flags {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
                Ok(Self(given(matches, &Self::declared())))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

flags!(PublishFlags);
flags!(LoadFlags);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_told_from_what_holds_by_default() {
        let command = PublishFlags::augment_args(Command::new("publish"));
        let of = |words: &[&str]| {
            let matches = command.clone().try_get_matches_from(words).unwrap();
            PublishFlags::from_arg_matches(&matches).unwrap()
        };
        assert_eq!(of(&["publish"]).0.names().count(), 0);
        for option in PublishFlags::declared() {
            let flags = of(&["publish", &format!("--{}", option.name), option.default]);
            assert_eq!(flags.0.names().collect::<Vec<_>>(), [option.name]);
            assert_eq!(flags.known_to(&[*option]).map_err(|e| e.exit), Ok(()));
            let refused = flags.known_to(&[]).unwrap_err();
            assert_eq!((refused.exit, refused.advice.as_deref()), (Exit::Usage, Some("It has none.")));
        }
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_as_the_protocol_says() {
        let command = LoadFlags::augment_args(Command::new("load"));
        for option in LoadFlags::declared().into_iter().filter(|option| option.value.is_some()) {
            let words = ["load", &format!("--{}", option.name), "\u{1}nonsense"].map(str::to_owned);
            let error = command.clone().try_get_matches_from(words).unwrap_err().to_string();
            let says = (option.check)("\u{1}nonsense").unwrap_err();
            assert!(error.contains(&says), "{error}");
        }
    }
}
