//! Bytes and rates for people, in powers of 1000 as disks and object stores count.

const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];

/// `0B`, `999B`, `1.2GB`.
pub fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count}B");
    }
    // Only shown with one decimal: the loss of precision above 2^52 cannot be seen.
    #[allow(clippy::cast_precision_loss)]
    let mut value = count as f64;
    let mut unit = 0;
    // 999.95 would print as 1000.0 of the smaller unit.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

/// `48.1MB/s`; `-` when no time passed.
pub fn rate(count: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return "-".to_owned();
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let per_second = (count as f64 / seconds) as u64;
    format!("{}/s", bytes(per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_decimal_and_the_next_unit_in_time() {
        let shown: Vec<_> = [0, 999, 1000, 999_949, 999_950, 1_234_567_890, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0B", "999B", "1.0kB", "999.9kB", "1.0MB", "1.2GB", "18446.7PB"]);
    }

    #[test]
    fn rates() {
        assert_eq!(rate(96_200_000, 2.0), "48.1MB/s");
        assert_eq!(rate(5, 0.0), "-");
    }
}
