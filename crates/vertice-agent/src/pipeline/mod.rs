//! What happens to bytes between an engine and the store: checksum, compress, checksum, upload; and back.
//!
//! Everything is streamed through short queues, so memory stays flat. Compression runs on a thread of its own.

pub mod codec;
mod digest;
mod fetch;
mod store;

pub use fetch::{FetchError, fetch};
pub use store::{Destination, StoreError, store};

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes of one piece in a queue.
pub const PIECE: usize = 256 * 1024;
/// Pieces in a queue.
const QUEUE: usize = 8;

/// A queue of pieces.
fn queue() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(QUEUE)
}

/// Gathers what is written and sends it on in pieces, from a thread that may block.
#[derive(Debug)]
struct Pieces {
    gathered: BytesMut,
    to: mpsc::Sender<Bytes>,
}

impl Pieces {
    fn new(to: mpsc::Sender<Bytes>) -> Self {
        Self { gathered: BytesMut::with_capacity(PIECE), to }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = self.gathered.split().freeze();
        self.gathered.reserve(PIECE);
        self.to.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= PIECE {
            self.send()?;
        }
        Ok(data.len())
    }

    /// Does nothing: a piece is sent when it is full, and the last one by [`Pieces::send`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
