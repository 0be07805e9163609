//! SHA-256 and length of what passes through.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use vertice_catalog::manifest::Digest;

/// Hashes what it hands on to `W`.
#[derive(Debug)]
pub(super) struct Hashing<W> {
    hash: Sha256,
    bytes: u64,
    inner: W,
}

impl<W> Hashing<W> {
    /// In front of `inner`.
    pub(super) fn new(inner: W) -> Self {
        Self { hash: Sha256::new(), bytes: 0, inner }
    }

    /// Counts bytes in without handing them on.
    pub(super) fn absorb(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.bytes += data.len() as u64;
    }

    /// The digest of all that passed, and what stands behind it.
    pub(super) fn finish(self) -> (Digest, W) {
        (Digest { bytes: self.bytes, sha256: hex::encode(self.hash.finalize()) }, self.inner)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.absorb(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
