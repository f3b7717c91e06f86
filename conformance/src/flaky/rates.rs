//! How often each fault happens.

use std::fmt;
use std::str::FromStr;

use super::Fault;
use crate::Dice;
use strongroom_core::storage::ErrorKind;

/// A chance, in millionths. As text a percentage or a fraction: `0.5%`, `0.005`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

/// A text that is no [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateError;

impl Rate {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Every time.
    pub const ALWAYS: Self = Self(1_000_000);

    /// So many times in a thousand, at most every time.
    #[must_use]
    pub const fn per_mille(times: u32) -> Self {
        if times >= 1000 { Self::ALWAYS } else { Self(times * 1000) }
    }

    /// Whether it happens this time.
    pub fn happens(self, dice: &mut Dice) -> bool {
        self.0 > 0 && dice.below(1_000_000) < u64::from(self.0)
    }
}

impl fmt::Display for RateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str("a chance is a fraction such as 0.01, or a percentage such as 1% (in a URI 1%25), at most 100%")
    }
}

impl std::error::Error for RateError {}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        write!(formatter, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        // Digits that a millionth cannot show are refused rather than rounded to never.
        let (number, places) = match text.strip_suffix('%') {
            Some(number) => (number, 4),
            None => (text, 6),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || part.len() > places || !digits(whole) || !digits(part) {
            return Err(RateError);
        }
        let millionths: u32 = format!("{whole}{part:0<places$}").parse().map_err(|_| RateError)?;
        if millionths > Self::ALWAYS.0 { Err(RateError) } else { Ok(Self(millionths)) }
    }
}

/// How often each fault happens by itself. By default never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// A call fails before it has any effect, and says that a retry can help.
    pub errors: Rate,
    /// A call fails before it has any effect, and says that a retry is useless.
    pub refusals: Rate,
    /// A call that changes something never arrives, and the caller cannot know.
    pub timeouts: Rate,
    /// A call that changes something takes effect, its answer is lost, and the caller cannot know.
    pub ambiguous: Rate,
    /// A call that changes something takes effect only after some more calls; its caller was told that nobody knows.
    pub late: Rate,
    /// A put is delivered twice: at once, so that its own caller is answered `Exists`; or again after some more calls, when
    /// the blob may have been deleted. **Breaks S1 and S2, or S6**: no storage may do it, and some do.
    pub duplicates: Rate,
    /// A listing is some calls old: it misses recent puts and shows recent deletes. **Breaks S5 and S7**.
    pub stale_lists: Rate,
    /// A call waits until some others have begun.
    pub slow: Rate,
    /// A call never arrives, and never answers before [`super::FlakyStorage::release`].
    pub stuck: Rate,
}

impl Rates {
    /// The parameters of a URI that say rates, in the order of the fields.
    pub const PARAMETERS: [&'static str; 9] =
        ["errors", "refusals", "timeouts", "ambiguous", "late", "duplicates", "stale-lists", "slow", "stuck"];

    /// The rate that a parameter of a URI names.
    pub fn parameter(&mut self, name: &str) -> Option<&mut Rate> {
        Some(match name {
            "errors" => &mut self.errors,
            "refusals" => &mut self.refusals,
            "timeouts" => &mut self.timeouts,
            "ambiguous" => &mut self.ambiguous,
            "late" => &mut self.late,
            "duplicates" => &mut self.duplicates,
            "stale-lists" => &mut self.stale_lists,
            "slow" => &mut self.slow,
            "stuck" => &mut self.stuck,
            _ => return None,
        })
    }

    /// What happens to the next call; `calls_max` bounds how late it can get.
    pub(super) fn draw(&self, dice: &mut Dice, calls_max: u64) -> Option<Fault> {
        // Drawn first, so that what happens does not depend on which rates are zero.
        let (calls, kind) = (1 + dice.below(calls_max), dice.below(2));
        let faults = [
            (self.errors, Fault::Refused(if kind == 0 { ErrorKind::Unavailable } else { ErrorKind::Busy })),
            (self.refusals, Fault::Refused(if kind == 0 { ErrorKind::PermissionDenied } else { ErrorKind::Other })),
            (self.timeouts, Fault::LostRequest),
            (self.ambiguous, Fault::LostReply),
            (self.late, Fault::Late { calls }),
            (self.duplicates, Fault::Duplicate { calls: calls * kind }),
            (self.stale_lists, Fault::StaleList { calls }),
            (self.slow, Fault::Slow { calls }),
            (self.stuck, Fault::Stuck),
        ];
        faults.into_iter().find(|(rate, _)| rate.happens(dice)).map(|(_, fault)| fault)
    }
}
