//! A run's progress: a bar at a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vertice_catalog::humane;
use vertice_catalog::report::Progress;

use crate::output;

/// Seconds between plain lines: a log is not a film.
const PLAIN_INTERVAL: f64 = 5.0;
const TICK: Duration = Duration::from_millis(120);
const WIDTH: u64 = 1000;

/// Where progress is shown.
pub(crate) struct Display {
    /// Absent where nobody watches.
    bar: Option<ProgressBar>,
    /// The run's second at which the next plain line is due.
    due: f64,
}

impl Display {
    pub(crate) fn new() -> Self {
        let bar = console::user_attended_stderr().then(|| {
            let bar = ProgressBar::new(WIDTH).with_style(style(false));
            bar.set_message("waiting for the run's pod");
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, due: 0.0 }
    }

    /// One line of the agent's log. What it reports in the course of things shows in the progress; what it warns of is for people.
    pub(crate) fn line(&mut self, line: &str) {
        if let Ok(progress) = serde_json::from_str::<Progress>(line) {
            self.progress(&progress);
        } else if let Some(line) = remark(line) {
            self.note(&line);
        }
    }

    /// Something to keep on the screen.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(line)),
            None => output::note(line),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let Some(bar) = &self.bar else {
            if progress.seconds >= self.due {
                self.due = progress.seconds + PLAIN_INTERVAL;
                output::note(&text(progress));
            }
            return;
        };
        bar.set_message(text(progress));
        if let Some(share) = share(progress) {
            bar.set_style(style(true));
            // A thousandth is finer than a terminal is wide.
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            bar.set_position((share * WIDTH as f64) as u64);
        }
    }
}

/// What a person should read of a log line: warnings and errors in words, and whatever is no log line of the agent's.
fn remark(line: &str) -> Option<String> {
    let log = serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
    let (Some(level), Some(message)) = (log["level"].as_str(), log["fields"]["message"].as_str()) else {
        return Some(line.to_owned());
    };
    let quiet = ["INFO", "DEBUG", "TRACE"].contains(&level);
    (!quiet).then(|| format!("{}: {message}", level.to_lowercase()))
}

fn style(bar: bool) -> ProgressStyle {
    let template = if bar { "{spinner} [{bar:24}] {wide_msg}" } else { "{spinner} {wide_msg}" };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}

/// How much is done, from 0 to 1. What a dump will be is only estimated: such a bar waits just before its end.
fn share(progress: &Progress) -> Option<f64> {
    let expected = progress.expected_bytes.filter(|expected| *expected > 0)?;
    #[allow(clippy::cast_precision_loss)]
    Some((progress.plain_bytes as f64 / expected as f64).min(0.99))
}

/// `dump shop: 12.0MB of 48.0MB, 3.1MB stored, 6.0MB/s`
fn text(progress: &Progress) -> String {
    let Progress { step, object, plain_bytes, stored_bytes, expected_bytes, seconds, .. } = progress;
    let expected = expected_bytes.map_or(String::new(), |bytes| format!(" of {}", humane::bytes(bytes)));
    let (plain, stored) = (humane::bytes(*plain_bytes), humane::bytes(*stored_bytes));
    format!("{step} {object}: {plain}{expected}, {stored} stored, {}", humane::rate(*plain_bytes, *seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_log_people_read_what_is_amiss() {
        let log = |level: &str| {
            format!(
                r#"{{"timestamp":"2026-11-21T14:12:45Z","level":"{level}","fields":{{"message":"told to stop"}},"target":"x"}}"#
            )
        };
        assert_eq!(remark(&log("INFO")), None);
        assert_eq!(remark(&log("WARN")).as_deref(), Some("warn: told to stop"));
        assert_eq!(remark("exec format error").as_deref(), Some("exec format error"));
    }

    fn progress(plain: u64, expected: Option<u64>) -> Progress {
        Progress {
            kind: vertice_catalog::report::ProgressKind::Progress,
            step: "dump".into(),
            object: "shop".into(),
            plain_bytes: plain,
            stored_bytes: 3_100_000,
            expected_bytes: expected,
            seconds: 2.0,
        }
    }

    #[test]
    fn tells_bytes_and_rate() {
        let known = text(&progress(12_000_000, Some(48_000_000)));
        assert_eq!(known, "dump shop: 12.0MB of 48.0MB, 3.1MB stored, 6.0MB/s");
        assert_eq!(text(&progress(12_000_000, None)), "dump shop: 12.0MB, 3.1MB stored, 6.0MB/s");
    }

    #[test]
    fn an_estimate_is_never_complete() {
        assert_eq!(share(&progress(12, Some(48))), Some(0.25));
        assert_eq!(share(&progress(50, Some(48))), Some(0.99));
        assert_eq!(share(&progress(50, Some(0))), None);
        assert_eq!(share(&progress(50, None)), None);
    }

    #[test]
    fn the_styles_are_sound() {
        for bar in [true, false] {
            let template = if bar { "{spinner} [{bar:24}] {wide_msg}" } else { "{spinner} {wide_msg}" };
            assert!(ProgressStyle::with_template(template).is_ok());
            style(bar);
        }
    }
}
