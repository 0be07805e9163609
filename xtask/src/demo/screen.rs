//! What the demo shows: a line a step, with a spinner while it runs and its time when it is done.

use std::time::{Duration, Instant};

use console::style;
use indicatif::{ProgressBar, ProgressStyle};

/// Width of the column with the steps' names.
const NAME_WIDTH: usize = 16;
/// Width of the column with what a step found.
const TEXT_WIDTH: usize = 76;

/// A step under way.
pub struct Step {
    name: &'static str,
    start: Instant,
    bar: ProgressBar,
}

impl Step {
    /// Shows that `name` has begun.
    pub fn begin(name: &'static str, doing: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        // The template is ours and valid; a spinner without it would still spin.
        if let Ok(style) = ProgressStyle::with_template("  {spinner:.cyan} {prefix} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_prefix(format!("{name:NAME_WIDTH$}"));
        bar.set_message(doing.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        if bar.is_hidden() {
            eprintln!("  … {name:NAME_WIDTH$} {doing}");
        }
        Self { name, start: Instant::now(), bar }
    }

    /// A listener for what the step does meanwhile.
    pub fn listener(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let bar = self.bar.clone();
        move |line| {
            if bar.is_hidden() {
                eprintln!("    {line}");
            } else {
                bar.set_message(line.to_owned());
            }
        }
    }

    /// Takes the spinner away, for a program that draws its own progress.
    pub fn give_way(&self) {
        self.bar.finish_and_clear();
    }

    /// The step is done; returns its seconds.
    pub fn done(self, found: &str) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64();
        self.bar.finish_and_clear();
        let (mark, name) = (style("✓").green().bold(), format!("{:NAME_WIDTH$}", self.name));
        let time = style(format!("{seconds:>6.1} s")).dim();
        eprintln!("  {mark} {} {found:TEXT_WIDTH$} {time}", style(name).bold());
        seconds
    }

    /// The step fell short.
    pub fn failed(self, why: &str) {
        self.bar.finish_and_clear();
        let (mark, name) = (style("✗").red().bold(), format!("{:NAME_WIDTH$}", self.name));
        eprintln!("  {mark} {} {why}", style(name).bold());
    }
}

/// A headline.
pub fn headline(text: &str) {
    eprintln!("\n{}\n", style(text).bold());
}

/// Text that a program printed, set apart.
pub fn quote(command: &str, text: &str) {
    eprintln!("\n    {} {command}", style("$").dim());
    for line in text.lines() {
        eprintln!("    {line}");
    }
    eprintln!();
}
