/// A moment: seconds since the Unix epoch (negative before it) and nanoseconds after that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since the Unix epoch.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// A moment; `None` where `nanos` is a second or more.
    #[must_use]
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        (nanos < 1_000_000_000).then_some(Self { seconds, nanos })
    }

    /// The moment this many nanoseconds after the epoch.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        // Both fit: u64::MAX nanoseconds are 1.8e10 seconds.
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        Self { seconds: (nanos / 1_000_000_000) as i64, nanos: (nanos % 1_000_000_000) as u32 }
    }

    /// The moment of the standard library; saturating where it is beyond what seconds can count.
    #[must_use]
    pub fn from_system_time(time: std::time::SystemTime) -> Self {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => {
                Self { seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nanos: after.subsec_nanos() }
            }
            Err(before) => {
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
                match before.subsec_nanos() {
                    0 => Self { seconds, nanos: 0 },
                    nanos => Self { seconds: seconds.saturating_sub(1), nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }

    /// The moment for the standard library; `None` where it cannot hold it.
    #[must_use]
    pub fn to_system_time(self) -> Option<std::time::SystemTime> {
        let whole = std::time::Duration::from_secs(self.seconds.unsigned_abs());
        let second = if self.seconds < 0 {
            std::time::UNIX_EPOCH.checked_sub(whole)
        } else {
            std::time::UNIX_EPOCH.checked_add(whole)
        };
        second?.checked_add(std::time::Duration::from_nanos(u64::from(self.nanos)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moments_survive_the_standard_library(seconds in -10_000_000_000i64..10_000_000_000, nanos in 0u32..1_000_000_000) {
            let time = Timestamp::new(seconds, nanos).unwrap();
            prop_assert_eq!(Timestamp::from_system_time(time.to_system_time().unwrap()), time);
        }
    }

    #[test]
    fn nanoseconds_of_a_second_or_more_are_refused() {
        assert_eq!(Timestamp::new(0, 1_000_000_000), None);
    }
}
