//! Sizes, rates and durations, as people write and read them: `64KiB`, `1.5GiB`, `10MiB/s`, `90s`, `8h`.

use std::time::Duration;

use strongroom::fs::VERSIONS_MAX;

const BINARY: [(&str, u64); 6] =
    [("EiB", 1 << 60), ("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DECIMAL: [(&str, u64); 4] = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a size in bytes: a number, with a binary (`KiB`, `MiB`, …) or decimal (`kB`, `MB`, …) unit or none.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is not a size: write it as 65536, 64KiB or 1.5GiB");
    let (number, unit) = split(text.trim()).ok_or_else(refused)?;
    let scale = match unit {
        "" | "B" | "b" => 1,
        unit => {
            let mut known = BINARY.iter().chain(&DECIMAL);
            known.find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(refused)?.1
        }
    };
    number.scaled(scale).ok_or_else(refused)
}

/// Reads how many versions are to be kept.
pub(crate) fn parse_versions(text: &str) -> Result<u32, String> {
    let count: u32 = text.parse().map_err(|_| format!("`{text}` is not a number of versions: write it as 10"))?;
    if count > VERSIONS_MAX {
        return Err(format!("at most {VERSIONS_MAX} versions of a file are kept: choose fewer"));
    }
    Ok(count)
}

/// Reads a rate in bytes a second: a size and `/s`.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let size = text.trim().strip_suffix("/s").ok_or_else(|| format!("`{text}` is not a rate: write it as 10MiB/s"))?;
    parse_size(size)
}

/// Reads a duration: numbers with `ms`, `s`, `m`, `h` or `d`, the larger first (`1h30m`).
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is not a duration: write it as 500ms, 90s, 30m or 8h");
    let mut rest = text.trim();
    let mut total = 0_u64;
    let mut scale_before = u64::MAX;
    if rest.is_empty() {
        return Err(refused());
    }
    while !rest.is_empty() {
        let (number, tail) = split(rest).ok_or_else(refused)?;
        let end = tail.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?.1;
        if scale >= scale_before {
            return Err(refused());
        }
        total = number.scaled(scale).and_then(|part| total.checked_add(part)).ok_or_else(refused)?;
        (scale_before, rest) = (scale, tail);
    }
    Ok(Duration::from_millis(total))
}

/// Writes a size: whole bytes below one KiB, else with at most one decimal.
pub(crate) fn size(bytes: u64) -> String {
    let Some((unit, scale)) = BINARY.iter().find(|(_, scale)| bytes >= *scale) else { return format!("{bytes}B") };
    let (whole, rest) = (bytes / scale, bytes % scale);
    // Rounded down: a size is never shown larger than it is, and 1023.9KiB never becomes 1024KiB.
    match rest / (scale / 1024) * 10 / 1024 {
        0 => format!("{whole}{unit}"),
        tenths => format!("{whole}.{tenths}{unit}"),
    }
}

/// Writes a rate.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let each = (bytes as f64 / seconds) as u64;
    format!("{}/s", size(each))
}

/// Writes a duration, with the two largest units.
pub(crate) fn duration(time: Duration) -> String {
    let mut millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    if millis < 10_000 {
        return format!("{}.{}s", millis / 1_000, millis % 1_000 / 100);
    }
    let mut text = String::new();
    let mut parts = 0;
    for (unit, scale) in TIMES.iter().filter(|(unit, _)| *unit != "ms") {
        if millis >= *scale && parts < 2 {
            text.push_str(&format!("{}{unit}", millis / scale));
            millis %= scale;
        }
        if !text.is_empty() {
            parts += 1;
        }
    }
    text
}

/// Writes a moment, given in seconds since the Unix epoch, in UTC: `2026-01-31T23:59:59Z`.
pub(crate) fn moment(seconds: i64) -> String {
    let (year, month, day) = date(seconds);
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a moment in UTC.
pub(crate) fn date(seconds: i64) -> (i128, i128, i128) {
    let days = seconds.div_euclid(86_400);
    // Days to a civil date (Howard Hinnant, "chrono-compatible low-level date algorithms"), in years that begin in March.
    let shifted = i128::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year, month, day)
}

/// Reads a moment in UTC, as seconds since the Unix epoch: `2026-01-31`, `2026-01-31T23:59:59Z`, or without the seconds.
pub(crate) fn parse_moment(text: &str) -> Result<i64, String> {
    let refused = || format!("`{text}` is not a time: write it as 2026-01-31 or 2026-01-31T23:59:59Z");
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let time = time.strip_suffix('Z').unwrap_or(time);
    let fields = |text: &str, separator: char| -> Option<Vec<i64>> {
        let fit = |part: &str| (2..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        text.split(separator).map(|part| if fit(part) { part.parse().ok() } else { None }).collect()
    };
    let (date, time) = (fields(date, '-').ok_or_else(refused)?, fields(time, ':').ok_or_else(refused)?);
    let &[year, month, day] = date.as_slice() else { return Err(refused()) };
    let (hour, minute, second) = match *time.as_slice() {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return Err(refused()),
    };
    // A civil date to days (the inverse of what `moment` does), in years that begin in March.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let seconds = (era * 146_097 + day_of_era - 719_468) * 86_400 + hour * 3_600 + minute * 60 + second;
    // What is no date (the 31st of April) or no time comes back as another.
    if self::moment(seconds) == format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z") {
        Ok(seconds)
    } else {
        Err(refused())
    }
}

/// Reads a moment as [`parse_moment`] does, and answers the last second of what it names: who names a day means all of it.
pub(crate) fn parse_moment_whole(text: &str) -> Result<i64, String> {
    let seconds = parse_moment(text)?;
    let more = match text.split_once(['T', ' ']) {
        None => 86_399,
        Some((_, time)) if time.matches(':').count() == 1 => 59,
        Some(_) => 0,
    };
    Ok(seconds.saturating_add(more))
}

/// A decimal number, exact: its digits without the point, and how many of them stand behind it.
struct Number {
    digits: u64,
    decimals: u32,
}

impl Number {
    fn scaled(&self, scale: u64) -> Option<u64> {
        let divisor = 10_u128.checked_pow(self.decimals)?;
        let value = u128::from(self.digits).checked_mul(u128::from(scale))? / divisor;
        u64::try_from(value).ok()
    }
}

fn split(text: &str) -> Option<(Number, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || decimals.is_empty() || decimals.contains('.') {
        return None;
    }
    let digits = format!("{whole}{decimals}").parse().ok()?;
    Some((Number { digits, decimals: u32::try_from(decimals.len()).ok()? }, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_they_print() {
        for seconds in [0, 951_782_400, 1_767_225_599, 4_107_542_400, -86_400] {
            assert_eq!(parse_moment(&moment(seconds)), Ok(seconds));
        }
        assert_eq!(parse_moment("2026-01-31"), parse_moment("2026-01-31T00:00"));
        assert_eq!(parse_moment_whole("2026-01-31"), parse_moment("2026-01-31T23:59:59"));
        assert_eq!(parse_moment_whole("2026-01-31 08:05Z"), parse_moment("2026-01-31T08:05:59Z"));
        assert_eq!(parse_moment_whole("2026-01-31T08:05:07"), parse_moment("2026-01-31T08:05:07Z"));
        assert!(parse_moment_whole("2026-02-30").is_err());
        for text in
            ["", "2026", "2026-02-29", "2026-13-01", "2026-04-31", "2026-01-01T24:00", "26-1-1", "2026-01-01T1:2", "x"]
        {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_print_as_the_contract_says() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("1.5GiB", 3 << 29),
            ("0.5KiB", 512),
            ("10MB", 10_000_000),
            ("1kB", 1_000),
            ("15EiB", 15 << 60),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.", ".5", "1..2", "1.2.3KiB", "1K", "16EiB", "1e3", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (65_536, "64KiB"),
            (3 << 29, "1.5GiB"),
            ((1 << 20) - 1, "1023.9KiB"),
            (u64::MAX, "15.9EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_printed_without_a_rest_reads_back_equal() {
        for shift in 0..64 {
            assert_eq!(parse_size(&size(1 << shift)), Ok(1 << shift));
        }
    }

    #[test]
    fn moments_are_utc_dates_before_and_after_the_epoch() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (-2_203_891_200, "1900-03-01T00:00:00Z"),
        ] {
            assert_eq!(moment(seconds), text);
        }
        for (text, read) in [
            ("1970-01-01", Some(0)),
            ("2024-02-29T23:59", Some(1_709_251_140)),
            ("2000-02-29 00:00:00", Some(951_782_400)),
            ("1900-03-01T00:00:00Z", Some(-2_203_891_200)),
            ("2023-02-29", None),
            ("2024-13-01", None),
            ("2024-1-01", None),
            ("2024-01-01T24:00", None),
            ("2024-01-01T00:00:60", None),
            ("+024-01-01", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse_moment(text).ok(), read, "{text}");
        }
        for seconds in [0, 951_782_399, 1_709_251_200, -1, -2_203_891_200, 253_402_300_799] {
            assert_eq!(parse_moment(&moment(seconds)), Ok(seconds));
        }
        assert!(moment(i64::MAX).ends_with('Z') && moment(i64::MIN).starts_with('-'));
    }

    #[test]
    fn rates_need_their_second() {
        assert_eq!(parse_rate("10MiB/s"), Ok(10 << 20));
        assert!(parse_rate("10MiB").is_err());
        assert_eq!(rate(20 << 20, Duration::from_secs(2)), "10MiB/s");
    }

    #[test]
    fn durations_read_and_print_as_the_contract_says() {
        for (text, millis) in [
            ("90s", 90_000),
            ("30m", 1_800_000),
            ("8h", 28_800_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5s", 1_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "90", "s", "1m1h", "1s1s", "-1s", "1w", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (millis, text) in
            [(0, "0ms"), (999, "999ms"), (1_500, "1.5s"), (90_000, "1m30s"), (28_800_000, "8h"), (86_400_000, "1d")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
