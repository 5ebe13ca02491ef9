//! The store on real files, and on a real PostgreSQL where one is named.

#![expect(clippy::expect_used, reason = "what a test cannot set up fails it")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kiro_ports::{Anchors, NewDelivery, NewToken, Outbox, Persons, Role, SourceCounts, SourceStore, StoredSource, Tokens};
use kiro_schemas::{FaultKind, Micros, Secret, Tenant, TopicPartition, person};
use kiro_store::{MAX_ATTEMPTS, Store, StoreConfig};

const NOW: Micros = Micros(1_795_426_800_000_000);

async fn open(path: &Path) -> Store {
    Store::open(StoreConfig::Sqlite(path.to_owned())).await.expect("a store")
}

fn token(name: &str, expires_at: Option<Micros>) -> NewToken {
    NewToken { name: name.to_owned(), tenant: Tenant::default(), role: Role::Developer, expires_at }
}

fn delivery(key: &str) -> NewDelivery {
    NewDelivery { key: key.to_owned(), tenant: Tenant::default(), target: "t".to_owned(), payload: format!("{{\"key\":\"{key}\"}}") }
}

async fn keys(store: &Store, now: Micros, retry_at: Micros) -> Vec<String> {
    store.due(now, retry_at, 100).await.expect("due").into_iter().map(|due| due.delivery.key).collect()
}

/// What both kinds of store must do.
async fn conforms(store: &Store) {
    tokens_conform(store).await;
    outbox_conforms(store).await;
    leases_conform(store).await;
    anchors_conform(store).await;
    sources_conform(store).await;
    persons_conform(store).await;
    one_of_many_takes(std::slice::from_ref(store)).await;
    assert_eq!(store.setting("a").await.expect("read"), None);
    store.set_setting("a", "1", NOW).await.expect("written");
    store.set_setting("a", "2", NOW).await.expect("written");
    assert_eq!(store.setting("a").await.expect("read").as_deref(), Some("2"));
    store.set_setting("model/%", "3", NOW).await.expect("written");
    assert_eq!(store.settings("model/").await.expect("read"), [("model/%".to_owned(), "3".to_owned())]);
    assert!(store.settings("%").await.expect("read").is_empty(), "a text, no pattern");
}

async fn tokens_conform(store: &Store) {
    let (ours, theirs) = (Tenant::default(), Tenant::new("others"));
    let text = store.create(token("ci", None), NOW).await.expect("created");
    assert!(text.expose().starts_with("kiro_") && text.expose().len() == 48, "256 bits");
    let who = store.verify(&text, NOW).await.expect("asked").expect("valid");
    assert_eq!((who.name.as_str(), &who.tenant, who.role), ("ci", &ours, Role::Developer));
    let short = text.expose().get(..47).expect("ASCII");
    for wrong in ["", "kiro_", short, &format!("{short}A"), &text.expose().to_uppercase()] {
        if wrong != text.expose() {
            assert_eq!(store.verify(&Secret::new(wrong), NOW).await.expect("asked"), None, "{wrong}");
        }
    }
    assert_eq!(store.create(token("ci", None), NOW).await.expect_err("taken").kind, FaultKind::Conflict);
    for name in ["", "a b", "ü", "x'; --", &"x".repeat(64)] {
        assert_eq!(store.create(token(name, None), NOW).await.expect_err("a bad name").kind, FaultKind::Invalid, "{name}");
    }
    let brief = store.create(token("brief", Some(NOW.plus(10))), NOW).await.expect("created");
    assert!(store.verify(&brief, NOW.plus(9)).await.expect("asked").is_some());
    assert!(store.verify(&brief, NOW.plus(10)).await.expect("asked").is_none(), "expired");
    assert!(store.scram("brief", NOW.plus(10)).await.expect("asked").is_none(), "expired");
    let (who, verifier) = store.scram("ci", NOW).await.expect("asked").expect("there");
    assert_eq!((who.name.as_str(), verifier.salted_password.len(), verifier.salt.len()), ("ci", 32, 16));
    assert!(store.scram("nobody", NOW).await.expect("asked").is_none());
    let names: Vec<_> = store.list(&ours).await.expect("listed").into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["brief", "ci"]);
    assert!(store.list(&theirs).await.expect("listed").is_empty());
    assert!(!store.revoke(&theirs, "ci").await.expect("asked"), "not theirs");
    assert!(store.revoke(&ours, "ci").await.expect("asked"));
    assert!(!store.revoke(&ours, "ci").await.expect("asked"));
    assert!(store.verify(&text, NOW).await.expect("asked").is_none(), "revoked");
}

fn source(name: &str, tenant: &str) -> StoredSource {
    StoredSource {
        name: name.to_owned(),
        platform: "github".to_owned(),
        tenant: Tenant::new(tenant),
        secret_file: "a.secret".to_owned(),
        previous_secret_file: None,
        token_file: Some("/run/token".to_owned()),
        api: None,
        added_at: NOW,
    }
}

async fn sources_conform(store: &Store) {
    let (ours, theirs) = (Tenant::default(), Tenant::new("others"));
    for name in ["shop", "desk"] {
        SourceStore::add(store, source(name, "default")).await.expect("added");
    }
    let taken = SourceStore::add(store, source("shop", "others")).await.expect_err("taken");
    assert_eq!((taken.kind, taken.to_string().as_str()), (FaultKind::Conflict, "a source named \"shop\" is there already"));
    for name in ["", "A", "a/b", "../x", "a b", "x'; --", &"x".repeat(64)] {
        let refused = SourceStore::add(store, source(name, "default")).await.expect_err("a bad name");
        assert_eq!(refused.kind, FaultKind::Invalid, "{name}");
    }
    assert_eq!(store.sources().await.expect("listed"), [source("desk", "default"), source("shop", "default")]);
    assert!(store.rotate(&source("shop", "default"), "b.secret").await.expect("asked"));
    assert!(!store.rotate(&source("shop", "default"), "c.secret").await.expect("asked"), "another was faster");
    assert!(!store.rotate(&source("nobody", "default"), "c.secret").await.expect("asked"));
    let rotated =
        StoredSource { secret_file: "b.secret".to_owned(), previous_secret_file: Some("a.secret".to_owned()), ..source("shop", "default") };
    let counts = |taken, taken_at: i64, event: &str| SourceCounts {
        taken,
        known: 2,
        taken_at: Micros(taken_at),
        last_event: event.to_owned(),
        refused_at: Micros(5),
        last_refusal: "no".to_owned(),
        ..SourceCounts::default()
    };
    for (taken, at, event) in [(3, 50, "push"), (4, 40, "status")] {
        store.count("shop", &counts(taken, at, event)).await.expect("counted");
    }
    let known = store.counts().await.expect("read");
    assert_eq!(known, [("shop".to_owned(), SourceCounts { known: 4, ..counts(7, 50, "push") })], "sums, and the words of the later moment");
    assert_eq!(SourceStore::remove(store, &theirs, "shop").await.expect("asked"), None, "not theirs");
    assert_eq!(SourceStore::remove(store, &ours, "shop").await.expect("asked"), Some(rotated));
    assert_eq!(SourceStore::remove(store, &ours, "shop").await.expect("asked"), None);
    assert!(store.counts().await.expect("read").is_empty(), "forgotten with it");
    SourceStore::remove(store, &ours, "desk").await.expect("asked").expect("there");
}

async fn put(store: &Store, key: &str, now: Micros) {
    store.hold(delivery(key), now).await.expect("held");
    store.release(key, now).await.expect("released");
}

/// What is held is not sent, and dropping it is no end for its key.
async fn holds_conform(store: &Store) {
    let held = async |before: i64| -> Vec<String> {
        store.held(NOW.plus(before), 10).await.expect("listed").into_iter().map(|held| held.key).collect()
    };
    for (at, key) in [(0, "h1"), (1, "h2")] {
        store.hold(delivery(key), NOW.plus(at)).await.expect("held");
    }
    assert!(keys(store, NOW.plus(50), NOW.plus(60)).await.is_empty(), "held");
    assert_eq!((held(0).await.len(), held(1).await, held(2).await.len()), (0, vec!["h1".to_owned()], 2));
    store.failed("h1", "not recorded", None).await.expect("dropped");
    store.release("h1", NOW).await.expect("taken");
    assert!(keys(store, NOW.plus(50), NOW.plus(60)).await.is_empty(), "dropped");
    let mut again = delivery("h1");
    "{\"again\":1}".clone_into(&mut again.payload);
    store.hold(again, NOW.plus(5)).await.expect("held");
    assert_eq!(held(6).await, ["h2", "h1"]);
    store.release("h2", NOW.plus(6)).await.expect("released");
    store.release("h1", NOW.plus(7)).await.expect("released");
    let due = store.due(NOW.plus(7), NOW.plus(90), 10).await.expect("due");
    let found: Vec<_> = due.iter().map(|due| (due.delivery.key.as_str(), due.delivery.payload.contains("again"))).collect();
    assert_eq!(found, [("h1", true), ("h2", false)]);
    store.hold(delivery("h1"), NOW.plus(8)).await.expect("taken");
    assert!(held(100).await.is_empty(), "what was released stays so");
    assert_eq!(store.take_over_deliveries(NOW.plus(9)).await.expect("taken over"), 2);
    assert_eq!(keys(store, NOW.plus(9), NOW.plus(90)).await.len(), 2, "the claims of a process that is gone");
    for key in ["h1", "h2"] {
        store.done(key, NOW).await.expect("done");
    }
    assert_eq!(store.prune_deliveries(NOW.plus(1)).await.expect("pruned"), 2);
}

async fn outbox_conforms(store: &Store) {
    holds_conform(store).await;
    for (at, key) in ["c", "a", "b", "a"].into_iter().enumerate() {
        put(store, key, NOW.plus(i64::try_from(at).expect("small"))).await;
    }
    assert_eq!(store.waiting().await.expect("counted"), 3, "the same key is put in once");
    let (late, retry) = (NOW.plus(100), NOW.plus(200));
    assert_eq!(keys(store, late, retry).await, ["c", "a", "b"], "oldest first");
    assert!(keys(store, late, retry).await.is_empty(), "claimed");
    let again = store.due(retry, NOW.plus(300), 1).await.expect("due");
    assert_eq!((again.len(), again[0].attempts, again[0].delivery.key.as_str()), (1, 1, "c"), "its claimer never said how it went");
    store.done("c", retry).await.expect("done");
    store.failed("c", "late", Some(NOW)).await.expect("taken");
    store.failed("a", "503", Some(NOW.plus(500))).await.expect("taken");
    store.failed("b", "410", None).await.expect("taken");
    assert!(keys(store, NOW.plus(499), NOW.plus(600)).await.is_empty());
    assert_eq!(keys(store, NOW.plus(500), NOW.plus(600)).await, ["a"]);
    assert_eq!(store.waiting().await.expect("counted"), 1);
    let dead = store.dead_deliveries(&Tenant::default(), 10).await.expect("listed");
    assert_eq!((dead.len(), dead[0].key.as_str(), dead[0].reason.as_str()), (1, "b", "410"));
    put(store, "c", NOW).await;
    assert_eq!(store.waiting().await.expect("counted"), 1, "what arrived is not sent again");
    assert_eq!(store.done("x", NOW).await.expect_err("unknown").kind, FaultKind::NotFound);
    let mut tries = 0;
    let mut at = NOW.plus(600);
    while !keys(store, at, at.plus(1)).await.is_empty() {
        tries += 1;
        assert!(tries <= MAX_ATTEMPTS, "it is given up some time");
        at = at.plus(1);
    }
    assert_eq!(store.dead_deliveries(&Tenant::default(), 10).await.expect("listed").len(), 2, "kept for inspection");
    put(store, "late", NOW).await;
    store.hold(delivery("forgotten"), NOW).await.expect("held");
    let stuck = store.stuck_deliveries(NOW.plus(1)).await.expect("listed");
    let found: Vec<_> = stuck.iter().map(|stuck| (stuck.state.as_str(), stuck.count, stuck.target.as_str())).collect();
    assert_eq!(found, [("dead", 2, "t"), ("held", 1, "t"), ("waiting", 1, "t")]);
    assert_eq!(store.stuck_deliveries(NOW).await.expect("listed").len(), 1, "what is due now is not late");
    for key in ["late", "forgotten"] {
        store.done(key, NOW).await.expect("done");
    }
    store.prune_deliveries(NOW.plus(1)).await.expect("pruned");
    assert_eq!(store.prune_deliveries(NOW.plus(1000)).await.expect("pruned"), 1);
}

async fn leases_conform(store: &Store) {
    let take =
        async |holder: &str, now: i64, until: i64| store.take_lease("fold/0", holder, NOW.plus(now), NOW.plus(until)).await.expect("asked");
    let first = take("a", 0, 10).await.expect("free");
    assert_eq!((first.epoch, store.lease("fold/0").await.expect("read")), (1, Some(first.clone())));
    assert_eq!(take("b", 9, 19).await, None, "a has it");
    assert_eq!(take("a", 9, 19).await, None, "taken is taken, also for a process of the same name");
    assert!(store.renew_lease(&first, NOW.plus(20)).await.expect("asked"));
    assert_eq!(take("b", 19, 29).await, None, "it was renewed");
    let second = take("b", 20, 30).await.expect("its time is over");
    assert_eq!(second.epoch, 2, "each holder has an epoch of its own");
    assert!(!store.renew_lease(&first, NOW.plus(40)).await.expect("asked"), "a was too late");
    assert!(!store.release_lease(&first).await.expect("asked"), "and gives nothing back");
    assert!(store.release_lease(&second).await.expect("asked"));
    let third = take("b", 21, 31).await.expect("given back");
    assert_eq!(third.epoch, 3);
    assert!(!store.renew_lease(&second, NOW.plus(40)).await.expect("asked"), "the same holder in an older epoch");
    let other = store.take_lease("fold/1", "c", NOW, NOW.plus(10)).await.expect("asked").expect("another lease");
    assert_eq!(other.epoch, 1);
    assert_eq!(store.lease("fold/2").await.expect("read"), None);
    // A table has seen more epochs than the store, which was put back.
    store.raise_epoch("fold/1", 41).await.expect("raised");
    store.raise_epoch("fold/1", 7).await.expect("nothing to do");
    assert!(!store.renew_lease(&other, NOW.plus(20)).await.expect("asked"), "its epoch is one of before");
    let next = store.take_lease("fold/1", "d", NOW.plus(10), NOW.plus(20)).await.expect("asked").expect("its time is over");
    assert_eq!(next.epoch, 42);
    store.raise_epoch("fold/3", 5).await.expect("raised");
    let first = store.take_lease("fold/3", "e", NOW, NOW.plus(10)).await.expect("asked").expect("nobody has it");
    assert_eq!(first.epoch, 6);
    let names: Vec<String> = store.leases().await.expect("read").into_iter().map(|lease| lease.name).collect();
    assert_eq!(names, ["fold/0", "fold/1", "fold/3"]);
}

/// What is anchored never goes back.
async fn anchors_conform(store: &Store) {
    let (first, second) = (TopicPartition::new("kiro.events", 0), TopicPartition::new("kiro.events", 1));
    assert!(store.anchors().await.expect("read").is_empty());
    for (at, offset, chain) in [(&first, 5, "1:a"), (&second, 9, "1:b"), (&first, 7, "1:c"), (&first, 6, "1:late"), (&first, 7, "1:again")]
    {
        store.anchor(at, offset, chain, NOW).await.expect("anchored");
    }
    let anchors = store.anchors().await.expect("read");
    assert_eq!((anchors.len(), &anchors[&first], &anchors[&second]), (2, &(7, "1:c".to_owned()), &(9, "1:b".to_owned())));
}

async fn persons_conform(store: &Store) {
    let (ours, theirs) = (Tenant::default(), Tenant::new("others"));
    let forgotten = store.forgotten().await.expect("counted");
    assert_eq!(store.pseudonym(&ours, "ada").await.expect("asked"), None, "asking names nobody");
    let named = store.pseudonyms(&ours, &texts(&["grace", "ada", "grace"]), NOW).await.expect("named");
    let (grace, ada, again) = (&named[0], &named[1], &named[2]);
    assert!(grace == again && grace != ada && person::is_pseudonym(ada) && person::is_pseudonym(grace), "{named:?}");
    let more = store.pseudonyms(&ours, &texts(&["ada", "new"]), NOW).await.expect("named");
    assert!(&more[0] == ada && &more[1] != ada, "{more:?}");
    assert_ne!(&store.pseudonyms(&theirs, &texts(&["ada"]), NOW).await.expect("named")[0], ada, "another person of another tenant");
    assert!(store.pseudonyms(&ours, &[], NOW).await.expect("nobody").is_empty());
    // Whoever sends events chooses the names.
    let odd =
        [String::new(), "x".repeat(100_000), "a\0b".to_owned(), "'; DROP TABLE persons; --".to_owned(), "Ada".to_owned(), "ädä".to_owned()];
    let named = store.pseudonyms(&ours, &odd, NOW).await.expect("named");
    assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), odd.len());
    let many: Vec<String> = (0..1_234).map(|at| format!("person-{at}")).collect();
    let named = store.pseudonyms(&ours, &many, NOW).await.expect("named");
    assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), many.len());
    assert_eq!(store.pseudonyms(&ours, &many, NOW).await.expect("named"), named, "the same again");

    assert_eq!(store.forget(&theirs, "grace", NOW).await.expect("asked"), None, "not theirs");
    assert_eq!(store.forgotten().await.expect("counted"), forgotten, "nobody was forgotten");
    assert_eq!(store.forget(&ours, "grace", NOW).await.expect("asked").as_ref(), Some(grace));
    assert_eq!(store.forget(&ours, "grace", NOW).await.expect("asked"), None, "forgotten already");
    assert_eq!(store.forgotten().await.expect("counted"), forgotten + 1);
    assert_eq!(store.pseudonym(&ours, "grace").await.expect("asked"), None);
    assert_eq!(store.pseudonym(&ours, "ada").await.expect("asked").as_ref(), Some(ada));
    let anew = store.pseudonyms(&ours, &texts(&["grace"]), NOW).await.expect("named");
    assert!(&anew[0] != grace && store.forgotten().await.expect("counted") == forgotten + 1, "{anew:?}");
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// However many name the same persons at once, each in another order, all of them say the same.
async fn all_name_alike(stores: &[Store]) {
    let names: Vec<String> = (0..700).map(|at| format!("alike-{at}")).collect();
    let askers = (0..12).map(|number| {
        let (store, mut names) = (stores[number % stores.len()].clone(), names.clone());
        let turn = number * 97 % names.len();
        names.rotate_left(turn);
        tokio::spawn(async move {
            let mut told = store.pseudonyms(&Tenant::default(), &names, NOW).await.expect("named");
            told.rotate_right(turn);
            told
        })
    });
    let mut said = BTreeSet::new();
    for asker in askers.collect::<Vec<_>>() {
        said.insert(asker.await.expect("joined"));
    }
    assert_eq!(said.len(), 1, "they do not agree");
    assert_eq!(said.first().expect("one").iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[tokio::test]
async fn processes_agree_who_is_who() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.db");
    all_name_alike(&[open(&path).await, open(&path).await]).await;
}

/// What ties a name to a pseudonym is gone from the files, too.
#[tokio::test]
async fn who_is_forgotten_is_not_in_the_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.db");
    let store = open(&path).await;
    let named = store.pseudonyms(&Tenant::default(), &texts(&["ada", "grace"]), NOW).await.expect("named");
    let is_there = |text: &str| {
        let mut files = folder.path().read_dir().expect("a folder").map(|file| std::fs::read(file.expect("a file").path()).expect("bytes"));
        let has = |bytes: Vec<u8>| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        files.any(has)
    };
    assert!(is_there(&named[0]) && is_there(&named[1]) && !is_there("grace"), "names are not kept");
    store.forget(&Tenant::default(), "grace", NOW).await.expect("asked");
    assert!(is_there(&named[0]) && !is_there(&named[1]), "the pseudonym is still in a file");
    store.close().await;
    assert!(is_there(&named[0]) && !is_there(&named[1]), "the pseudonym is still in a file");
}

/// However many come at once, one gets it.
async fn one_of_many_takes(stores: &[Store]) {
    let takers = (0..20).map(|number| {
        let store = stores[number % stores.len()].clone();
        tokio::spawn(async move { store.take_lease("race", &number.to_string(), NOW, NOW.plus(10)).await.expect("asked") })
    });
    let mut taken = 0;
    for taker in takers.collect::<Vec<_>>() {
        taken += usize::from(taker.await.expect("joined").is_some());
    }
    assert_eq!(taken, 1);
}

#[tokio::test]
async fn sqlite_conforms_and_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/control.db");
    let store = open(&path).await;
    conforms(&store).await;
    let text = store.create(token("kept", None), NOW).await.expect("created");
    store.close().await;
    let store = open(&path).await;
    assert!(store.verify(&text, NOW).await.expect("asked").is_some());
    let bytes = std::fs::read(&path).expect("a file");
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(has(b"kept") && !has(text.expose().as_bytes()), "the token itself is not kept");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o077, 0, "only its owner reads it");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.db");
    open(&path).await.close().await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.expect("a pool");
    sqlx::query("UPDATE kiro_schema SET version = 999").execute(&pool).await.expect("set");
    pool.close().await;
    let error = Store::open(StoreConfig::Sqlite(path)).await.expect_err("newer");
    assert!(error.to_string().contains("999") && error.to_string().contains("newer program"), "{error}");
}

#[tokio::test]
async fn a_look_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.db");
    let look = || Store::look(StoreConfig::Sqlite(path.clone()));
    assert!(look().await.expect("nothing is wrong").is_none() && !path.exists(), "no file is made");
    let store = open(&path).await;
    store.set_setting("a", "1", NOW).await.expect("written");
    let beside = look().await.expect("it can be read beside its owner").expect("a store");
    assert_eq!(beside.setting("a").await.expect("read").as_deref(), Some("1"));
    assert!(beside.set_setting("a", "2", NOW).await.is_err(), "and not written");
    beside.close().await;
    store.close().await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.expect("a pool");
    sqlx::query("UPDATE kiro_schema SET version = 1").execute(&pool).await.expect("set");
    pool.close().await;
    assert!(matches!(look().await.expect_err("older"), kiro_store::Error::Older { found: 1, .. }));
}

#[tokio::test]
async fn no_database_and_no_place_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.db");
    std::fs::write(&path, "this is no database, and long enough to be looked at as one".repeat(100)).expect("written");
    assert!(Store::open(StoreConfig::Sqlite(path.clone())).await.is_err());
    assert!(Store::open(StoreConfig::Sqlite(path.join("below/a/file"))).await.is_err());
    let nowhere = Secret::new("postgres://u:p@127.0.0.1:1/x");
    let error = Store::open(StoreConfig::Postgres(nowhere)).await.expect_err("nobody listens");
    assert!(!error.to_string().contains("u:p"), "{error}");
}

#[tokio::test]
async fn many_claimers_share_and_never_both_get_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.db");
    let (one, two) = (open(&path).await, open(&path).await);
    for key in 0..100 {
        put(&one, &format!("{key:03}"), NOW).await;
    }
    let mut claims = Vec::new();
    for at in 0..10 {
        let store = if at % 2 == 0 { one.clone() } else { two.clone() };
        claims.push(tokio::spawn(async move { store.due(NOW, NOW.plus(1), 15).await.expect("due") }));
    }
    let mut all = Vec::new();
    for claim in claims {
        all.extend(claim.await.expect("joined").into_iter().map(|due| due.delivery.key));
    }
    all.sort();
    assert_eq!(all, (0..100).map(|key| format!("{key:03}")).collect::<Vec<_>>());
}

/// The other process of the test below: claims, says so, and waits for its end.
#[tokio::test]
async fn child_that_claims() {
    let Some(path) = std::env::var_os("KIRO_STORE_CHILD") else { return };
    let store = open(Path::new(&path)).await;
    put(&store, "sent", NOW).await;
    put(&store, "claimed", NOW).await;
    assert_eq!(keys(&store, NOW, NOW.plus(50)).await.len(), 2);
    store.done("sent", NOW).await.expect("done");
    std::fs::write(Path::new(&path).with_extension("ready"), "").expect("written");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_claimer_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.db");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_claims", "--nocapture"])
        .env("KIRO_STORE_CHILD", &path)
        .stdout(Stdio::null())
        .spawn()
        .expect("a child");
    let ready = path.with_extension("ready");
    while !ready.exists() {
        assert!(child.try_wait().expect("a state").is_none(), "the child ended");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    let store = open(&path).await;
    assert!(keys(&store, NOW.plus(49), NOW.plus(99)).await.is_empty(), "its claim still holds");
    assert_eq!(keys(&store, NOW.plus(50), NOW.plus(99)).await, ["claimed"], "what was sent stays sent");
}

/// A real PostgreSQL, which ends when it is dropped.
struct Postgres {
    script: Child,
    url: Secret,
}

impl Postgres {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/postgres.sh");
        let mut script = Command::new(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("scripts/postgres.sh");
        let mut url = String::new();
        BufReader::new(script.stdout.take().expect("a pipe")).read_line(&mut url).expect("a line");
        assert!(!url.trim().is_empty(), "scripts/postgres.sh could not start PostgreSQL; its stderr says why");
        Self { script, url: Secret::new(url.trim()) }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        self.script.wait().expect("it ended");
    }
}

#[tokio::test]
async fn postgres_conforms() {
    let postgres = Postgres::start();
    let open = || Store::open(StoreConfig::Postgres(postgres.url.clone()));
    let (one, two) = tokio::join!(open(), open());
    let (one, two) = (one.expect("a store"), two.expect("a second store"));
    conforms(&one).await;
    assert_eq!(two.setting("a").await.expect("read").as_deref(), Some("2"));
    one.renew_lease(&one.lease("race").await.expect("read").expect("taken"), Micros(0)).await.expect("given back");
    one_of_many_takes(&[one.clone(), two.clone()]).await;
    all_name_alike(&[one.clone(), two.clone()]).await;
    one.close().await;
    two.close().await;
    refuses_a_newer_one(&postgres).await;
}

/// A schema of a newer program is refused, and stays as it is.
async fn refuses_a_newer_one(postgres: &Postgres) {
    let psql = |sql: &str| -> String {
        let told = Command::new("psql").args(["-X", "-A", "-t", "-c", sql]).arg(postgres.url.expose()).output().expect("psql runs");
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8(told.stdout).expect("text")
    };
    psql("UPDATE kiro_schema SET version = version + 97");
    let tables = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2";
    let before = psql(tables);
    for error in [
        Store::open(StoreConfig::Postgres(postgres.url.clone())).await.expect_err("newer"),
        Store::look(StoreConfig::Postgres(postgres.url.clone())).await.expect_err("newer"),
    ] {
        assert!(matches!(error, kiro_store::Error::Newer { found, known } if found == known + 97), "{error}");
    }
    assert_eq!(psql(tables), before);
    psql("UPDATE kiro_schema SET version = version - 97");
    Store::open(StoreConfig::Postgres(postgres.url.clone())).await.expect("its own again").close().await;
}
