//! What the catalog says of a server's databases, and the statements that say it again.

use serde::Deserialize;
use vertice_catalog::manifest::Database;

use super::error::PostgresError;
use super::quote::{ident, literal, setting};
use super::restore::{MARK, is_scratch};
use super::session::Session;

/// `to_jsonb` of the row, because columns came and went: `datlocprovider` (15), `daticulocale` (15, 16), `daticurules` (16),
/// `datlocale` (17). A connection limit of -2 marks a database whose dropping was cut off.
const QUERY: &str = r#"SELECT coalesce(json_agg(row_to_json(x) ORDER BY x.name), '[]') FROM (
    SELECT d.datname AS name,
        pg_get_userbyid(d.datdba) AS owner,
        pg_encoding_to_char(d.encoding) AS encoding,
        d.datcollate AS "collate",
        d.datctype AS ctype,
        CASE to_jsonb(d) ->> 'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END AS provider,
        coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
        to_jsonb(d) ->> 'daticurules' AS icu_rules,
        d.datconnlimit AS connection_limit,
        CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) ELSE 0 END AS disk_bytes,
        shobj_description(d.oid, 'pg_database') AS comment,
        (SELECT json_agg(json_build_object('role', r.rolname, 'values', s.setconfig) ORDER BY r.rolname NULLS FIRST)
            FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid) AS settings,
        d.datacl IS NOT NULL AS own_privileges,
        (SELECT json_agg(json_build_object('role', r.rolname, 'right', a.privilege_type, 'grantable', a.is_grantable)
                ORDER BY r.rolname NULLS FIRST, a.privilege_type)
            FROM aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee) AS privileges
    FROM pg_database d WHERE NOT d.datistemplate AND d.datallowconn AND d.datconnlimit <> -2) x;"#;

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    owner: String,
    encoding: String,
    collate: String,
    ctype: String,
    provider: String,
    locale: Option<String>,
    icu_rules: Option<String>,
    connection_limit: i64,
    disk_bytes: u64,
    comment: Option<String>,
    settings: Option<Vec<Settings>>,
    own_privileges: bool,
    privileges: Option<Vec<Privilege>>,
}

#[derive(Debug, Deserialize)]
struct Settings {
    role: Option<String>,
    values: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Privilege {
    role: Option<String>,
    right: String,
    grantable: bool,
}

/// The databases to back up: those of `wanted`, or all that one can connect to, without templates and without what a restore
/// is just making.
pub(super) async fn select(
    session: &Session,
    wanted: Option<&[String]>,
) -> Result<Vec<Database>, PostgresError> {
    let rows: Vec<Row> = session.json("template1", "list the databases", QUERY).await?;
    let mut databases: Vec<_> = rows.into_iter().filter(|row| !is_under_restore(row)).map(describe).collect();
    if let Some(wanted) = wanted {
        let missing: Vec<_> = wanted
            .iter()
            .filter(|name| databases.iter().all(|found| found.name != **name))
            .cloned()
            .collect();
        if !missing.is_empty() {
            let there = databases.into_iter().map(|found| found.name).collect();
            return Err(PostgresError::NoSuchDatabase { place: session.server(), wanted: missing, there });
        }
        databases.retain(|found| wanted.contains(&found.name));
    }
    for (number, database) in databases.iter_mut().enumerate() {
        database.object = format!("databases/{number}.dump");
    }
    Ok(databases)
}

fn is_under_restore(row: &Row) -> bool {
    match &row.comment {
        Some(comment) => comment.starts_with(MARK),
        None => is_scratch(&row.name, row.connection_limit),
    }
}

fn describe(row: Row) -> Database {
    let properties = properties(&row);
    Database {
        name: row.name,
        object: String::new(),
        owner: row.owner,
        encoding: row.encoding,
        collate: row.collate,
        ctype: row.ctype,
        locale_provider: row.provider,
        locale: row.locale,
        icu_rules: row.icu_rules,
        properties,
        disk_bytes: row.disk_bytes,
    }
}

fn properties(row: &Row) -> Vec<String> {
    let mut statements = Vec::new();
    if row.connection_limit != -1 {
        statements.push(format!("ALTER DATABASE :\"database\" CONNECTION LIMIT {};", row.connection_limit));
    }
    for settings in row.settings.iter().flatten() {
        let whose = settings.role.as_ref().map_or_else(
            || "ALTER DATABASE :\"database\"".to_owned(),
            |role| format!("ALTER ROLE {} IN DATABASE :\"database\"", ident(role)),
        );
        for entry in &settings.values {
            if let Some((name, value)) = entry.split_once('=') {
                statements.push(format!("{whose} SET {} TO {};", ident(name), setting(name, value)));
            }
        }
    }
    if row.own_privileges {
        // What is stored replaces the defaults, which a new database has.
        statements.push("REVOKE ALL ON DATABASE :\"database\" FROM PUBLIC;".to_owned());
        statements.push(format!("REVOKE ALL ON DATABASE :\"database\" FROM {};", ident(&row.owner)));
        for granted in row.privileges.iter().flatten() {
            let role = granted.role.as_ref().map_or_else(|| "PUBLIC".to_owned(), |role| ident(role));
            let option = if granted.grantable { " WITH GRANT OPTION" } else { "" };
            statements.push(format!("GRANT {} ON DATABASE :\"database\" TO {role}{option};", granted.right));
        }
    }
    if let Some(comment) = &row.comment {
        statements.push(format!("COMMENT ON DATABASE :\"database\" IS {};", literal(comment)));
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_statements_for_any_name() {
        let row: Row = serde_json::from_value(serde_json::json!({
            "name": "orders", "owner": "shop", "encoding": "UTF8", "collate": "C.UTF-8", "ctype": "C", "provider": "libc",
            "locale": null, "icu_rules": null, "connection_limit": 40, "disk_bytes": 7, "comment": "it's :\"database\"",
            "settings": [
                {"role": null, "values": ["search_path=\"$user\", public", "work_mem=64MB"]},
                {"role": "re\"porter", "values": ["app.mode=a\\b"]}
            ],
            "own_privileges": true,
            "privileges": [
                {"role": null, "right": "CONNECT", "grantable": false},
                {"role": "shop", "right": "CREATE", "grantable": true}
            ]
        }))
        .unwrap();
        insta::assert_snapshot!(properties(&row).join("\n"));
    }
}
