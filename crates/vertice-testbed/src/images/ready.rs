//! The images that every cluster or test needs.

use super::debian::Debian;
use super::layer::{Entry, Owner};
use super::{Config, Error, Image, NONROOT, debian, from_files};
use crate::parts::Parts;
use crate::paths::Paths;

/// The user and group of PostgreSQL in the image, as in the well-known one.
const POSTGRES: u32 = 999;

/// The first process of every pod.
pub fn pause(paths: &Paths, parts: &Parts) -> Result<Image, Error> {
    static_program(paths, parts, "pause")
}

/// Cluster DNS.
pub fn coredns(paths: &Paths, parts: &Parts) -> Result<Image, Error> {
    static_program(paths, parts, "coredns")
}

/// The resource metrics API.
pub fn metrics_server(paths: &Paths, parts: &Parts) -> Result<Image, Error> {
    static_program(paths, parts, "metrics-server")
}

/// An S3 gateway over the folder `/data`, on port 7070. It needs `ROOT_ACCESS_KEY` and `ROOT_SECRET_KEY` in its
/// environment and takes its other settings from there, too (`VGW_…`).
pub fn versitygw(paths: &Paths, parts: &Parts) -> Result<Image, Error> {
    let entries = [program(parts, "versitygw"), Entry::folder("/data", 0o755, Owner::of(NONROOT))];
    let config = Config::new(NONROOT, "/versitygw").command(["--port", ":7070", "posix", "/data"]);
    from_files(paths, parts.ledger(), "versitygw", &entries, &config)
}

fn static_program(paths: &Paths, parts: &Parts, name: &str) -> Result<Image, Error> {
    let config = Config::new(NONROOT, &format!("/{name}"));
    from_files(paths, parts.ledger(), name, &[program(parts, name)], &config)
}

fn program(parts: &Parts, name: &str) -> Entry {
    Entry::program(format!("/{name}"), parts.bin(name))
}

/// PostgreSQL 15 with its client tools. It takes the settings of the well-known image of that name:
/// `POSTGRES_USER`, `POSTGRES_PASSWORD` or `POSTGRES_PASSWORD_FILE`, `POSTGRES_DB`, `PGDATA`.
pub fn postgres15(paths: &Paths, parts: &Parts) -> Result<Image, Error> {
    let entries = [
        Entry::script(
            "/usr/local/bin/entrypoint.sh",
            include_str!("../../../../testbed/images/postgres/entrypoint.sh"),
        ),
        Entry::folder("/var/lib/postgresql/data", 0o777, Owner::of(POSTGRES)),
        // For the socket; made at boot where there is a boot.
        Entry::folder("/run/postgresql", 0o3777, Owner::of(POSTGRES)),
    ];
    let mut config =
        Config::new(POSTGRES, "/usr/local/bin/entrypoint.sh").command(["postgres"]).environment([
            "PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            "PGDATA=/var/lib/postgresql/data/pgdata",
        ]);
    // Fast shutdown: sessions are ended. What `SIGTERM` asks for waits for clients to leave by themselves.
    config.stop_signal = Some("SIGINT".to_owned());
    debian(paths, parts.ledger(), "postgres", &POSTGRES_PACKAGES, &entries, &config)
}

const POSTGRES_PACKAGES: Debian = Debian {
    suite: "bookworm",
    packages: &["postgresql-15"],
    // The package would give its user whatever number is free, and would make a database cluster of its own.
    before_install: r#"
set -eu
echo 'postgres:x:999:999:PostgreSQL administrator:/var/lib/postgresql:/bin/sh' >> "$1/etc/passwd"
echo 'postgres:x:999:' >> "$1/etc/group"
echo 'postgres:!:1::::::' >> "$1/etc/shadow"
mkdir -p "$1/etc/postgresql-common"
echo 'create_main_cluster = false' > "$1/etc/postgresql-common/createcluster.conf"
"#,
    trim: &[
        // Just-in-time compilation, which PostgreSQL does without when the library is not there: 170 MB.
        "/usr/lib/*/libLLVM*",
        "/usr/lib/*/libz3.so*",
        "/usr/lib/postgresql/15/lib/bitcode",
        "/usr/lib/postgresql/15/lib/llvmjit*",
        // Debian's wrappers around several clusters are in Perl, and not used here.
        "/usr/share/perl",
        "/usr/share/perl5",
        "/usr/lib/*/perl",
        "/usr/share/postgresql-common",
        // Sources of locales; C.UTF-8 is compiled in.
        "/usr/share/i18n",
        "/usr/share/gcc",
        "/usr/share/zoneinfo/right",
        "/usr/share/zoneinfo/posix",
    ],
};

#[cfg(test)]
mod tests;
