//! Plain bytes to stored bytes and back: compression between two checksums.

use std::io::{self, Write};

use flate2::write::{GzEncoder, MultiGzDecoder};
use vertice_catalog::manifest::{Compression, Digest};
use zstd::zstd_safe::CParameter;

use super::digest::Hashing;

/// From this level on zstd's own tables would take more memory than the whole agent may.
const ZSTD_CAPPED_FROM: i32 = 13;

/// Compresses what is written to it into `W`.
#[derive(Debug)]
pub struct Encoder<W: Write> {
    plain: Hashing<Compress<W>>,
}

/// What was encoded, and into what.
#[derive(Debug)]
pub struct Encoded<W> {
    /// Before compression.
    pub plain: Digest,
    /// After it.
    pub stored: Digest,
    /// The sink.
    pub sink: W,
}

enum Compress<W: Write> {
    Gzip(GzEncoder<Hashing<W>>),
    Zstd(zstd::stream::write::Encoder<'static, Hashing<W>>),
    None(Hashing<W>),
}

impl<W: Write> std::fmt::Debug for Compress<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
            Self::None(_) => "None",
        })
    }
}

impl<W: Write> Write for Compress<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(inner) => inner.write(data),
            Self::Zstd(inner) => inner.write(data),
            Self::None(inner) => inner.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(inner) => inner.flush(),
            Self::Zstd(inner) => inner.flush(),
            Self::None(inner) => inner.flush(),
        }
    }
}

impl<W: Write> Encoder<W> {
    /// Into `sink`; the format's default without a level.
    pub fn new(compression: Compression, level: Option<i32>, sink: W) -> io::Result<Self> {
        let stored = Hashing::new(sink);
        let compress = match compression {
            Compression::Gzip => {
                let level = level.and_then(|level| u32::try_from(level).ok()).unwrap_or(6);
                Compress::Gzip(GzEncoder::new(stored, flate2::Compression::new(level.clamp(1, 9))))
            }
            Compression::Zstd => Compress::Zstd(zstd_encoder(level, stored)?),
            Compression::None => Compress::None(stored),
        };
        Ok(Self { plain: Hashing::new(compress) })
    }

    /// Ends the format and tells both digests.
    pub fn finish(self) -> io::Result<Encoded<W>> {
        let (plain, compress) = self.plain.finish();
        let stored = match compress {
            Compress::Gzip(inner) => inner.finish()?,
            Compress::Zstd(inner) => inner.finish()?,
            Compress::None(inner) => inner,
        };
        let (stored, sink) = stored.finish();
        Ok(Encoded { plain, stored, sink })
    }
}

fn zstd_encoder<W: Write>(
    level: Option<i32>,
    sink: W,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).clamp(1, 19);
    let mut encoder = zstd::stream::write::Encoder::new(sink, level)?;
    // zstd's own checksum lets `zstd -t` judge an object without our manifest.
    encoder.include_checksum(true)?;
    if level >= ZSTD_CAPPED_FROM {
        encoder.set_parameter(CParameter::WindowLog(22))?;
        encoder.set_parameter(CParameter::ChainLog(22))?;
        encoder.set_parameter(CParameter::HashLog(21))?;
    }
    Ok(encoder)
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.plain.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.plain.flush()
    }
}

/// Decompresses what is written to it into `W`. After an error it only hashes what was stored, so that a damaged object is
/// told by its checksum and not by whatever the damage did to the format.
pub struct Decoder<W: Write> {
    stored: Hashing<io::Sink>,
    decompress: Decompress<W>,
    error: Option<io::Error>,
}

/// What was decoded.
#[derive(Debug)]
pub struct Decoded {
    /// As it came.
    pub stored: Digest,
    /// What it held, or why that is not known.
    pub plain: Result<Digest, io::Error>,
}

enum Decompress<W: Write> {
    Gzip(Box<MultiGzDecoder<Hashing<W>>>),
    Zstd(zstd::stream::write::Decoder<'static, Hashing<W>>),
    None(Hashing<W>),
}

impl<W: Write> std::fmt::Debug for Decoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("stored", &self.stored).finish_non_exhaustive()
    }
}

impl<W: Write> Decoder<W> {
    /// Into `sink`.
    pub fn new(compression: Compression, sink: W) -> io::Result<Self> {
        let plain = Hashing::new(sink);
        let decompress = match compression {
            Compression::Gzip => Decompress::Gzip(Box::new(MultiGzDecoder::new(plain))),
            Compression::Zstd => Decompress::Zstd(zstd::stream::write::Decoder::new(plain)?),
            Compression::None => Decompress::None(plain),
        };
        Ok(Self { stored: Hashing::new(io::sink()), decompress, error: None })
    }

    /// Takes stored bytes in.
    pub fn push(&mut self, data: &[u8]) {
        self.stored.absorb(data);
        if self.error.is_some() {
            return;
        }
        let written = match &mut self.decompress {
            Decompress::Gzip(inner) => inner.write_all(data),
            Decompress::Zstd(inner) => inner.write_all(data),
            Decompress::None(inner) => inner.write_all(data),
        };
        self.error = written.err();
    }

    /// Ends it.
    pub fn finish(self) -> Decoded {
        let (stored, _) = self.stored.finish();
        let plain = match (self.error, self.decompress) {
            (Some(error), _) => Err(error),
            (None, Decompress::Gzip(inner)) => inner.finish(),
            (None, Decompress::Zstd(mut inner)) => inner.flush().map(|()| inner.into_inner()),
            (None, Decompress::None(inner)) => Ok(inner),
        };
        Decoded { stored, plain: plain.map(|plain| plain.finish().0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn encode(compression: Compression, level: Option<i32>, chunks: &[Vec<u8>]) -> Encoded<Vec<u8>> {
        let mut encoder = Encoder::new(compression, level, Vec::new()).unwrap();
        for chunk in chunks {
            encoder.write_all(chunk).unwrap();
        }
        encoder.finish().unwrap()
    }

    fn decode(compression: Compression, stored: &[u8], step: usize) -> (Decoded, Vec<u8>) {
        let mut plain = Vec::new();
        let mut decoder = Decoder::new(compression, &mut plain).unwrap();
        for piece in stored.chunks(step) {
            decoder.push(piece);
        }
        (decoder.finish(), plain)
    }

    fn sha256(data: &[u8]) -> String {
        hex::encode(Sha256::digest(data))
    }

    fn any_compression() -> impl Strategy<Value = (Compression, Option<i32>)> {
        prop_oneof![
            prop::option::of(1..=9).prop_map(|level| (Compression::Gzip, level)),
            prop::option::of(1..=19).prop_map(|level| (Compression::Zstd, level)),
            Just((Compression::None, None)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_goes_in_comes_out_whatever_the_pieces(
            (compression, level) in any_compression(),
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8),
            step in 1_usize..5000,
        ) {
            let whole = chunks.concat();
            let encoded = encode(compression, level, &chunks);
            prop_assert_eq!(encoded.plain.bytes, whole.len() as u64);
            prop_assert_eq!(&encoded.plain.sha256, &sha256(&whole));
            prop_assert_eq!(&encoded.stored.sha256, &sha256(&encoded.sink));
            let (decoded, plain) = decode(compression, &encoded.sink, step);
            prop_assert_eq!(plain, whole);
            prop_assert_eq!(decoded.stored, encoded.stored);
            prop_assert_eq!(decoded.plain.unwrap(), encoded.plain);
        }

        #[test]
        fn a_flipped_bit_changes_the_stored_checksum_even_when_decoding_breaks(
            (compression, level) in any_compression(),
            data in prop::collection::vec(any::<u8>(), 1..3000),
            place in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let encoded = encode(compression, level, &[data]);
            let mut damaged = encoded.sink.clone();
            let place = place.index(damaged.len());
            damaged[place] ^= 1 << bit;
            let (decoded, _) = decode(compression, &damaged, 100);
            prop_assert_eq!(decoded.stored.bytes, encoded.stored.bytes);
            prop_assert_ne!(decoded.stored.sha256, encoded.stored.sha256);
        }
    }

    #[test]
    fn other_programs_read_what_is_stored() {
        // RFC 1952 and RFC 8878 magic numbers: the names `.gz` and `.zst` are honest.
        assert_eq!(encode(Compression::Gzip, None, &[vec![7; 10]]).sink[..2], [0x1f, 0x8b]);
        assert_eq!(encode(Compression::Zstd, None, &[vec![7; 10]]).sink[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    }
}
