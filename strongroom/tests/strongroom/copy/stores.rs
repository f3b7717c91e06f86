//! Where a source and its copies are, and the ways to make, open and copy them.

use strongroom::storage::Registry;
use strongroom::{
    Copied, CopyOptions, CreateOptions, Credentials, Error, HeaderOptions, KdfParameters, OpenOptions, Repository,
    Tuning, blocking, core,
};

use super::contents::fill_and_keep;

/// Places in memory: of a source, which opens with `old`, and of copies of it, which open with `new`.
pub(crate) struct Stores {
    registry: Registry,
    name: &'static str,
}

impl Stores {
    /// `name`: another for each test.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { registry: strongroom::registry::default(), name }
    }

    pub(crate) fn source(&self) -> String {
        format!("mem://{}", self.name)
    }

    pub(crate) fn copy(&self) -> String {
        self.beside("copy")
    }

    /// One more place.
    pub(crate) fn beside(&self, what: &str) -> String {
        format!("mem://{}-{what}", self.name)
    }

    pub(crate) fn create(&self, password: &str) -> CreateOptions {
        let options = CreateOptions::new(Credentials::password(password)).kdf(KdfParameters::MINIMUM);
        options.registry(self.registry.clone()).without_trusted_state().without_defragmenting()
    }

    pub(crate) fn open(&self, password: &str) -> OpenOptions {
        let options = OpenOptions::new(Credentials::password(password)).registry(self.registry.clone());
        options.without_trusted_state().without_defragmenting()
    }

    /// How the clear header of one is read.
    pub(crate) fn header_options(&self) -> HeaderOptions {
        HeaderOptions { registry: Some(self.registry.clone()), ..HeaderOptions::default() }
    }

    pub(crate) async fn empty_source(&self) -> Repository {
        Repository::create(self.source(), self.create("old")).await.unwrap()
    }

    /// A source with something of everything, and three snapshots.
    pub(crate) async fn furnished_source(&self) -> Repository {
        let source = Repository::create(self.source(), self.create("old").versions(3)).await.unwrap();
        fill_and_keep(&source).await;
        source
    }

    pub(crate) async fn open_source(&self) -> Repository {
        Repository::open(self.source(), self.open("old")).await.unwrap()
    }

    pub(crate) async fn open_copy(&self) -> Result<Repository, Error> {
        Repository::open(self.copy(), self.open("new")).await
    }

    /// Copies a source to a place.
    pub(crate) async fn copy_to(
        &self,
        place: &str,
        source: &Repository,
        options: CopyOptions<'_>,
    ) -> Result<(Repository, Copied), Error> {
        source.copy(place, self.create("new"), options).await
    }

    /// A copy of all of a source, in its place.
    pub(crate) async fn copied(&self, source: &Repository) -> (Repository, Copied) {
        self.copy_to(&self.copy(), source, CopyOptions::default()).await.unwrap()
    }

    /// The source as another process has it open: one that gives readers no time.
    pub(crate) fn opened_by_another(&self) -> blocking::Repository {
        let tuning = Tuning { reader_grace_millis: 0, ..Tuning::default() };
        blocking::Repository::open(self.source(), self.open("old").tuning(tuning)).unwrap()
    }
}

pub(crate) async fn close<const COUNT: usize>(repositories: [Repository; COUNT]) {
    for repository in repositories {
        repository.close().await.unwrap();
    }
}

pub(crate) fn core_error<T>(result: Result<T, Error>) -> core::Error {
    match result {
        Err(Error::Core(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it worked"),
    }
}
