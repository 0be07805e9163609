//! The sources of packages that this machine is set up with: whoever runs it may only reach a mirror.

use std::fs;
use std::path::{Path, PathBuf};

/// The sources for `suite` and its updates, as (style, text): style `list` has one line a source, style `sources`
/// has paragraphs. Sources of other projects (which have no such suite) are left out.
pub(super) fn of_machine(apt: &Path, suite: &str) -> Vec<(&'static str, String)> {
    let mut files: Vec<PathBuf> = vec![apt.join("sources.list")];
    let more = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
    let mut more: Vec<_> = more.map(|entry| entry.path()).collect();
    more.sort();
    files.append(&mut more);

    let (mut lines, mut paragraphs) = (String::new(), String::new());
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => lines.extend(one_line_style(&text, suite)),
            Some("sources") => paragraphs.extend(paragraph_style(&text, suite)),
            _ => {}
        }
    }
    let styles = [("list", lines), ("sources", paragraphs)];
    styles.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

/// `deb [options] URI suite component…`
fn one_line_style(text: &str, suite: &str) -> Vec<String> {
    let is_wanted = |line: &&str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("deb") {
            return false;
        }
        let rest = line.split_once(']').map_or_else(|| line.trim_start_matches("deb"), |(_, rest)| rest);
        rest.split_whitespace().nth(1).is_some_and(|named| is_of(named, suite))
    };
    text.lines().map(str::trim).filter(is_wanted).map(|line| format!("{line}\n")).collect()
}

/// Paragraphs of `Field: value` lines (deb822).
fn paragraph_style(text: &str, suite: &str) -> Vec<String> {
    let field = |paragraph: &str, name: &str| -> Vec<String> {
        let line = paragraph.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let is_wanted = |paragraph: &&str| {
        let disabled = field(paragraph, "Enabled:").first().is_some_and(|value| value == "no");
        let binary = field(paragraph, "Types:").iter().any(|kind| kind == "deb");
        binary && !disabled && field(paragraph, "Suites:").iter().any(|named| is_of(named, suite))
    };
    text.split("\n\n").filter(is_wanted).map(|paragraph| format!("{}\n\n", paragraph.trim())).collect()
}

/// `bookworm` itself, `bookworm-updates`, `bookworm-security`; not backports, which would change versions.
fn is_of(named: &str, suite: &str) -> bool {
    let Some(rest) = named.strip_prefix(suite) else { return false };
    matches!(rest, "" | "-updates" | "-security" | "/updates")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_the_suite_are_kept_in_both_styles_and_others_left_out() {
        let apt = tempfile::tempdir().unwrap();
        fs::create_dir(apt.path().join("sources.list.d")).unwrap();
        let write = |name: &str, text: &str| fs::write(apt.path().join(name), text).unwrap();
        write(
            "sources.list",
            "# deb http://mirror.example/debian bookworm main\n\
             deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main contrib\n\
             deb-src http://mirror.example/debian bookworm main\n\
             deb http://mirror.example/debian bookworm-backports main\n\
             deb http://other.example/apt sdk-bookworm main\n",
        );
        write("sources.list.d/a.sources", "Types: deb\nURIs: http://node.example\nSuites: nodistro\n");
        write(
            "sources.list.d/debian.sources",
            "Types: deb deb-src\nURIs: http://one.example\nSuites: bookworm bookworm-updates\n\n\
             Types: deb\nURIs: http://off.example\nSuites: bookworm\nEnabled: no\n\n\
             Types: deb\nURIs: http://two.example\nSuites: bookworm-security\n",
        );
        let found = of_machine(apt.path(), "bookworm");
        assert_eq!(
            found[0],
            (
                "list",
                "deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main contrib\n"
                    .into()
            )
        );
        let (style, paragraphs) = &found[1];
        assert_eq!((*style, found.len()), ("sources", 2));
        assert!(paragraphs.contains("one.example") && paragraphs.contains("two.example"), "{paragraphs}");
        assert!(!paragraphs.contains("off.example") && !paragraphs.contains("node.example"), "{paragraphs}");
    }

    #[test]
    fn a_machine_without_the_suite_gives_none() {
        let apt = tempfile::tempdir().unwrap();
        fs::write(apt.path().join("sources.list"), "deb http://mirror.example/ubuntu noble main\n").unwrap();
        assert_eq!(of_machine(apt.path(), "bookworm"), []);
    }
}
