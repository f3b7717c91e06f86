//! The primitives that [`super::table`] rests on. `tests/table` puts others in their place, which try one order of threads after
//! the other.

pub(super) use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
