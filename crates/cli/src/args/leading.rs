//! Options of a connection that stand before the noun: `sabir --proto amqp topic list`.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// The command line with the options that a noun has for all its verbs (`--address`, `--proto`, `--timeout` …) behind the noun, where the grammar
/// has them: a noun that has no use for one refuses it, as it does there. Where no noun follows they are left out, so that clap says what is wrong or shows its
/// help.
pub fn behind_the_noun(mut line: Vec<OsString>) -> Vec<OsString> {
    let grammar = Cli::command();
    let mut at = 1;
    while let Some(words) = line.get(at).and_then(|word| words_of_option(&grammar, word)) {
        at += words;
    }
    match line.get(at) {
        Some(word) if !is_option(word) => line[1..=at].rotate_right(1),
        _ => drop(line.drain(1..at.min(line.len()))),
    }
    line
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// How many words an option of a noun's takes with its value, if that word begins one.
fn words_of_option(grammar: &Command, word: &OsStr) -> Option<usize> {
    let word = word.to_str()?;
    let (option, has_value) = match word.strip_prefix("--") {
        Some(long) => {
            let (name, has_value) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
            (find(grammar, |option| option.get_long() == Some(name))?, has_value)
        }
        None => {
            let mut letters = word.strip_prefix('-')?.chars();
            let letter = letters.next()?;
            (find(grammar, |option| option.get_short() == Some(letter))?, letters.next().is_some())
        }
    };
    Some(if has_value || !option.get_action().takes_values() { 1 } else { 2 })
}

fn find(grammar: &Command, is_it: impl Fn(&Arg) -> bool) -> Option<&Arg> {
    let mut all = grammar.get_subcommands().flat_map(Command::get_arguments);
    all.find(|option| option.is_global_set() && is_it(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let words = behind_the_noun(words).into_iter().map(|word| word.into_string().unwrap());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_a_noun_has_for_all_its_verbs_may_stand_before_it() {
        for (given, parsed) in [
            ("sabir", "sabir"),
            ("sabir topic list --proto amqp", "sabir topic list --proto amqp"),
            ("sabir --proto amqp topic list", "sabir topic --proto amqp list"),
            (
                "sabir --proto=amqp --tls -a h:1 topic list -o json",
                "sabir topic --proto=amqp --tls -a h:1 list -o json",
            ),
            ("sabir -ah:1 --timeout 1s bench produce", "sabir bench -ah:1 --timeout 1s produce"),
            ("sabir --namespace n group list", "sabir group --namespace n list"),
            // A noun that has no use for it says so.
            ("sabir --proto amqp serve", "sabir serve --proto amqp"),
            // What is not a noun's option, and lines without a noun.
            ("sabir --porto amqp topic", "sabir --porto amqp topic"),
            ("sabir --proto amqp --help", "sabir --help"),
            ("sabir --proto amqp -- topic", "sabir -- topic"),
            ("sabir --proto amqp", "sabir"),
            ("sabir --proto", "sabir"),
            ("sabir --version", "sabir --version"),
        ] {
            assert_eq!(moved(given), parsed, "{given}");
        }
    }

    #[test]
    fn an_option_is_of_the_same_form_for_all_nouns() {
        let grammar = Cli::command();
        let options = grammar.get_subcommands().flat_map(Command::get_arguments);
        for option in options.filter(|option| option.is_global_set()) {
            let first = find(&grammar, |other| other.get_long() == option.get_long()).unwrap();
            let form = |of: &Arg| (of.get_short(), of.get_action().takes_values());
            assert_eq!(form(first), form(option), "{option:?}");
        }
    }
}
