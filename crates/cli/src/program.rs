//! What this program is called where it tells a user what to type.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sabir_server::shell_quoted;

/// What it is called where a shell finds it.
const NAME: &str = "sabir";

/// What a shell that is like the one it was started from takes for this program: its name where that is found on PATH, else the path
/// that it was started by.
pub fn name() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let started = env::args_os().next().unwrap_or_default();
        let program = env::current_exe().ok();
        typed(&started, program.as_deref(), env::var_os("PATH").as_deref())
    })
}

/// A text with commands in backticks, as they are typed here.
pub fn as_typed(text: &str) -> String {
    text.replace("`sabir ", &format!("`{} ", name()))
}

fn typed(started: &OsStr, program: Option<&Path>, path: Option<&OsStr>) -> String {
    let Some(program) = program else { return NAME.into() };
    let is_found = |name: &OsStr| found(name, path).is_some_and(|there| same(&there, program));
    let by_path = Path::new(started).components().count() > 1;
    match () {
        () if is_found(NAME.as_ref()) => NAME.into(),
        () if by_path || is_found(started) => shell_quoted(started),
        () => shell_quoted(program.as_os_str()),
    }
}

/// The file that a shell finds by a name.
fn found(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_name_is_said_where_a_shell_finds_it_and_else_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, b"").unwrap();
            file
        };
        let (built, installed) = (at("target/sabir"), at("bin/sabir"));
        let named = at("other/broker");
        let folders = |files: &[&Path]| env::join_paths(files.iter().map(|f| f.parent().unwrap())).unwrap();
        for (started, program, on_path, said) in [
            ("target/sabir", &built, folders(&[]), "target/sabir"),
            ("target/sabir", &built, folders(&[&installed]), "target/sabir"),
            ("target/sabir", &built, folders(&[&built, &installed]), "sabir"),
            ("sabir", &installed, folders(&[&installed]), "sabir"),
            ("broker", &named, folders(&[&installed, &named]), "broker"),
            ("broker", &named, folders(&[]), named.to_str().unwrap()),
            ("./my builds/sabir", &built, folders(&[]), "'./my builds/sabir'"),
            ("./it's", &built, folders(&[]), r"'./it'\''s'"),
        ] {
            assert_eq!(typed(started.as_ref(), Some(program), Some(&on_path)), said, "{started}");
        }
        assert_eq!(typed("sabir".as_ref(), None, None), "sabir");
    }
}
