//! What of `pg_dumpall --globals-only` is put back: roles that do not exist yet, their memberships and their privileges on parameters.
//! Existing roles keep their attributes, passwords, memberships and privileges (one that was revoked since must not come back), and
//! tablespaces are not made: their folders belong to another machine.

use std::collections::HashSet;

/// What a server has before.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Existing {
    pub(super) roles: HashSet<String>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Statements, each with its semicolon.
    pub(super) statements: Vec<String>,
    /// Roles that they create.
    pub(super) creates: Vec<String>,
    /// Privileges of these roles on parameters.
    pub(super) parameters: Vec<ParameterGrant>,
    /// Privileges of other roles, and of everybody, on parameters; these statements are not run.
    pub(super) left: Vec<String>,
}

/// A privilege on a parameter of the server's configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParameterGrant {
    /// The statement that gives it.
    pub(super) grant: String,
    /// The one that takes it away.
    pub(super) revoke: String,
}

/// Picks the statements to run.
pub(super) fn plan(dump: &str, existing: &Existing) -> Plan {
    let mut plan = Plan::default();
    for statement in statements(dump) {
        let words = words(statement);
        if let Some((role, revoke)) = parameter_grant(statement, &words) {
            let grant = format!("{statement};");
            if is_new(&plan, role) {
                plan.parameters.push(ParameterGrant { grant, revoke });
            } else {
                plan.left.push(grant);
            }
            continue;
        }
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let wanted = match texts.as_slice() {
            ["create", "role", role, ..] => {
                let new = !existing.roles.contains(*role);
                if new {
                    plan.creates.push((*role).to_owned());
                }
                new
            }
            ["alter", "role", role, ..]
            | ["comment", "on", "role", role, ..]
            | ["security", "label", "for", _, "on", "role", role, ..] => is_new(&plan, role),
            ["grant", role, "to", member, ..] => {
                if is_new(&plan, role) || is_new(&plan, member) {
                    plan.statements.push(without_grantor(statement, &words));
                }
                false
            }
            _ => false,
        };
        if wanted {
            plan.statements.push(format!("{statement};"));
        }
    }
    plan
}

fn is_new(plan: &Plan, role: &str) -> bool {
    plan.creates.iter().any(|created| created == role)
}

/// The role of `GRANT ALTER SYSTEM ON PARAMETER work_mem TO role WITH GRANT OPTION`, and the statement that takes all of it away.
fn parameter_grant<'a>(statement: &str, words: &'a [Word]) -> Option<(&'a str, String)> {
    let begins = words.first()?.is("grant");
    let at = words.windows(2).position(|pair| pair[0].is("on") && pair[1].is("parameter"))?;
    let [parameter, to, role, rest @ ..] = words.get(at + 2..)? else { return None };
    if !begins || !to.is("to") {
        return None;
    }
    let end = rest.first().map_or(statement.len(), |word| word.begin);
    let parameter = statement[parameter.begin..to.begin].trim_end();
    let grantee = statement[role.begin..end].trim_end();
    Some((&role.text, format!("REVOKE ALL ON PARAMETER {parameter} FROM {grantee} CASCADE;")))
}

/// Whoever restores is the grantor: since PostgreSQL 16 the original one may lack the right to be.
fn without_grantor(statement: &str, words: &[Word]) -> String {
    let grantor = words.windows(2).position(|pair| pair[0].is("granted") && pair[1].is("by"));
    let end = grantor.map_or(statement.len(), |at| words[at].begin);
    format!("{};", statement[..end].trim_end())
}

/// The statements of a dump, without their semicolons, comments and psql's own commands.
fn statements(dump: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = dump;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return found;
        }
        // `\restrict` and `\unrestrict` guard plain dumps since 2025; `\connect` is older.
        if rest.starts_with("--") || rest.starts_with('\\') {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        let end = end_of_statement(rest);
        found.push(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
}

fn end_of_statement(text: &str) -> usize {
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at] {
            b';' => return at,
            b'\'' | b'"' => at = end_of_quoted(text, at),
            _ => at += 1,
        }
    }
    text.len()
}

/// The place after the text that is quoted from `begin` on. Doubled quotes are two quoted texts in a row, which is the same here.
fn end_of_quoted(text: &str, begin: usize) -> usize {
    let bytes = text.as_bytes();
    let quote = bytes[begin];
    let escapes = quote == b'\'' && begin > 0 && matches!(bytes[begin - 1], b'E' | b'e');
    let mut at = begin + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A word of a statement: a name without its quotes, or a keyword in small letters.
#[derive(Debug)]
struct Word {
    begin: usize,
    quoted: bool,
    text: String,
}

impl Word {
    fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }
}

fn words(statement: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = 0;
    while at < statement.len() {
        let byte = statement.as_bytes()[at];
        let begin = at;
        if byte.is_ascii_whitespace() {
            at += 1;
        } else if byte == b'"' {
            at = end_of_quoted(statement, at);
            let inner = statement.get(begin + 1..at - 1).unwrap_or_default();
            words.push(Word { begin, quoted: true, text: inner.replace("\"\"", "\"") });
        } else if byte == b'\'' {
            at = end_of_quoted(statement, at);
        } else {
            while at < statement.len()
                && !matches!(statement.as_bytes()[at], b' ' | b'\n' | b'\t' | b'\'' | b'"')
            {
                at += 1;
            }
            words.push(Word { begin, quoted: false, text: statement[begin..at].to_lowercase() });
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `pg_dumpall` 15.18, with names as bad as they come.
    const DUMP: &str = r#"--
-- PostgreSQL database cluster dump
--

\restrict Ekbf68vkgCz5uF2IXvCgZawwseNo6X4CfglXf2nGeEMNihL64ddcR2rPTy6HpTC

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

CREATE ROLE limited;
ALTER ROLE limited WITH NOSUPERUSER INHERIT LOGIN PASSWORD 'SCRAM-SHA-256$4096:x;y==$z';
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT PASSWORD 'SCRAM-SHA-256$1';
CREATE ROLE "role; with ""quotes""";
ALTER ROLE "role; with ""quotes""" WITH LOGIN;
COMMENT ON ROLE "role; with ""quotes""" IS 'it''s; a "comment"';
COMMENT ON ROLE postgres IS E'back\\slash \'; DROP ROLE limited; --';

--
-- User Configurations
--

ALTER ROLE limited SET search_path TO 'a', 'b;c';
ALTER ROLE postgres SET work_mem TO '64MB';

GRANT "role; with ""quotes""" TO limited WITH ADMIN OPTION GRANTED BY postgres;
GRANT pg_read_all_data TO limited GRANTED BY postgres;
GRANT pg_monitor TO postgres GRANTED BY postgres;
GRANT SET ON PARAMETER "app.mode" TO PUBLIC;
GRANT ALTER SYSTEM ON PARAMETER "app.mode" TO "role; with ""quotes""";
GRANT ALL ON PARAMETER log_min_duration_statement TO limited;
GRANT ALTER SYSTEM ON PARAMETER wal_level TO postgres;
GRANT SET ON PARAMETER work_mem TO limited WITH GRANT OPTION;
SET SESSION AUTHORIZATION limited;
GRANT SET ON PARAMETER work_mem TO "role; with ""quotes""" WITH GRANT OPTION;
RESET SESSION AUTHORIZATION;

CREATE TABLESPACE fast OWNER postgres LOCATION '/mnt/fast';
GRANT ALL ON TABLESPACE fast TO limited;

\unrestrict Ekbf68vkgCz5uF2IXvCgZawwseNo6X4CfglXf2nGeEMNihL64ddcR2rPTy6HpTC
"#;

    fn existing() -> Existing {
        Existing { roles: HashSet::from(["postgres".to_owned()]) }
    }

    #[test]
    fn only_new_roles_and_memberships_are_made() {
        let plan = plan(DUMP, &existing());
        assert_eq!(plan.creates, ["limited", "role; with \"quotes\""]);
        insta::assert_snapshot!(plan.statements.join("\n"));
    }

    #[test]
    fn privileges_on_parameters_come_back_for_new_roles_only() {
        let plan = plan(DUMP, &existing());
        let both =
            plan.parameters.iter().map(|ParameterGrant { grant, revoke }| format!("{grant}\n  {revoke}"));
        insta::assert_snapshot!(both.collect::<Vec<_>>().join("\n"));
        assert_eq!(
            plan.left,
            [
                r#"GRANT SET ON PARAMETER "app.mode" TO PUBLIC;"#,
                "GRANT ALTER SYSTEM ON PARAMETER wal_level TO postgres;"
            ]
        );
    }

    #[test]
    fn a_role_that_is_called_like_a_keyword_is_a_role() {
        let dump = r#"CREATE ROLE "on"; CREATE ROLE "parameter"; GRANT "on" TO "parameter" GRANTED BY z;"#;
        let plan = plan(dump, &existing());
        assert_eq!((plan.statements.len(), plan.parameters.len(), plan.left.len()), (3, 0, 0));
    }

    #[test]
    fn among_existing_roles_nothing_is_granted_again() {
        let mut existing = existing();
        existing.roles.extend(["limited".to_owned(), "role; with \"quotes\"".to_owned()]);
        let plan = plan(DUMP, &existing);
        assert_eq!((plan.statements, plan.creates, plan.parameters), Default::default());
        assert_eq!(plan.left.len(), 6);
    }

    #[test]
    fn a_quoted_name_that_looks_like_words_is_a_name() {
        let dump = r#"CREATE ROLE "x""y"; GRANT "to granted by" TO "x""y" GRANTED BY z;"#;
        let statements = [r#"CREATE ROLE "x""y";"#, r#"GRANT "to granted by" TO "x""y";"#];
        assert_eq!(plan(dump, &existing()).statements, statements);
    }
}
