//! Golden cases. The comparison with the original over many thousands of generated ones is `tests/api_cron_oracle.rs`.

use jiff::Timestamp;

use super::{CronError, Rule, Schedule, firing, parse_rule, zone};

fn at(instant: &str) -> Timestamp {
    instant.parse().unwrap()
}

/// The first firings after an instant, in universal time.
fn firings(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(expression, zone).unwrap();
    let next = |instant: &Timestamp| schedule.next_after(*instant);
    std::iter::successors(next(&at(after)), next).take(count).map(|t| t.to_string()).collect()
}

fn refusal(expression: &str) -> String {
    Schedule::parse(expression, "Etc/UTC").unwrap_err().to_string()
}

#[test]
fn a_firing_is_strictly_later_and_on_the_minute() {
    assert_eq!(firings("0 2 * * *", "Etc/UTC", "2026-11-21T02:00:00Z", 1), ["2026-11-22T02:00:00Z"]);
    assert_eq!(firings("0 2 * * *", "Etc/UTC", "2026-11-21T01:59:59.9Z", 1), ["2026-11-21T02:00:00Z"]);
    assert_eq!(
        firings("* * * * *", "Etc/UTC", "1969-12-31T23:58:59.5Z", 2),
        ["1969-12-31T23:59:00Z", "1970-01-01T00:00:00Z"]
    );
}

#[test]
fn an_hour_that_the_clock_skips_has_no_firing() {
    // New York, 8 March 2026: 01:59:59 is followed by 03:00:00.
    assert_eq!(
        firings("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 1),
        ["2026-03-09T06:30:00Z"]
    );
}

#[test]
fn an_hour_that_the_clock_repeats_has_it_twice() {
    // Zürich, 25 October 2026: 02:59:59 is followed by 02:00:00.
    assert_eq!(
        firings("30 2 * * *", "Europe/Zurich", "2026-10-24T12:00:00Z", 3),
        ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]
    );
}

#[test]
fn a_midnight_that_the_clock_skips_moves_to_the_next_day() {
    // São Paulo, 4 November 2018: 23:59:59 is followed by 01:00:00.
    assert_eq!(
        firings("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 1),
        ["2018-11-05T02:00:00Z"]
    );
}

#[test]
fn a_day_that_a_place_skips_ends_the_search() {
    // Fakaofo had no 30 December 2011. The original never returns from this; nobody moves there for now.
    assert!(firings("@weekly", "Pacific/Fakaofo", "2011-12-29T08:33:17Z", 1).is_empty());
    assert_eq!(firings("@weekly", "Pacific/Fakaofo", "2011-12-31T00:00:00Z", 1), ["2011-12-31T11:00:00Z"]);
}

#[test]
fn offsets_of_parts_of_an_hour() {
    assert_eq!(firings("0 6 * * *", "Asia/Kathmandu", "2026-11-21T00:00:00Z", 1), ["2026-11-21T00:15:00Z"]);
    // Lord Howe's clock goes back by half an hour, on 5 April 2026 at 02:00: 01:45 comes twice.
    assert_eq!(
        firings("45 1 5 4 *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2),
        ["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"]
    );
}

#[test]
fn either_day_field_is_enough_unless_one_is_a_star() {
    // The 13th, or a Friday.
    assert_eq!(
        firings("0 0 13 * fri", "Etc/UTC", "2026-11-10T00:00:00Z", 3),
        ["2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z", "2026-11-27T00:00:00Z"]
    );
    // A star with a step restricts nothing here, but no longer counts as a star.
    assert_eq!(
        firings("0 0 */30 * mon", "Etc/UTC", "2026-11-21T00:00:00Z", 2),
        ["2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"]
    );
    assert_eq!(
        firings("0 0 ? * mon", "Etc/UTC", "2026-11-21T00:00:00Z", 2),
        ["2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"]
    );
}

#[test]
fn what_never_comes_is_given_up_after_five_years() {
    assert!(firings("0 0 30 2 *", "Etc/UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    assert_eq!(firings("0 0 29 2 *", "Etc/UTC", "2028-03-01T00:00:00Z", 1), ["2032-02-29T00:00:00Z"]);
    // 2100 has no 29 February, and 2104 is eight years away.
    assert!(firings("0 0 29 2 *", "Etc/UTC", "2096-03-01T00:00:00Z", 1).is_empty());
    assert!(firings(", * * * *", "Etc/UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    assert!(firings("0 0 1 1 *", "Etc/UTC", "9999-06-01T00:00:00Z", 1).is_empty());
}

#[test]
fn descriptors_stand_for_fields() {
    for (descriptor, fields) in [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ] {
        assert_eq!(parse_rule(descriptor), parse_rule(fields), "{descriptor}");
    }
}

#[test]
fn names_lists_ranges_and_steps() {
    for (left, right) in [
        ("0 0 * JAN-mar Sun,tue", "0 0 * 1,2,3 0,2"),
        ("5/20 * * * *", "5,25,45 * * * *"),
        ("10-20/5 1,,2 * * *", "10,15,20 1,2 * * *"),
        ("\t0  +1 01 * *", "0 1 1 * *"),
        ("*-7 * * * *", "* * * * *"),
    ] {
        assert_eq!(parse_rule(left), parse_rule(right), "{left}");
    }
}

#[test]
fn every_counts_whole_seconds_from_the_instant() {
    for (interval, seconds) in [
        ("90m", 5400),
        ("1h30m5.9s", 5405),
        ("10ms", 1),
        ("-5h", 1),
        ("1.5h", 5400),
        ("0", 1),
        ("+1us", 1),
        (".5m", 30),
    ] {
        assert_eq!(parse_rule(&format!("@every {interval}")), Ok(Rule::Every(seconds)), "{interval}");
    }
    assert_eq!(firings("@every 90m", "Etc/UTC", "2026-11-21T00:10:00.7Z", 1), ["2026-11-21T01:40:00Z"]);
}

#[test]
fn refusals_name_the_field_and_what_would_be_right() {
    let refused = [
        "",
        "61 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * foo *",
        "* * * * 7",
        "10-5 * * * *",
        "*/0 * * * *",
        "*/x * * * *",
        "1-2-3 * * * *",
        "1/2/3 * * * *",
        "0 2 * *",
        "0",
        " @daily",
        "@fortnightly",
        "@every 5",
        "@every 1 hour",
        "@every 9223372036855s",
        "TZ=Europe/Zurich 0 2 * * *",
    ];
    let told: Vec<_> = refused.iter().map(|expression| refusal(expression)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    the schedule is empty: write five fields (minute, hour, day of month, month, day of week) such as "0 2 * * *"
    minute "61": must be 0–59
    hour "24": must be 0–23
    day of month "0": must be 1–31
    month "foo": must be 1–12 or jan–dec
    day of week "7": must be 0–6 or sun–sat
    minute "10-5": the range runs backwards: write the smaller value first
    minute "*/0": the step must be at least 1
    minute "*/x": must be 0–59
    minute "1-2-3": has more than one hyphen
    minute "1/2/3": has more than one slash
    "0 2 * *" has 4 fields: five are needed (minute, hour, day of month, month, day of week)
    "0" has 1 field: five are needed (minute, hour, day of month, month, day of week)
    " @daily" has 1 field: five are needed (minute, hour, day of month, month, day of week)
    "@fortnightly" is unknown: use @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or "@every 90m"
    @every "5": the interval must be a duration such as 90s, 15m or 1h30m
    @every "1 hour": the interval must be a duration such as 90s, 15m or 1h30m
    @every "9223372036855s": the interval must be a duration such as 90s, 15m or 1h30m
    "TZ=Europe/Zurich 0 2 * * *": a schedule must not contain TZ: set the time zone in its own field
    "#);
}

#[test]
fn zones_are_known_by_their_exact_name() {
    let told = ["Europe/Zürich", "europe/zurich", "Local", "", "CEST"]
        .map(|name| Schedule::parse("@daily", name).unwrap_err());
    assert!(told.iter().all(CronError::is_time_zone));
    insta::assert_snapshot!(told.map(|e| e.to_string()).join("\n"), @r#"
    time zone "Europe/Zürich" is unknown: use an IANA name such as Europe/Zurich or Etc/UTC
    time zone "europe/zurich" is unknown: did you mean "Europe/Zurich"?
    time zone "Local" is unknown: use an IANA name such as Europe/Zurich or Etc/UTC
    time zone "" is unknown: use an IANA name such as Europe/Zurich or Etc/UTC
    time zone "CEST" is unknown: use an IANA name such as Europe/Zurich or Etc/UTC
    "#);
    assert!(zone::names().len() > 400, "the zones must be built in");
}

#[test]
fn the_cron_job_controller_fires_next() {
    let next = |expression: &str, last: Option<&str>, now: &str| {
        let schedule = Schedule::parse(expression, "Etc/UTC").unwrap();
        firing::next(&schedule, at("2026-11-21T00:00:30Z"), last.map(at), at(now)).unwrap().to_string()
    };
    // Nothing due yet; due just now; many missed.
    assert_eq!(next("0 * * * *", None, "2026-11-21T00:10:00Z"), "2026-11-21T01:00:00Z");
    assert_eq!(next("0 * * * *", None, "2026-11-21T01:00:00Z"), "2026-11-21T02:00:00Z");
    assert_eq!(
        next("0 * * * *", Some("2026-11-21T01:00:00Z"), "2027-02-03T04:05:06Z"),
        "2027-02-03T05:00:00Z"
    );
    // `@every` counts from the creation or the last run, also over missed ones, and not from now.
    assert_eq!(next("@every 1h", None, "2026-11-21T00:10:00Z"), "2026-11-21T01:00:30Z");
    assert_eq!(
        next("@every 1h", Some("2026-11-21T01:00:30Z"), "2026-11-21T01:59:00Z"),
        "2026-11-21T02:00:30Z"
    );
    assert_eq!(
        next("@every 1h", Some("2026-11-21T01:00:30Z"), "2026-11-21T09:59:00Z"),
        "2026-11-21T10:00:30Z"
    );
}
