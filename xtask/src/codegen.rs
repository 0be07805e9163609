//! `cargo xtask codegen`: writes what is derived from the code, or with `--check` tells what is stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use vertice_testbed::paths::Paths;

const HEADER: &str = "# Written by `cargo xtask codegen`. Do not edit.\n";
/// Folders that hold generated files only: whatever else lies there is stale.
const FOLDERS: [&str; 4] =
    ["deploy/crds", "deploy/rbac", "deploy/charts/vertice/crds", "deploy/charts/vertice/generated/rbac"];

/// Generated files by their path in the workspace.
type Files = BTreeMap<PathBuf, String>;

pub fn run(check: bool) -> Result<()> {
    let root = Paths::locate().workspace().to_owned();
    let wanted = files()?;
    if check {
        let stale = stale(&root, &wanted)?;
        if !stale.is_empty() {
            bail!("stale: {}; run `cargo xtask codegen`", stale.join(", "));
        }
        println!("{} generated files are up to date", wanted.len());
        return Ok(());
    }
    for path in present(&root)?.into_iter().filter(|path| !wanted.contains_key(path)) {
        fs::remove_file(root.join(&path)).with_context(|| format!("cannot remove {}", path.display()))?;
        println!("removed {}", path.display());
    }
    for (path, text) in &wanted {
        write(&root.join(path), text)?;
    }
    println!("{} generated files written", wanted.len());
    Ok(())
}

/// All generated files.
fn files() -> Result<Files> {
    let mut files = Files::new();
    for definition in vertice_api::crds() {
        let name = definition.metadata.name.as_deref().context("a definition without a name")?;
        let text = yaml(&definition)?;
        files.insert(format!("deploy/crds/{name}.yaml").into(), text.clone());
        files.insert(format!("deploy/charts/vertice/crds/{name}.yaml").into(), text);
    }
    let operators = BTreeMap::from([("backup", vertice_backup::rbac::rules())]);
    for (operator, rules) in operators {
        refuse_wildcards(operator, &rules)?;
        let role = ClusterRole {
            metadata: ObjectMeta {
                name: Some(format!("vertice-operator-{operator}")),
                ..ObjectMeta::default()
            },
            rules: Some(rules.clone()),
            aggregation_rule: None,
        };
        files.insert(format!("deploy/rbac/vertice-operator-{operator}.yaml").into(), yaml(&role)?);
        files.insert(format!("deploy/charts/vertice/generated/rbac/{operator}.yaml").into(), yaml(&rules)?);
    }
    Ok(files)
}

/// Least privilege has no `*`.
fn refuse_wildcards(operator: &str, rules: &[PolicyRule]) -> Result<()> {
    for rule in rules {
        let mut words = rule.api_groups.iter().chain(&rule.resources).flatten().chain(&rule.verbs);
        if words.any(|word| word.contains('*')) {
            bail!("the operator {operator} must not ask for a wildcard: {rule:?}");
        }
    }
    Ok(())
}

fn yaml(object: &impl Serialize) -> Result<String> {
    // By way of JSON: the fields' order is then theirs alone, whatever the types' own is.
    let value = serde_json::to_value(object)?;
    Ok(format!("{HEADER}{}", serde_saphyr::to_string(&value)?))
}

/// Files that differ from what they should be, and those that should not be there.
fn stale(root: &Path, wanted: &Files) -> Result<Vec<String>> {
    let mut stale: BTreeSet<PathBuf> =
        present(root)?.into_iter().filter(|path| !wanted.contains_key(path)).collect();
    let differs =
        |(path, text): &(&PathBuf, &String)| fs::read_to_string(root.join(path)).ok().as_ref() != Some(text);
    stale.extend(wanted.iter().filter(differs).map(|(path, _)| path.clone()));
    Ok(stale.iter().map(|path| path.display().to_string()).collect())
}

/// The files in the generated folders.
fn present(root: &Path) -> Result<Vec<PathBuf>> {
    let mut present = Vec::new();
    for folder in FOLDERS {
        let path = root.join(folder);
        if !path.exists() {
            continue;
        }
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {folder}"))? {
            present.push(Path::new(folder).join(entry?.file_name()));
        }
    }
    Ok(present)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let told = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(told)?;
    }
    fs::write(path, text).with_context(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_changed_or_too_much_is_stale() {
        let root = tempfile::tempdir().unwrap();
        let wanted = Files::from([
            ("deploy/crds/a.yaml".into(), "a".to_owned()),
            ("deploy/crds/b.yaml".into(), "b".to_owned()),
            ("deploy/rbac/c.yaml".into(), "c".to_owned()),
        ]);
        write(&root.path().join("deploy/crds/a.yaml"), "a").unwrap();
        write(&root.path().join("deploy/crds/b.yaml"), "changed").unwrap();
        write(&root.path().join("deploy/crds/d.yaml"), "left over").unwrap();
        let told = stale(root.path(), &wanted).unwrap();
        assert_eq!(told, ["deploy/crds/b.yaml", "deploy/crds/d.yaml", "deploy/rbac/c.yaml"]);
    }

    #[test]
    fn the_files_are_those_of_the_code() {
        let files = files().unwrap();
        assert!(files.contains_key(Path::new("deploy/crds/verticebackups.vertice.io.yaml")));
        assert!(
            files.keys().all(|path| FOLDERS.iter().any(|folder| path.parent() == Some(Path::new(folder))))
        );
    }

    #[test]
    fn wildcards_are_refused() {
        let rule = PolicyRule { verbs: vec!["*".to_owned()], ..PolicyRule::default() };
        assert!(refuse_wildcards("backup", &[rule]).is_err());
    }
}
