//! The commands, one file each.

pub(crate) mod backends;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod completions;
pub(crate) mod conformance;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod header;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod kv;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod mkdir;
pub(crate) mod mv;
pub(crate) mod put;
pub(crate) mod recovery;
pub(crate) mod restore;
pub(crate) mod rm;
pub(crate) mod stat;
pub(crate) mod tree;
