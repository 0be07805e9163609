//! etcd, on a Unix socket in the run's folder: no port, and nobody else can open it.

use std::path::{Path, PathBuf};

use super::{Error, Place};
use crate::parts::Parts;
use crate::process::Process;

#[derive(Debug)]
pub(crate) struct EtcdServer {
    socket: PathBuf,
    process: Process,
}

impl EtcdServer {
    pub(crate) fn start(place: &Place, parts: &Parts, fsync: bool) -> Result<Self, Error> {
        let dir = place.run().dir();
        let socket = dir.join("etcd.sock");
        let mut command = place.command(parts.bin("etcd"));
        command.arg(format!("--data-dir={}", dir.join("etcd").display()));
        command.arg(format!("--listen-client-urls=unix://{}", socket.display()));
        command.arg(format!("--listen-peer-urls=unix://{}", dir.join("etcd-peer.sock").display()));
        // A lone member calls nobody, but must have an address to be called by.
        command.arg("--advertise-client-urls=http://127.0.0.1:2379");
        command.arg("--initial-advertise-peer-urls=http://127.0.0.1:2380");
        command.arg("--initial-cluster=default=http://127.0.0.1:2380");
        command.args(["--log-level=warn", "--auto-compaction-retention=0"]);
        // As kubeadm sets it: without it a kind that never changes sends its watchers no bookmark for ten minutes.
        command.arg("--watch-progress-notify-interval=5s");
        if !fsync {
            command.arg("--unsafe-no-fsync");
        }
        Ok(Self { socket, process: place.spawn(None, "etcd", command)? })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn into_process(self) -> Process {
        self.process
    }
}
