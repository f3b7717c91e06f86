//! A copy of a repository has all that the repository has, under other keys; and is one only when it is whole.

mod arrival;
mod contents;
mod cut_short;
mod hostile;
mod states;
mod stores;
