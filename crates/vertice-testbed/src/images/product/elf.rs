//! Is a program static? One that is not fails in an empty image with "no such file", which tells nobody why.

/// The program header that names the loader. See `elf(5)`.
const PT_INTERP: u32 = 3;
/// Where a 64-bit header says where program headers begin, how long one is, and how many there are.
const OFFSET_AT: usize = 0x20;
const SIZE_AT: usize = 0x36;
const COUNT_AT: usize = 0x38;

/// A 64-bit little-endian ELF program that asks for no loader.
pub(super) fn is_static(program: &[u8]) -> bool {
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        return false;
    }
    loader_asked_for(program) == Some(false)
}

/// `None` when the headers are cut short.
fn loader_asked_for(program: &[u8]) -> Option<bool> {
    let offset = usize::try_from(u64::from_le_bytes(bytes_at(program, OFFSET_AT)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(bytes_at(program, SIZE_AT)?));
    let count = usize::from(u16::from_le_bytes(bytes_at(program, COUNT_AT)?));
    for index in 0..count {
        let kind = u32::from_le_bytes(bytes_at(program, offset.checked_add(index * size)?)?);
        if kind == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

fn bytes_at<const N: usize>(program: &[u8], at: usize) -> Option<[u8; N]> {
    program.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A header with one program header of another kind, padded to `size` bytes.
#[cfg(test)]
pub(super) fn without_loader(size: usize) -> Vec<u8> {
    let mut program = vec![0; size];
    program[..6].copy_from_slice(b"\x7fELF\x02\x01");
    program[OFFSET_AT] = 64;
    program[SIZE_AT] = 56;
    program[COUNT_AT] = 1;
    program[64] = 1; // PT_LOAD
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_decides() {
        let mut program = without_loader(256);
        assert!(is_static(&program));
        program[64] = 3;
        assert!(!is_static(&program));
    }

    #[test]
    fn what_is_no_whole_program_is_not_static() {
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&without_loader(256)[..64]));
    }
}
