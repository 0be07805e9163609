//! Secrets, mounted as files, one a key.

use std::io;
use std::path::Path;

use snafu::Snafu;

/// A mounted Secret.
#[derive(Clone, Copy, Debug)]
pub struct SecretDir<'a> {
    /// Its name in Kubernetes, for messages.
    pub name: &'a str,
    /// Where it is mounted.
    pub path: &'a Path,
    /// What it is for, such as `the database's credentials`.
    pub purpose: &'static str,
    /// The keys that it must have.
    pub keys: &'static [&'static str],
}

/// A secret cannot be used.
#[derive(Debug, Snafu)]
pub enum SecretError {
    /// No Secret.
    #[snafu(display(
        "Secret {name:?} with {purpose} does not exist in this namespace or is empty: create it with the keys {}",
        keys.join(" and ")
    ))]
    Missing {
        /// The Secret.
        name: String,
        /// What it is for.
        purpose: &'static str,
        /// The keys that it must have.
        keys: &'static [&'static str],
    },
    /// The Secret lacks a key.
    #[snafu(display(
        "Secret {name:?} with {purpose} has no key {key:?} (or an empty one): add it; its keys are {}",
        keys.join(", ")
    ))]
    MissingKey {
        /// The Secret.
        name: String,
        /// What it is for.
        purpose: &'static str,
        /// The key.
        key: &'static str,
        /// What is there.
        keys: Vec<String>,
    },
    /// The file cannot be read.
    #[snafu(display("key {key:?} of Secret {name:?} cannot be read: {source}"))]
    Unreadable {
        /// The Secret.
        name: String,
        /// The key.
        key: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl SecretDir<'_> {
    /// The value of a key that must be there, without the line's end that editors and `--from-file` leave.
    pub fn require(&self, key: &'static str) -> Result<String, SecretError> {
        self.optional(key)?.ok_or_else(|| {
            let keys = self.mounted();
            let (name, purpose) = (self.name.to_owned(), self.purpose);
            if keys.is_empty() {
                SecretError::Missing { name, purpose, keys: self.keys }
            } else {
                SecretError::MissingKey { name, purpose, key, keys }
            }
        })
    }

    /// The value of a key that may be there.
    pub fn optional(&self, key: &'static str) -> Result<Option<String>, SecretError> {
        match std::fs::read_to_string(self.path.join(key)) {
            Ok(value) => {
                let value = value.strip_suffix('\n').unwrap_or(&value);
                let value = value.strip_suffix('\r').unwrap_or(value);
                Ok((!value.is_empty()).then(|| value.to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SecretError::Unreadable { name: self.name.to_owned(), key, source }),
        }
    }

    /// The keys, without the kubelet's own `..data`.
    fn mounted(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path) else { return Vec::new() };
        let mut keys: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with("..") && name != "lost+found")
            .collect();
        keys.sort();
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(path: &Path) -> SecretDir<'_> {
        SecretDir {
            name: "shop-db",
            path,
            purpose: "the database's credentials",
            keys: &["username", "password"],
        }
    }

    #[test]
    fn tells_a_missing_secret_from_a_missing_key() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let missing = secret(&gone).require("password").unwrap_err().to_string();
        std::fs::write(dir.path().join("username"), "shop").unwrap();
        std::fs::write(dir.path().join("password"), "").unwrap();
        std::fs::create_dir(dir.path().join("..data")).unwrap();
        let lacking = secret(dir.path()).require("password").unwrap_err().to_string();
        insta::assert_snapshot!(format!("{missing}\n{lacking}"), @r#"
        Secret "shop-db" with the database's credentials does not exist in this namespace or is empty: create it with the keys username and password
        Secret "shop-db" with the database's credentials has no key "password" (or an empty one): add it; its keys are password, username
        "#);
    }

    #[test]
    fn strips_one_line_end_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), " a b \r\n").unwrap();
        assert_eq!(secret(dir.path()).require("password").unwrap(), " a b ");
    }
}
