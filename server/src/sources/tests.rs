use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use kiro_ports::{SourceStore as _, StoredSource};
use kiro_schemas::{Micros, Tenant};
use kiro_store::{Store, StoreConfig};

use super::{Book, Hook, secrets};
use crate::config::{Overrides, parse, validate};
use crate::error::Error;
use crate::role::Role;

#[test]
fn a_made_secret_is_for_the_server_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("made/here");
    let (first, secret) = secrets::make(&dir, "shop").expect("made");
    let (second, other) = secrets::make(&dir, "shop").expect("made");
    assert!(first != second && secret.expose() != other.expose() && secret.expose().len() == 64);
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join(&first))), (0o700, 0o600));
    assert_eq!(secrets::read(&dir.join(&first)).expect("read").expose(), secret.expose());
    secrets::forget(&dir, &first);
    assert!(!dir.join(&first).exists() && dir.join(&second).exists());
    let given = dir.join(&second).display().to_string();
    secrets::forget(&dir, &given);
    assert!(dir.join(&second).exists(), "a file that the operator gave is left alone");
}

#[test]
fn what_is_no_secret_is_refused_with_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
        folder.path().join(name)
    };
    assert_eq!(secrets::read(&file("good", " s3cret\n")).expect("read").expose(), "s3cret");
    for (path, reason) in [
        (file("empty", " \n"), "is empty"),
        (file("large", &"canary".repeat(20_000)), "is no secret"),
        (folder.path().join("missing"), "cannot read"),
    ] {
        let told = secrets::read(&path).expect_err("refused");
        assert!(told.contains(reason) && told.contains(&path.display().to_string()) && !told.contains("canary"), "{told}");
    }
}

#[test]
fn a_secret_that_cannot_be_read_for_a_while_stays_live() {
    let folder = tempfile::tempdir().expect("a folder");
    let (new, old) = (folder.path().join("new"), folder.path().join("old"));
    std::fs::write(&new, "the new secret").expect("written");
    std::fs::write(&old, "the old secret").expect("written");
    let github = kiro_integrations::platform("github").expect("a platform");
    let read = |before: Option<&Hook>| Hook::read("shop", github, Tenant::default(), &[new.clone(), old.clone()], before);
    let accepts = |hook: &Hook, secret: &str| {
        let headers = github.sign(&kiro_schemas::Secret::new(secret), ("push", "1"), b"{}", Micros(0));
        hook.verify(&headers, b"{}", Micros(0))
    };
    let both = read(None);
    assert!(both.problems.is_empty() && accepts(&both, "the new secret").is_ok() && accepts(&both, "the old secret").is_ok());
    assert!(matches!(accepts(&both, "another"), Err(Error::Signature(_))));
    std::fs::remove_file(&old).expect("removed");
    let later = read(Some(&both));
    assert!(later.problems.len() == 1 && accepts(&later, "the old secret").is_ok(), "{:?}", later.problems);
    let fresh = read(None);
    assert!(accepts(&fresh, "the new secret").is_ok() && accepts(&fresh, "the old secret").is_err());
    std::fs::remove_file(&new).expect("removed");
    assert!(matches!(accepts(&read(None), "the new secret"), Err(Error::NoSecret { .. })), "nothing of the sender's");
}

/// Two looks at once: the one that began first saw a source that has been removed, and ends last.
#[tokio::test]
async fn what_an_older_look_saw_is_not_taken_after_a_newer_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = Some(folder.path().to_owned());
    let config = validate(parse("").expect("a file"), Role::Up, Overrides { data_dir, ..Overrides::default() }).expect("a configuration");
    let store = Store::open(StoreConfig::Sqlite(folder.path().join("control.sqlite"))).await.expect("a store");
    let (secret_file, _) = secrets::make(&config.secrets_dir(), "shop").expect("a secret");
    let shop = StoredSource {
        name: "shop".to_owned(),
        platform: "github".to_owned(),
        tenant: Tenant::default(),
        secret_file,
        previous_secret_file: None,
        token_file: None,
        api: None,
        added_at: Micros(1),
    };
    let book = Book::of(Arc::new(config), store.clone());
    store.add(shop).await.expect("added");
    let older = book.begin();
    let saw = book.read(store.sources().await.expect("sources"));
    assert!(saw.contains_key("shop"));
    store.remove(&Tenant::default(), "shop").await.expect("removed");
    book.refresh().await.expect("looked");
    book.take(older, saw);
    assert!(book.hook("shop").is_none(), "a source that was removed takes deliveries again");
    let newer = book.begin();
    let saw = book.read(Vec::new());
    book.take(newer, saw);
    assert_eq!(book.0.seen.read().expect("seen").0, newer);
}
