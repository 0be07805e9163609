//! Running the engine's tools: their pipes, and their last words when they fail.

use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::PostgresError;
use crate::pipeline::PIECE;
use crate::progress::Progress;

/// Of standard error that much is kept from the beginning, where the cause stands.
const STDERR_KEPT: usize = 16 * 1024;

/// A tool that runs. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    tool: &'static str,
    child: Child,
    stderr: JoinHandle<String>,
}

/// How a tool ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) stderr: String,
}

impl Running {
    pub(super) fn start(tool: &'static str, mut command: Command) -> Result<Self, PostgresError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| PostgresError::Run { tool, source })?;
        let stderr = child.stderr.take();
        let stderr = tokio::spawn(async move {
            match stderr {
                Some(stderr) => beginning(stderr).await,
                None => String::new(),
            }
        });
        Ok(Self { tool, child, stderr })
    }

    fn broken(&self, source: std::io::Error) -> PostgresError {
        PostgresError::Run { tool: self.tool, source }
    }

    fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Gives the tool nothing to read, and sends what it writes on.
    pub(super) async fn send_output(&mut self, to: &mpsc::Sender<Bytes>) -> Result<(), PostgresError> {
        drop(self.stdin());
        let Some(mut stdout) = self.stdout() else { return Ok(()) };
        let mut buffer = BytesMut::with_capacity(PIECE);
        loop {
            let read = stdout.read_buf(&mut buffer).await.map_err(|error| self.broken(error))?;
            // A full piece, or the end: many small reads of a pipe make one piece.
            if buffer.len() >= PIECE / 2 || (read == 0 && !buffer.is_empty()) {
                let piece = buffer.split().freeze();
                buffer.reserve(PIECE);
                if to.send(piece).await.is_err() {
                    // The other end failed; it tells why, and ends us.
                    return std::future::pending().await;
                }
            }
            if read == 0 {
                return Ok(());
            }
        }
    }

    /// Gives the tool what comes in. It may stop reading early: then its exit status tells why.
    pub(super) async fn receive_input(&mut self, from: &mut mpsc::Receiver<Bytes>, progress: &Progress) {
        let Some(mut stdin) = self.stdin() else { return };
        while let Some(piece) = from.recv().await {
            progress.add_plain(piece.len() as u64);
            if stdin.write_all(&piece).await.is_err() {
                return;
            }
        }
    }

    /// Gives the tool `input` and returns what it writes.
    pub(super) async fn exchange(&mut self, input: &str) -> Result<String, PostgresError> {
        let (stdin, stdout) = (self.stdin(), self.stdout());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A tool that ended before it read all tells why on standard error.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let read = async {
            let mut output = Vec::new();
            if let Some(mut stdout) = stdout {
                stdout.read_to_end(&mut output).await?;
            }
            Ok(String::from_utf8_lossy(&output).into_owned())
        };
        let ((), output) = tokio::join!(write, read);
        output.map_err(|error| self.broken(error))
    }

    /// Waits for its end.
    pub(super) async fn end(mut self) -> Result<Ended, PostgresError> {
        let status = self.child.wait().await.map_err(|error| self.broken(error))?;
        let mut stderr = self.stderr.await.unwrap_or_default();
        if !status.success() && stderr.trim().is_empty() {
            // Killed, most likely for want of memory: it had no time for words.
            stderr = format!("{}: error: ended by {status} without a word", self.tool);
        }
        Ok(Ended { success: status.success(), stderr })
    }
}

/// Reads all, keeps the beginning.
async fn beginning(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 4096];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        let room = STDERR_KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Running {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        Running::start("sh", command).unwrap()
    }

    #[tokio::test]
    async fn a_tool_that_dies_without_a_word_is_told_by_its_status() {
        let ended = shell("kill -9 $$").end().await.unwrap();
        assert!(!ended.success);
        assert!(ended.stderr.contains("signal: 9"), "{}", ended.stderr);
    }

    #[tokio::test]
    async fn noise_without_end_is_read_and_its_beginning_kept() {
        let ended = shell("echo first >&2; yes noise | head -c 3000000 >&2; exit 3").end().await.unwrap();
        assert!(!ended.success && ended.stderr.starts_with("first\n") && ended.stderr.len() == STDERR_KEPT);
    }

    #[tokio::test]
    async fn one_that_reads_nothing_does_not_block() {
        let mut running = shell("echo hello");
        let input = "x".repeat(1_000_000);
        assert_eq!(running.exchange(&input).await.unwrap(), "hello\n");
        assert!(running.end().await.unwrap().success);
    }
}
