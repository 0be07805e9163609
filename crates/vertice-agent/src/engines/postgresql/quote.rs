//! Names and texts in SQL, and in libpq's connection strings and password files.

/// `"name"`.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'`, or `E'text'` with backslashes, whatever `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A value in a connection string: `'it\'s'`
/// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE>).
pub(super) fn conninfo(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A field of a password file (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).
pub(super) fn pgpass(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

/// Settings whose value is a list of names; they are set item by item, because a whole list as one literal would be one item.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// The right-hand side of `SET name TO`, from a value as the catalog stores it.
pub(super) fn setting(name: &str, value: &str) -> String {
    if LISTS.contains(&name.to_lowercase().as_str()) {
        let items = split_list(value);
        if !items.is_empty() {
            return items.iter().map(|item| literal(item)).collect::<Vec<_>>().join(", ");
        }
    }
    literal(value)
}

/// The items of `"$user", public`.
fn split_list(value: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut quoted = false;
    let mut was_quoted = false;
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                item.push('"');
            }
            '"' => {
                quoted = !quoted;
                was_quoted = true;
            }
            ',' if !quoted => {
                items.push(std::mem::take(&mut item));
                was_quoted = false;
            }
            space if space.is_whitespace() && !quoted => {}
            other => item.push(other),
        }
    }
    if was_quoted || !item.is_empty() {
        items.push(item);
    }
    items
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(ident(r#"we"ird"#), r#""we""ird""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b'c"), r"E'a\\b''c'");
        assert_eq!(conninfo(r"a\b'c d=e"), r"'a\\b\'c d=e'");
        assert_eq!(pgpass(r"pa:ss\word"), r"pa\:ss\\word");
    }

    #[test]
    fn lists_are_set_item_by_item() {
        assert_eq!(setting("search_path", r#""$user", public, "a,""b""#), r#"'$user', 'public', 'a,"b'"#);
        assert_eq!(setting("search_path", r#""""#), "''");
        assert_eq!(setting("work_mem", "64MB, x"), "'64MB, x'");
    }

    proptest! {
        #[test]
        fn a_password_file_gives_back_what_was_put_in(password in "[^\n\0]{1,40}") {
            // libpq's own reading: a backslash takes the next character as it is, a bare colon ends the field.
            let mut read = String::new();
            let escaped = pgpass(&password);
            let mut characters = escaped.chars();
            while let Some(character) = characters.next() {
                prop_assert_ne!(character, ':');
                read.push(if character == '\\' { characters.next().unwrap() } else { character });
            }
            prop_assert_eq!(read, password);
        }
    }
}
