//! Which call fails, and how.

use std::collections::BTreeMap;

use strongroom_core::storage::{Effect, Error, ErrorKind, Operation, Retry};

use crate::Dice;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this kind and without effect.
    Refused(ErrorKind),
    /// Nothing happened, and the caller cannot know: the effect is unknown.
    LostRequest,
    /// All of it happened, durability included, and the caller cannot know.
    LostReply,
    /// It became visible, and was not made durable: as when the last fsync fails.
    NotDurable,
    /// It takes effect after so many further calls, of any kind and any process.
    Late {
        /// The number of calls between.
        calls: u64,
    },
}

impl Fault {
    fn seeded(dice: &mut Dice) -> Self {
        match dice.below(5) {
            0 => Self::Refused(ErrorKind::Unavailable),
            1 => Self::LostRequest,
            2 => Self::LostReply,
            3 => Self::NotDurable,
            _ => Self::Late { calls: 1 + dice.below(8) },
        }
    }

    pub(super) fn error(self, operation: Operation, context: &str) -> Error {
        let context = context.to_owned();
        match self {
            Self::Refused(kind) => Error::new(kind, operation, context),
            _ => Error::new(ErrorKind::Unavailable, operation, context)
                .with_effect(operation.effect_if_lost())
                .with_retry(Retry::CanHelp),
        }
        .with_source("the test wants it so")
    }

    /// What a call that changes nothing can suffer.
    pub(super) fn of_reading(self) -> Self {
        match self {
            Self::Refused(kind) => Self::Refused(kind),
            _ => Self::Refused(ErrorKind::Unavailable),
        }
    }
}

/// Whether a call of this operation changes something, or makes it durable.
pub(super) fn is_mutating(operation: Operation) -> bool {
    operation.effect_if_lost() == Effect::Unknown
}

/// How many calls there were, failed ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    by_operation: BTreeMap<Operation, u64>,
}

impl Calls {
    pub(crate) fn count(&mut self, operation: Operation) {
        *self.by_operation.entry(operation).or_default() += 1;
    }

    /// Calls of one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        self.by_operation.get(&operation).copied().unwrap_or_default()
    }

    /// Calls of all operations.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.by_operation.values().sum()
    }

    /// Calls that change something or make it durable.
    #[must_use]
    pub fn mutating(&self) -> u64 {
        self.by_operation.iter().filter(|(operation, _)| is_mutating(**operation)).map(|(_, calls)| calls).sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    /// By the number of the call among all.
    pub(super) at_call: BTreeMap<u64, Fault>,
    /// By the number of the call among those of its operation.
    pub(super) at_operation: BTreeMap<(Operation, u64), Fault>,
    pub(super) at_random: Option<(Dice, u64)>,
}

impl Faults {
    /// The fault that the call just counted suffers.
    pub(super) fn of_call(&mut self, operation: Operation, calls: &Calls) -> Option<Fault> {
        let planned =
            self.at_call.remove(&calls.all()).or_else(|| self.at_operation.remove(&(operation, calls.of(operation))));
        planned.or_else(|| {
            let (dice, chance) = self.at_random.as_mut()?;
            dice.per_mille(*chance).then(|| Fault::seeded(dice))
        })
    }
}
