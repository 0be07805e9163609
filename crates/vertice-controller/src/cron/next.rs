//! `SpecSchedule.Next` of <https://github.com/robfig/cron/blob/v3.0.1/spec.go>, step by step, on [`Moment`]s that behave as
//! Go's `time.Time` does.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

use super::Fields;
use super::field::{Bits, STAR};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

/// The first firing strictly after `instant`.
pub(super) fn next_after(fields: &Fields, zone: &TimeZone, instant: Timestamp) -> Option<Timestamp> {
    if fields.minute == 0 || fields.hour == 0 || fields.month == 0 {
        // A field of commas only allows nothing: not worth five years of minutes.
        return None;
    }
    let start = Moment::at(zone, floor_second(instant) + 1)?;
    let last_year = start.local.year() + 5;
    let mut search = Search { fields, moment: start, moved: false };
    while search.moment.local.year() <= last_year {
        // Each step goes to the first moment that its field allows, or wraps around: then all are checked again.
        if search.month()? && search.day()? && search.hour()? && search.minute()? && search.second()? {
            return Timestamp::from_second(search.moment.second).ok();
        }
    }
    None
}

/// The second that `instant` lies in.
pub(super) fn floor_second(instant: Timestamp) -> i64 {
    let second = instant.as_second();
    if instant.subsec_nanosecond() < 0 { second - 1 } else { second }
}

struct Search<'a> {
    fields: &'a Fields,
    moment: Moment<'a>,
    /// Whether any field was advanced: from then on the smaller ones begin at their lowest value.
    moved: bool,
}

/// Steps answer true when their field fits and false when they wrapped around; none when there is no way on.
impl Search<'_> {
    fn month(&mut self) -> Option<bool> {
        while !has(self.fields.month, self.moment.local.month()) {
            if !self.moved {
                self.moved = true;
                let first = self.moment.local.date().first_of_month();
                self.moment = self.moment.on(first.into())?;
            }
            self.moment = self.moment.months_later(1)?;
            if self.moment.local.month() == 1 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn day(&mut self) -> Option<bool> {
        while !self.day_fits() {
            if !self.moved {
                self.moved = true;
                self.moment = self.moment.on(self.moment.local.date().into())?;
            }
            let before = self.moment.second;
            let tomorrow = self.moment.local.date().tomorrow().ok()?;
            self.moment = self.moment.on(tomorrow.to_datetime(self.moment.local.time()))?;
            // Where midnight does not exist, the clock shows 23 or 1 o'clock now.
            let hour = i64::from(self.moment.local.hour());
            if hour != 0 {
                let correction = if hour > 12 { 24 - hour } else { -hour };
                self.moment = self.moment.later(correction * HOUR)?;
            }
            // Where a place moved over the date line, tomorrow does not exist: the original goes round in circles here.
            if self.moment.second <= before {
                return None;
            }
            if self.moment.local.day() == 1 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn hour(&mut self) -> Option<bool> {
        while !has(self.fields.hour, self.moment.local.hour()) {
            if !self.moved {
                self.moved = true;
                let local = self.moment.local;
                self.moment = self.moment.on(local.date().at(local.hour(), 0, 0, 0))?;
            }
            self.moment = self.moment.later(HOUR)?;
            if self.moment.local.hour() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn minute(&mut self) -> Option<bool> {
        while !has(self.fields.minute, self.moment.local.minute()) {
            if !self.moved {
                self.moved = true;
                // By the universal clock, not the local one: they differ where an offset has seconds.
                self.moment = self.moment.later(-self.moment.second.rem_euclid(MINUTE))?;
            }
            self.moment = self.moment.later(MINUTE)?;
            if self.moment.local.minute() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }

    /// The grammar has no field of seconds: second 0 alone is allowed.
    fn second(&mut self) -> Option<bool> {
        while self.moment.local.second() != 0 {
            self.moved = true;
            self.moment = self.moment.later(1)?;
            if self.moment.local.second() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Both day fields must fit when one of them is a star, else either is enough.
    fn day_fits(&self) -> bool {
        let date = self.moment.local.date();
        let Fields { day_of_month, day_of_week, .. } = *self.fields;
        let of_month = has(day_of_month, date.day());
        let of_week = has(day_of_week, date.weekday().to_sunday_zero_offset());
        if (day_of_month | day_of_week) & STAR != 0 { of_month && of_week } else { of_month || of_week }
    }
}

fn has(bits: Bits, value: i8) -> bool {
    bits & (1 << value) != 0
}

/// An instant and what the clock of a place shows then.
#[derive(Clone, Copy)]
struct Moment<'a> {
    zone: &'a TimeZone,
    /// Unix seconds.
    second: i64,
    local: DateTime,
}

impl<'a> Moment<'a> {
    fn at(zone: &'a TimeZone, second: i64) -> Option<Self> {
        let instant = Timestamp::from_second(second).ok()?;
        Some(Self { zone, second, local: zone.to_offset(instant).to_datetime(instant) })
    }

    /// Go's `Add`.
    fn later(self, seconds: i64) -> Option<Self> {
        Self::at(self.zone, self.second + seconds)
    }

    /// Go's `Date`: the instant at which the clock shows `local`. Where the clock skips or repeats that time, the offset is the
    /// one that holds at `local` read as universal time and shifted by the offset that holds there.
    fn on(self, local: DateTime) -> Option<Self> {
        let as_utc = Offset::UTC.to_timestamp(local).ok()?.as_second();
        let guess = offset(self.zone, as_utc)?;
        Self::at(self.zone, as_utc - offset(self.zone, as_utc - guess)?)
    }

    /// Go's `AddDate(0, months, 0)`: 31 January and a month is 3 March.
    fn months_later(self, months: i16) -> Option<Self> {
        let date = self.local.date();
        let month = i16::from(date.month()) - 1 + months;
        let first = Date::new(date.year() + month / 12, i8::try_from(month % 12 + 1).ok()?, 1).ok()?;
        let days = jiff::Span::new().days(date.day() - 1);
        self.on(first.checked_add(days).ok()?.to_datetime(self.local.time()))
    }
}

/// Seconds east of Greenwich at a unix second.
fn offset(zone: &TimeZone, second: i64) -> Option<i64> {
    Some(i64::from(zone.to_offset(Timestamp::from_second(second).ok()?).seconds()))
}
