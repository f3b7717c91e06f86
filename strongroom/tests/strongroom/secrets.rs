//! No type that holds a secret can be shown, and what can be shown holds none.

use std::fmt::Debug;
use std::marker::PhantomData;

use strongroom::blocking::Repository;
use strongroom::core::crypto::{Keys, RootSecret, Secret};
use strongroom::core::engine::Unlock;
use strongroom::core::engine::keyring::HeaderEdit;
use strongroom::core::format::slot::SlotPayload;
use strongroom::{CreateOptions, Credentials, NewSlot, OpenOptions, RecoveryKey, SecretBytes};

struct Probe<T>(PhantomData<T>);

/// What holds for every type that the better answer below does not hold for.
trait Hidden {
    const SHOWN: bool = false;
}

impl<T> Hidden for Probe<T> {}

impl<T: Debug> Probe<T> {
    const SHOWN: bool = true;
}

#[test]
fn what_holds_a_secret_has_no_debug() {
    macro_rules! hidden {
        ($($name:ty),* $(,)?) => {$(assert!(!Probe::<$name>::SHOWN, stringify!($name));)*};
    }
    hidden!(
        Secret,
        SecretBytes,
        RootSecret,
        Keys,
        Credentials,
        RecoveryKey,
        NewSlot<'static>,
        HeaderEdit<'static>,
        Unlock<'static>,
        SlotPayload,
        CreateOptions,
        OpenOptions,
        strongroom::core::engine::CreateOptions<'static>,
        strongroom::core::engine::OpenOptions<'static>,
        strongroom::core::engine::keyring::CreateHeader<'static>,
    );
    const { assert!(Probe::<String>::SHOWN, "the probe tells them apart") };
}

#[test]
fn what_can_be_shown_shows_no_secret() {
    let (password, content) = ("correct horse battery staple", "a key file of thirty-two bytes or more");
    let options = CreateOptions::new(Credentials::password(password)).kdf_millis(1);
    let repository = Repository::create("mem://secrets", options).unwrap();
    let key = RecoveryKey::generate(repository.asynchronous().engine().env()).unwrap();
    let text = key.to_text();
    let both = Credentials::password(password).and_key_file(content);
    repository.add_slot(&NewSlot { credentials: &both, label: "both" }).unwrap();
    let recovery = Credentials::recovery(&key);
    let slots = repository.add_slot(&NewSlot { credentials: &recovery, label: "paper" }).unwrap();
    let header = repository.export_header().unwrap();
    let twice = repository.add_slot(&NewSlot { credentials: &both, label: "" }).unwrap_err();
    let slipped = text.replace("SRK1-", "SRK1-0");
    let slip = RecoveryKey::from_text(&slipped).err().unwrap();
    let engine = repository.asynchronous().engine();
    let root = engine.root_secret();

    let shown = [
        format!("{repository:?} {:?} {engine:?}", repository.asynchronous()),
        format!("{slots:?} {header:?} {twice:?} {twice} {slip:?} {slip}"),
        format!("{:?} {:?}", repository.info().unwrap(), repository.fs().open_file("/absent").err()),
    ];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let listed = |bytes: &[u8]| bytes.iter().take(4).map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut secrets = vec![password.to_owned(), content.to_owned(), text.to_string(), slipped];
    for secret in [root.epoch.expose(), root.lifetime.expose()] {
        secrets.extend([hex(&secret[..4]), listed(secret)]);
    }
    for text in &shown {
        assert!(!text.is_empty() && secrets.iter().all(|secret| !text.contains(secret.as_str())), "{text}");
    }
}
