//! What a constructor owes is broken on purpose, one thing at a time: then it is found out.

#![allow(clippy::unwrap_used)] // a test may

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use strongroom_conformance::block_on;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::storage::{Outcome, Verdict, check_constructor};
use strongroom_core::env::Env;
use strongroom_core::storage::{
    Error, ErrorKind, OpenContext, OpenMode, Operation, Registry, Result, Storage, StorageConstructor, StorageExt as _,
    StorageUri,
};

/// One thing that a constructor does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    /// Absent places are created, whatever the mode.
    CreatesUninvited,
    /// Where a place is absent it says `Unavailable`.
    CallsTheAbsentUnavailable,
    /// Unknown parameters are ignored.
    TakesAnyParameter,
    /// A place is created before the parameters are looked at.
    CreatesWhatItRefuses,
    /// Who may create gets a new place, where there is one too.
    CreatesAnew,
    /// All scratch places are one.
    OneScratch,
    /// A scratch place is the place itself.
    ScratchIsThePlace,
    /// Deriving a scratch place creates it.
    DerivingCreates,
    /// Scratch places are removed with what is in them.
    RemovesBlobs,
    /// Scratch places are never removed.
    RemovesNothing,
    /// Of its files it tells only the one that the URI names.
    HidesALog,
}

struct Careless {
    defect: Defect,
    has_scratch: bool,
    stores: Mutex<BTreeMap<String, CrashingStorage>>,
}

impl Careless {
    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn key(&self, uri: &StorageUri) -> String {
        let path = if self.is(Defect::ScratchIsThePlace) { "" } else { uri.path_text().unwrap() };
        format!("{}{path}", uri.authority().unwrap_or_default())
    }

    fn create(&self, uri: &StorageUri) -> CrashingStorage {
        if let Ok(path) = uri.local_path() {
            for file in files(path) {
                std::fs::write(file, "").unwrap();
            }
        }
        let new = || CrashingStorage::new(CrashOptions::default());
        self.stores.lock().unwrap().entry(self.key(uri)).or_insert_with(new).another()
    }
}

/// What is made where a URI has a local path.
fn files(path: PathBuf) -> Vec<PathBuf> {
    let log = path.with_added_extension("log");
    vec![path, log]
}

#[async_trait]
impl StorageConstructor for Careless {
    fn local_paths(&self, uri: &StorageUri) -> Vec<PathBuf> {
        let Ok(path) = uri.local_path() else { return Vec::new() };
        if self.is(Defect::HidesALog) { vec![path] } else { files(path) }
    }

    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        if self.is(Defect::CreatesWhatItRefuses) && context.mode == OpenMode::CreateIfMissing {
            self.create(uri);
        }
        if !self.is(Defect::TakesAnyParameter) {
            uri.allow_parameters(&["known"])?;
        }
        let is_there = self.stores.lock().unwrap().contains_key(&self.key(uri));
        if !is_there && context.mode == OpenMode::Existing && !self.is(Defect::CreatesUninvited) {
            let kind = match self.defect {
                Defect::CallsTheAbsentUnavailable => ErrorKind::Unavailable,
                _ => ErrorKind::NotFound,
            };
            return Err(Error::new(kind, Operation::Open, uri.redacted()));
        }
        if self.is(Defect::CreatesAnew) && context.mode == OpenMode::CreateIfMissing {
            self.stores.lock().unwrap().remove(&self.key(uri));
        }
        Ok(Arc::new(self.create(uri)))
    }

    async fn scratch(&self, uri: &StorageUri, name: &str, _: &OpenContext) -> Result<Option<StorageUri>> {
        if !self.has_scratch {
            return Ok(None);
        }
        let name = if self.is(Defect::OneScratch) { "scratch" } else { name };
        let scratch = uri.with_path(format!("{}/{name}", uri.path_text()?))?;
        if self.is(Defect::DerivingCreates) {
            self.create(&scratch);
        }
        Ok(Some(scratch))
    }

    async fn remove_scratch(&self, uri: &StorageUri, _: &OpenContext) -> Result<()> {
        let is_empty = self.create(uri).list_all(&[]).await?.is_empty();
        if !self.is(Defect::RemovesNothing) && (is_empty || self.is(Defect::RemovesBlobs)) {
            self.stores.lock().unwrap().remove(&self.key(uri));
        }
        Ok(())
    }
}

fn check(defect: Defect, has_scratch: bool) -> Outcome {
    check_at("careless://place?known=1", defect, has_scratch)
}

fn check_at(uri: &str, defect: Defect, has_scratch: bool) -> Outcome {
    let mut registry = Registry::new();
    registry.register("careless", Careless { defect, has_scratch, stores: Mutex::default() });
    let uri = StorageUri::parse(uri).unwrap();
    block_on(check_constructor(&registry, &uri, &OpenContext::new(Env::deterministic(1))))
}

#[test]
fn one_that_keeps_what_it_owes_passes_and_without_scratch_places_is_limited() {
    assert_eq!(check(Defect::None, true), Ok(Verdict::Passed));
    assert_eq!(check(Defect::None, false).unwrap().limits().len(), 1);
}

#[test]
fn each_that_does_not_is_found_out_and_for_that() {
    for (defect, says) in [
        (Defect::CreatesUninvited, "before it was created, succeeded"),
        (Defect::CallsTheAbsentUnavailable, "before it was created, is (Unavailable"),
        (Defect::TakesAnyParameter, "an unknown parameter succeeded"),
        (Defect::CreatesWhatItRefuses, "after an unknown parameter was refused, succeeded"),
        (Defect::CreatesAnew, "opened again (CreateIfMissing)"),
        (Defect::OneScratch, "are not apart"),
        (Defect::ScratchIsThePlace, "only derived, succeeded"),
        (Defect::DerivingCreates, "only derived, succeeded"),
        (Defect::RemovesBlobs, "that holds a blob failed"),
        (Defect::RemovesNothing, "was removed, succeeded"),
    ] {
        let breach = check(defect, true).unwrap_err().to_string();
        assert!(breach.contains(says), "{defect:?}: {breach}");
    }
}

#[test]
fn one_that_hides_a_file_of_its_own_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    for (name, defect) in [("told", Defect::None), ("hidden", Defect::HidesALog)] {
        let uri = format!("careless:{}/{name}", folder.path().display());
        let checked = check_at(&uri, defect, false);
        match checked {
            Ok(_) => assert_eq!(defect, Defect::None),
            Err(breach) => {
                assert!(defect == Defect::HidesALog && breach.to_string().contains("hidden.log"), "{breach}")
            }
        }
    }
}
