//! Where each seeded fault is looked for: the stories that touch it, and the strikes that are likeliest to show it.

use std::fmt;

use clap::ValueEnum;
use vertice_agent::mutant::Mutant as Agent;
use vertice_controller::mutant::Mutant as Operator;

use crate::scenarios::Story;

use super::stories::{AGAIN, BROKEN, CHANGES, DAMAGED, INSISTED, REMOVED, RESTORED, RUNS};

/// A seeded fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Of the operator.
    Operator(Operator),
    /// Of the agent.
    Agent(Agent),
}

impl Mutant {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let operator = Operator::value_variants().iter().copied().map(Self::Operator);
        operator.chain(Agent::value_variants().iter().copied().map(Self::Agent))
    }

    /// Its name: lower case with dashes.
    #[must_use]
    pub fn name(self) -> String {
        self.value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it does.
    #[must_use]
    pub fn what(self) -> String {
        self.value().and_then(|value| Some(value.get_help()?.to_string())).unwrap_or_default()
    }

    fn value(self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::Operator(mutant) => mutant.to_possible_value(),
            Self::Agent(mutant) => mutant.to_possible_value(),
        }
    }

    /// The story that touches it, and the beginnings of the strikes to try after the story in peace, likeliest first.
    pub(super) fn tries(self) -> (&'static Story, &'static [&'static str]) {
        match self {
            Self::Operator(mutant) => of_operator(mutant),
            Self::Agent(mutant) => of_agent(mutant),
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

fn of_operator(mutant: Operator) -> (&'static Story, &'static [&'static str]) {
    match mutant {
        Operator::StatusAlwaysWritten
        | Operator::AppliedAlways
        | Operator::GenerationIgnored
        | Operator::CronJobWithoutOwner
        | Operator::FinalizerForgotten
        | Operator::Heartbeat
        | Operator::SuspendIgnored => (&CHANGES, &[]),
        Operator::DeletionIgnored => (&REMOVED, &[]),
        Operator::ConflictSwallowed => (&RESTORED, &["answer-409/patch verticerestores/status"]),
        Operator::ErrorNotRetried => {
            (&CHANGES, &["answer-500/patch verticebackups/status", "answer-500/patch cronjobs"])
        }
        Operator::RelistedDeletionIgnored => (&REMOVED, &["expire/see the end of cronjobs"]),
        Operator::StatusBeforeCronJob => (&CHANGES, &["kill-before/patch cronjobs"]),
        Operator::InForceInMemory => (&CHANGES, &["kill-after/patch cronjobs"]),
        Operator::CronJobErrorSwallowed => (&CHANGES, &["answer-500/patch cronjobs"]),
        Operator::EventInsteadOfStatus | Operator::CountedByName | Operator::TotalsOfVisibleJobs => {
            (&RUNS, &[])
        }
        Operator::StatusWithoutVersion => (&RUNS, &["lag/see verticebackups"]),
        Operator::ReportFromCacheOnly => (&RUNS, &["lag/see pods"]),
        Operator::CountedInMemory | Operator::LastSuccessInMemory => {
            (&BROKEN, &["kill-after/patch verticebackups/status"])
        }
        Operator::DeadlineKept | Operator::FailureCountedAsSuccess | Operator::LastSuccessIsLastRun => {
            (&BROKEN, &[])
        }
        Operator::OwnerByName => (&AGAIN, &[]),
        Operator::JobNotSuspended | Operator::JobWithoutOwner => (&RESTORED, &[]),
        Operator::ThrottledJobCountsAsMade => (&RESTORED, &["answer-429/create jobs"]),
        Operator::StartErrorSwallowed => (&RESTORED, &["answer-500/patch jobs"]),
        Operator::OwnJobsInMemory => (&RESTORED, &["kill-after/create jobs", "lose-answer/create jobs"]),
        Operator::StartedByMakerOnly => (&RESTORED, &["kill-before/patch jobs"]),
        Operator::StartedByName => (&INSISTED, &["replace/patch jobs"]),
        Operator::EndedByName => (&RESTORED, &["remake-after/rest verticerestores"]),
        Operator::JobOfSameName => (&RESTORED, &["remake-after/patch verticerestores/status"]),
    }
}

fn of_agent(mutant: Agent) -> (&'static Story, &'static [&'static str]) {
    match mutant {
        Agent::ManifestFirst | Agent::LeftoversKept => {
            (&RUNS, &["kill-after/s3 put databases", "kill-before/s3 put manifest.json"])
        }
        Agent::ReportBeforeManifest => (&RUNS, &["kill-before/s3 put manifest.json"]),
        Agent::ClaimKept | Agent::PasswordLogged => (&RUNS, &[]),
        Agent::OwnMarkNotKnown => (&RUNS, &["lose-answer/s3 put owner.json"]),
        Agent::OwnClaimNotKnown => (&RUNS, &["lose-answer/s3 put claim.json"]),
        Agent::PasswordReported => (&BROKEN, &[]),
        Agent::ChecksumIgnored | Agent::UndoForgotten | Agent::OldDroppedFirst => (&DAMAGED, &[]),
    }
}
