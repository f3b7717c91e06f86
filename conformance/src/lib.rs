//! What any Strongroom storage must pass, and the doubles that tests of the engine run on.
//!
//! * [`crash`]: a storage that loses power, dies, fails and lies on request, deterministically.

pub mod crash;
mod dice;

pub use dice::Dice;
